"""What lies on a party's disk or is handed to it as a file, fed with mutants: a value or a refusal.

A file may be torn by a crash, altered by a backup, or written by somebody who wants it read. Where a
file is protected by hashes, half of the mutants carry the right ones.
"""

import hashlib
import io
import json
import ssl
import tomllib
from datetime import UTC, datetime

import polars as pl
import pytest
from adversary import Adversary
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from fuzzing import fuzz
from mutation import JSON, MSGPACK, Form, Mutator, toml_form

from clients.budget import Budget
from clients.channel import client_tls
from clients.helper import Helper
from clients.keys import MemberKeys
from clients.ledger import chained
from clients.recovery import read_history
from clients.settings import ExecutionSettings, HistorySettings, MemberSettings
from consortium.rehearsal import small_base
from fedtrade.artifact import load
from fedtrade.chain.deployment import Deployment
from fedtrade.errors import FedtradeError
from fedtrade.journal import GENESIS, Reader, link, replay
from fedtrade.learning.positions import read_positions
from fedtrade.market.encoding import canonical, decode, encode
from fedtrade.market.events import BarClosed, Head
from fedtrade.privacy.accounting import Spend
from fedtrade.privacy.aggregation import Trajectory
from fedtrade.privacy.transcript import verify_file
from fedtrade.settings import SETTINGS_MAX_BYTES
from server.certificates import TlsFiles, create_authority, issue
from server.gate import read_node_keys
from server.keys import CoordinatorKeys
from server.settings import COORDINATOR_TEMPLATE, CoordinatorSettings
from server.store import TranscriptFile

pytestmark = pytest.mark.timeout(7200)

FILES = 60
"""Inputs of a parser that reads a file, where the environment asks for no number."""


def of_file(path, read, mode=0o600):
    """A parser of bytes out of one of a file."""

    def parse(data):
        path.write_bytes(data)
        return read()

    path.touch()
    path.chmod(mode)
    return parse


# --- settings -------------------------------------------------------------------------------------

MEMBER_TOML = f"""
folder = "."
keys = "."
positions = "positions.csv"
until = 2025-06-12T00:00:00Z
approved_terms = ["{"ab" * 32}"]
[seats]
member = 1
helper = 1
[coordinator]
address = "0x{"0a" * 20}"
url = "https://coordinator.example:9443"
ca_file = "ca.crt"
[floor]
epsilon_limit = 8.0
delta_max = 1e-6
[helper]
cohort_min = 3
"""
EXECUTION_TOML = """
deployment = "deployment.json"
chain = "aster"
keys = "keys"
artifact = "model.safetensors"
folder = "aster"
[agent]
capital_quote = 100000.0
native_price_quote = 2700.0
[history]
candles = "history.parquet"
[limits]
deadline_max_s = 900
[fees]
confirmations = 1
"""
COORDINATOR_TOML = "\n".join(
    line.split("#")[0].rstrip() for line in COORDINATOR_TEMPLATE.splitlines() if line.strip()
)


def read_toml(data):
    """A tree that can be written again: moments as text."""
    return json.loads(json.dumps(tomllib.loads(data.decode()), default=str))


@pytest.mark.parametrize(
    ("kind", "text"),
    [
        (MemberSettings, MEMBER_TOML),
        (CoordinatorSettings, COORDINATOR_TOML),
        (ExecutionSettings, EXECUTION_TOML),
    ],
    ids=["member", "coordinator", "execution"],
)
def test_settings(tmp_path, kind, text):
    path = tmp_path / "settings.toml"

    def read():
        settings = kind.load(path)
        if kind is ExecutionSettings:
            settings.fee_settings(13)
        return settings

    whole = of_file(path, read)

    def parse(data):
        return whole(data[: SETTINGS_MAX_BYTES + 1])

    assert parse(text.encode())
    mutate = Mutator([text.encode()], 19, toml_form(read_toml))
    fuzz(f"settings {kind.__name__}", parse, mutate, FILES)


def test_deployments(tmp_path):
    address = iter(f"0x{i:040x}" for i in range(1, 99))
    token = {"symbol": "T", "decimals": 18}
    one = {
        "name": "aster", "chain_id": 1, "rpc_url": "http://x", "ws_url": "ws://x",
        "registry": next(address), "parameters": next(address), "price_feed": next(address),
        "feed_decimals": 8, "base": {**token, "address": next(address)},
        "quote": {**token, "address": next(address)}, "pool": next(address), "fee_pips": 3000,
        "tick_spacing": 60, "factory": next(address), "position_manager": next(address),
        "swap_router": next(address), "quoter": next(address),
    }  # fmt: skip
    names = ("membership", "parameter_store", "model_registry", "timelock", "governor")
    one["consortium"] = {name: next(address) for name in names}
    good = json.dumps({"chains": [one], "home": "aster"}).encode()
    path = tmp_path / "deployment.json"
    parse = of_file(path, lambda: Deployment.load(path).chain("aster").pool_key())
    assert parse(good)
    fuzz("deployment", parse, Mutator([good], 40, JSON), 300)


# --- ledgers and journals -------------------------------------------------------------------------


def lines_form(rechain):
    """Lines of JSON; a mutant of the tree is chained again, as a forger would."""

    def write(tree):
        lines, before = [], GENESIS
        for line in tree if isinstance(tree, list) else [tree]:
            if isinstance(line, dict):
                line = rechain(line, before, len(lines))
                before = line["hash"] if isinstance(line["hash"], str) else before
            lines.append(json.dumps(line, sort_keys=True, separators=(",", ":")).encode() + b"\n")
        return b"".join(lines)

    def read(data):
        return [json.loads(line) for line in data.splitlines()]

    return Form(read, write)


def rechained(line, before, _seq):
    entry = {k: v for k, v in line.items() if k not in ("previous", "hash")}
    try:
        return chained(entry, before)
    except ValueError:  # NaN has no hash
        return {**entry, "previous": before, "hash": before}


def test_ledgers(tmp_path):
    """The ledger of ε: lines, and the head beside them."""
    path = tmp_path / "ledger.jsonl"
    with Budget(path, 20.0, 1e-6) as budget:
        for number in (1, 2, 3):
            budget.spend(1, number, Spend(0.1, 1.0, 1), bytes([number]) * 32)
    good, head = path.read_bytes(), path.with_name("ledger.jsonl.head")
    good_head = head.read_bytes()

    def read():
        Budget(path, 20.0, 1e-6).close()

    def forged(data):
        last = data.rstrip(b"\n").rsplit(b"\n", 1)[-1]
        try:
            line = json.loads(last)
            count = data.count(b"\n")
            head.write_text(json.dumps([count, line["hash"]]))
        except (ValueError, TypeError, KeyError, RecursionError):
            head.write_bytes(good_head)
        return lines(data)

    lines = of_file(path, read)
    forged(good)
    fuzz("ledger", forged, Mutator([good], 41, lines_form(rechained)), FILES)

    def headed(data):
        path.write_bytes(good)
        head.write_bytes(data)
        return read()

    fuzz("ledger head", headed, Mutator([good_head], 42, JSON), FILES)


def test_logs_of_helpers(tmp_path):
    """What a helper signed, and the intake that it kept."""
    a = Adversary(tmp_path, "mask")
    a.collect().make_ready()
    for seat in a.helpers:
        a.ask("answer", seat, a.finalise(a.question()))
    helper = a.helpers[1]
    helper.close()
    folder = tmp_path / "member-1"
    log, intake = folder / "signed-1.jsonl", folder / "intake-1-1.bin"
    good, kept, body = log.read_bytes(), intake.read_bytes(), a.intakes[1]
    head = folder / "signed-1.jsonl.head"

    def again():
        found = Helper(1, helper._keys, a.terms, folder, a.board.final, 3)
        try:
            found._held()
        finally:
            found.close()

    def forged(data):
        log.write_bytes(data)
        last = data.rstrip(b"\n").rsplit(b"\n", 1)[-1]
        try:
            head.write_text(json.dumps([data.count(b"\n"), json.loads(last)["hash"]]))
        except (ValueError, TypeError, KeyError, RecursionError):
            head.write_text(json.dumps([1, GENESIS]))
        again()

    forged(good)
    fuzz("helper's log", forged, Mutator([good], 43, lines_form(rechained)), FILES)
    forged(good)

    def taken(data):
        intake.write_bytes(data)
        again()

    taken(kept)
    assert body
    fuzz("helper's intake", taken, Mutator([kept], 44, MSGPACK), FILES)
    a.close()


EVENTS = [
    BarClosed(0, 3600, 1.0, 2.0, 0.5, 1.5, 10.0),
    Head(5, "0x05", "0x04", 100, 7),
]


def journal_bytes():
    lines, before = [], GENESIS
    bodies = [("note", {"x": 1}), *(("event", encode(event)) for event in EVENTS)]
    for seq, (kind, body) in enumerate(bodies):
        record = {"body": body, "kind": kind, "prev": before, "seq": seq}
        before = link(before, seq, kind, body)
        lines.append(canonical({**record, "hash": before}).encode() + b"\n")
    return b"".join(lines)


def relinked(line, before, seq):
    try:
        digest = link(before, seq, line.get("kind"), line.get("body"))
    except (ValueError, TypeError):
        digest = before
    return {**line, "prev": before, "seq": seq, "hash": digest}


class Deaf:
    """An agent that decides nothing."""

    last_receipt = None

    def on(self, _event):
        return []


def test_journals(tmp_path):
    path = tmp_path / "journal.jsonl"
    form = lines_form(relinked)
    good = form.write(form.read(journal_bytes()))
    assert good == journal_bytes()
    started = form.write(
        [{"kind": "start", "body": {"a": 1}}, *form.read(good)[1:]]
    )  # an agent begins, and hears what was recorded

    parse = of_file(path, lambda: replay(path, lambda _body: Deaf()))
    assert parse(started).events == 2
    fuzz("journal", parse, Mutator([good, started], 45, form), FILES)

    def event(data):
        try:
            tree = json.loads(data)
        except (ValueError, RecursionError):
            tree = {"type": data.decode("latin1")}
        return decode(tree if isinstance(tree, dict) else {"type": tree})

    bodies = [json.dumps(encode(e)).encode() for e in EVENTS]
    fuzz("event", event, Mutator(bodies, 46, JSON), refusals=(FedtradeError, ValueError))
    reader = of_file(path, lambda: list(Reader(path)))
    fuzz("journal lines", reader, Mutator([good], 47), FILES)


# --- positions and candles ------------------------------------------------------------------------

HEADER = "position_id,venue,symbol,side,opened_at,closed_at,entry_price,quantity_base,leverage\n"
CSV = (
    HEADER
    + "a-1,binance,ETH,long,2025-04-02T03:17:41Z,2025-04-04T09:41:13Z,1937.4,41.8,7.3\n"
    + "a-2,binance,ETH,short,1743900000,,1937.4,41.8,1\n"
)


def as_parquet(text):
    out = io.BytesIO()
    pl.read_csv(io.BytesIO(text.encode()), infer_schema=False).write_parquet(out)
    return out.getvalue()


@pytest.mark.parametrize("suffix", ["csv", "parquet"])
def test_positions(tmp_path, suffix):
    path = tmp_path / f"positions.{suffix}"
    good = CSV.encode() if suffix == "csv" else as_parquet(CSV)
    market = {("binance", "ETH")}
    parse = of_file(path, lambda: read_positions(path, 1_749_686_400, market))
    assert len(parse(good)) == 2
    fuzz(f"positions {suffix}", parse, Mutator([good], 48), FILES)


def test_candles(tmp_path):
    path = tmp_path / "history.parquet"
    frame = pl.DataFrame(
        {
            "start_s": [0, 3600], "width_s": [3600, 3600], "open": [1.0, 2.0], "high": [2.0, 2.0],
            "low": [1.0, 1.0], "close": [1.5, 1.5], "notional_usd": [10.0, 20.0],
        }
    )  # fmt: skip
    frame.write_parquet(path)
    settings, good = HistorySettings(candles=path), path.read_bytes()
    parse = of_file(path, lambda: read_history(settings))
    assert len(parse(good)) == 2
    fuzz("candles parquet", parse, Mutator([good], 49), FILES)


# --- keys and certificates ------------------------------------------------------------------------


def test_keys(tmp_path):
    member, coordinator = tmp_path / "member", tmp_path / "coordinator"
    MemberKeys.create(member)
    CoordinatorKeys.create(coordinator)
    for name, kind, path, form in (
        ("keys member", MemberKeys, member / "keys.json", JSON),
        ("keys coordinator", CoordinatorKeys, coordinator / "coordinator.key", None),
    ):
        good = path.read_bytes()
        parse = of_file(path, lambda kind=kind, path=path: kind.load(path.parent))
        parse(good)
        fuzz(name, parse, Mutator([good], 50, form), FILES)


def test_certificates(tmp_path):
    now = datetime(2025, 6, 1, tzinfo=UTC)
    create_authority(tmp_path, "consortium", now)
    files = issue(tmp_path, ["localhost"], now)
    reads = {
        "certificate of an authority": (tmp_path / "ca.crt", lambda: client_tls(files.ca)),
        "certificate of a server": (files.certificate, files.server_context),
        "key of a server": (files.key, files.server_context),
        "authority to issue with": (
            tmp_path / "ca.crt",
            lambda: issue(tmp_path, ["localhost"], now),
        ),
        "key of an authority": (tmp_path / "ca.key", lambda: issue(tmp_path, ["localhost"], now)),
    }
    for name, (path, read) in reads.items():
        good = path.read_bytes()
        parse = of_file(path, read)
        parse(good)
        fuzz(name, parse, Mutator([good], 51), FILES)
        path.write_bytes(good)
    assert isinstance(TlsFiles.within(tmp_path).server_context(), ssl.SSLContext)


def test_node_keys(tmp_path):
    key = ec.generate_private_key(ec.SECP384R1()).public_key()
    good = key.public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH)
    path = tmp_path / "node.pub"
    parse = of_file(path, lambda: read_node_keys([path]))
    assert len(parse(good)) == 1
    fuzz("node key", parse, Mutator([good], 52), FILES)


# --- the coordinator's store ----------------------------------------------------------------------


def test_stores(tmp_path):
    """The transcript under way and the stages of an open round, as a crash may leave them."""
    a = Adversary(tmp_path, "mask")
    release, exchange = a.consortium.release, a.consortium.direct()
    release.run_round(exchange)
    path = a.consortium.transcript_path
    part = path.with_suffix(".part")
    good, stages = path.read_bytes(), part.read_bytes()
    first = small_base()
    artifact = load(first, hashlib.sha256(first).hexdigest())

    def resume():
        return TranscriptFile(path).resume(a.terms, first, Trajectory(a.terms, artifact))

    whole = of_file(path, resume)
    whole(good)
    fuzz("store transcript", whole, Mutator([good], 53), 60)
    path.write_bytes(good)
    staged = of_file(part, resume)
    staged(stages)
    fuzz("store stages", staged, Mutator([stages], 54), 60)
    part.write_bytes(stages)
    ended = of_file(path.with_suffix(".ended"), resume)
    fuzz("store ended", ended, Mutator([b"3"], 55), 60)
    a.close()


def test_files_of_transcripts(tmp_path):
    path = tmp_path / "transcript.bin"
    parse = of_file(path, lambda: verify_file(path))
    fuzz(
        "transcript file", parse, Mutator([b"fedtrade transcript 1\n\x00\x00\x00\x01\x80"], 56), 300
    )
