"""Nothing private leaves a member's own folder: planted values are searched in all that left.

A whole release runs over Flower with positions of planted values. Everything that left a member is
kept: each message and reply as Flower carries it, each log line, each file outside the members'
folders, each line that was printed. Then it is searched for the planted values in every form that
they take on the way (text, float64, float32) and for the unmasked updates (as gradients, and as ring
integers). A control plants one and must find it.
"""

import logging
import struct

import numpy as np
import pytest

from clients.keys import MemberKeys
from clients.positions import PrivatePositions
from consortium import rehearsal
from consortium.rehearsal import SMALL, Board, Consortium, Party, make_terms, small_base
from fedtrade.errors import FedtradeError
from fedtrade.learning.tables import candles
from fedtrade.learning.windows import HEADS
from fedtrade.privacy import mechanism

MARKET = ("binance", "ETH")
HEADER = "position_id,venue,symbol,side,opened_at,closed_at,entry_price,quantity_base,leverage\n"
WINDOW = 16
"""Bytes of a secret vector that must not be found anywhere."""


def planted(member):
    """Values that occur nowhere by chance: prices and sizes with ten significant digits."""
    return {
        "id": f"CANARY-{member}-7f3a9",
        "price": 1937.412683 + member * 0.00731,
        "size": 41.88317529 + member * 0.0113,
        "leverage": 7.381912 + member * 0.0271,
    }


def write_positions(folder, member):
    folder.mkdir(parents=True)
    v = planted(member)
    rows = [
        f"{v['id']}-{i},binance,ETH,{'long' if i % 2 else 'short'},2025-04-{d:02d}T03:17:41Z,"
        f"2025-04-{d + 2:02d}T09:41:13Z,{v['price']!r},{v['size']!r},{v['leverage']!r}\n"
        for i, d in enumerate(range(2, 26))
    ]
    path = folder / "positions.csv"
    path.write_text(HEADER + "".join(rows))
    return path


class Everything:
    """All bytes that left a member, and what must not be among them."""

    def __init__(self):
        self.left = []
        self.secrets = []

    def vector(self, array):
        raw = array.tobytes()
        for at in range(0, len(raw) - WINDOW, WINDOW):
            window = raw[at : at + WINDOW]
            if window.count(0) <= 4:  # zeros and small integers occur everywhere
                self.secrets.append(window)

    def number(self, value):
        self.secrets.append(repr(value).encode())
        for form in ("<d", ">d"):
            self.secrets.append(struct.pack(form, value))

    def found(self):
        everything = b"\0".join(self.left)
        return [s for s in self.secrets if s in everything]


@pytest.fixture
def released(tmp_path, monkeypatch, caplog, capfd):
    caplog.set_level(logging.DEBUG)
    spy = Everything()
    table = candles(*MARKET)
    parties = []
    base = small_base(features=feature_count(), hidden=(4,))
    for i in range(1, 6):
        folder = tmp_path / "members" / str(i)
        path = write_positions(folder, i)
        positions = PrivatePositions.load(path, {MARKET: table}, now_s=1_749_686_400)
        parties.append(Party(i, f"m{i}", MemberKeys.ephemeral(), positions, folder))
        v = planted(i)
        spy.secrets.append(v["id"].encode())
        for name in ("price", "size", "leverage"):
            spy.number(v[name])
    keys = MemberKeys.ephemeral()
    terms = make_terms(parties, SMALL, base, keys.address)
    consortium = Consortium(
        parties,
        terms,
        base,
        Board(),
        keys.sign_digest,
        tmp_path / "shared",
        rehearsal.Floor(epsilon_limit=20.0),
    )
    quantise = mechanism.quantise

    def watched(total, *args):
        units = quantise(total, *args)
        spy.vector(total)
        spy.vector(total.astype(np.float32))
        spy.vector(units)
        return units

    monkeypatch.setattr(mechanism, "quantise", watched)

    class Spy(rehearsal.LocalGrid):
        def _deliver(self, message):
            spy.left.append(repr(message.content).encode())
            spy.left.extend(bodies(message))
            reply = super()._deliver(message)
            if reply is not None:
                spy.left.append(repr(reply).encode())
                spy.left.extend(bodies(reply))
            return reply

    monkeypatch.setattr(rehearsal, "LocalGrid", Spy)

    def run(exchange):
        for _ in range(3):
            consortium.release.run_round(exchange)
        # and a question that fails, so that the error path is searched too
        exchange("upload", {1: b"nonsense"})

    consortium.over_flower(run)
    finished = consortium.release.finish()
    for party in parties:
        with pytest.raises(FedtradeError):  # errors are texts too
            PrivatePositions.load(party.folder / "positions.csv", {}, now_s=1_749_686_400)
    spy.left.append(finished.transcript)
    spy.left.append(finished.artifact)
    for path in tmp_path.rglob("*"):
        if path.is_file() and "members" not in path.relative_to(tmp_path).parts:
            spy.left.append(path.read_bytes())
    spy.left.extend(r.getMessage().encode() for r in caplog.records)
    spy.left.extend(part.encode() for part in capfd.readouterr())
    spy.left.extend(repr(p.positions).encode() for p in parties)
    consortium.close()
    return spy


def feature_count():
    from fedtrade.learning.features import PRIVATE_FEATURES, PUBLIC_FEATURES

    assert len(HEADS) == 2
    return len(PUBLIC_FEATURES) + len(PRIVATE_FEATURES)


def bodies(message):
    if message.has_error():
        return [str(message.error).encode()]
    return [
        value if isinstance(value, bytes) else repr(value).encode()
        for record in message.content.config_records.values()
        for value in record.values()
    ]


def test_nothing_private_is_in_anything_that_left(released):
    assert len(released.left) > 60
    assert sum(map(len, released.left)) > 10_000
    assert len(released.secrets) > 500
    assert released.found() == []


def test_the_search_finds_what_is_planted(released):
    """The control: one unmasked update, one price, one position id."""
    control = Everything()
    control.secrets = released.secrets
    update = next(s for s in released.secrets if len(s) == WINDOW and not s.startswith(b"CAN"))
    price = struct.pack("<d", planted(3)["price"])
    control.left = [*released.left, b"xx" + update, b"yy" + price, b"zz CANARY-2-7f3a9-1"]
    assert len(control.found()) >= 3
