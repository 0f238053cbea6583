"""A round's cost for a member and for a helper, 50 members and 100,000 parameters, beside SecAgg+.

Ours is the real path: real members and helpers with real keys, ledgers and messages, as they are in
a release; only the gradient is left out of the member's work, since it is the same under any way to
aggregate. Every repetition is another round, so nobody answers from what it has kept, and signatures
that another party of this process has checked are forgotten before each measurement. The unmasked
sum is compared with the plain one before anything is reported.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from time import process_time
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from benchmarks.flower_secagg import FlowerRound
from benchmarks.measure import Row, alternate, row
from clients.helper import Helper
from clients.keys import MemberKeys
from clients.member import Member
from consortium.rehearsal import SMALL, Board, Consortium, rehearse, small_base
from fedtrade.errors import Fault
from fedtrade.parameters import SCALE, PrivacyParameters
from fedtrade.privacy import mechanism, norm
from fedtrade.privacy.aggregation import Signed, norm_plan
from fedtrade.protocol import encode, recover
from server.rounds import Round

MEMBERS, PARAMETERS = 50, 100_000
FEATURES, HIDDEN = 63, (230, 366)
"""A network of exactly 100,000 trainable parameters."""
REPETITIONS = 5
NORM_MAX = 4.0
"""Bound of the hidden norm check, in clip units; the gradients here weigh some 3.2."""
PACKAGES = ("flwr", "cryptography", "numpy")


class WrongSum(Fault):
    """What was unmasked is not the sum of what was masked."""

    def __init__(self, side: str, distance: float, bound: float) -> None:
        super().__init__(f"{side}: the sum is off by {distance:g}, more than {bound:g}.")
        self.side = side
        self.distance = distance
        self.bound = bound


def rows() -> list[Row]:
    """Member's work, unmasking with all helpers and with two down, bytes; the norm check's price."""
    flower = FlowerRound(MEMBERS, PARAMETERS)
    flower.share()
    with bench(MEMBERS, FEATURES, HIDDEN) as plain:
        member, member_theirs = _member_times(plain, flower)
        whole = plain.unmasking(REPETITIONS)
        two_down = plain.unmasking(REPETITIONS, down=2)
        sent = plain.upload_bytes
    with bench(MEMBERS, FEATURES, HIDDEN, norm_max=NORM_MAX) as checked:
        member_checked = checked.member_s(6 * REPETITIONS)
        whole_checked = checked.unmasking(REPETITIONS)
        sent_checked = checked.upload_bytes
    theirs, bytes_theirs = flower_unmask(flower)
    server = "Flower SecAgg+ server, nobody dropped"
    without = "our own round without the norm check"
    return [
        _ms(
            "member_round_50x100k",
            "Flower SecAgg+ member: keys, shares, masks",
            member,
            member_theirs,
        ),
        _ms("unmask_50x100k", server, whole.helper_s, theirs),
        _ms(
            "unmask_50x100k_two_down",
            f"{server}; ours with 2 of 5 helpers down",
            two_down.helper_s,
            theirs,
        ),
        _bytes(
            "upload_bytes_per_param_mask",
            "Flower SecAgg+ reply with its masked vector",
            sent,
            bytes_theirs,
        ),
        _ms("norm_check_member_50x100k", f"{without}: the member", member_checked, member),
        _ms(
            "norm_check_helper_50x100k",
            f"{without}: a helper, opening to answer",
            whole_checked.helper_s,
            whole.helper_s,
        ),
        _bytes("norm_check_upload_bytes_per_param", without, sent_checked, sent / PARAMETERS),
    ]


def _ms(name: str, counterpart: str, ours_s: float, theirs_s: float) -> Row:
    return row(name, counterpart, ours_s * 1e3, theirs_s * 1e3, "ms", PACKAGES)


def _bytes(name: str, counterpart: str, ours: int, theirs: float) -> Row:
    return row(name, counterpart, ours / PARAMETERS, theirs, "B", PACKAGES)


@dataclass(frozen=True, slots=True)
class Unmasking:
    """Medians over rounds, in CPU seconds of the slowest helper."""

    helper_s: float
    """Its whole work in a round: open its boxes, check norms where that is on, answer."""
    check_s: float
    """The norm check alone; 0 where it is off."""


class Bench:
    """A consortium whose members have random gradients instead of positions."""

    def __init__(self, consortium: Consortium, board: Board, keys: MemberKeys) -> None:
        self.terms = consortium.terms
        self.members = list(consortium.members())
        self.helpers: dict[int, Helper] = {
            seat: desk.helper for seat, desk in consortium.desks.items() if desk.helper is not None
        }
        self.upload_bytes = 0
        """Size of the last upload."""
        self._model, self._vector = (
            consortium.release.trajectory.model,
            consortium.release.trajectory.vector_bytes,
        )
        self._board, self._keys = board, keys
        self._number = 0
        self._sent: list[Signed] = []
        for seed, member in enumerate(self.members):
            setattr(member, "_units", self._units(seed, member))  # noqa: B010 - instead of a gradient

    def _units(self, seed: int, member: Member) -> Callable[[NDArray[np.float32], bytes], Signed]:
        """What stands in for `Member._units`: the same but for the gradient, which is drawn here."""
        terms, plan = self.terms, norm_plan(self.terms)
        clip, batch = terms.parameters.clip_norm, terms.member_batch_max()
        gradient = np.random.default_rng(seed).normal(0.0, 0.01, terms.dimension)

        def units(_vector: NDArray[np.float32], _context: bytes) -> Signed:
            if plan is not None:
                found: Signed = norm.onto_ball(gradient / clip * SCALE, plan)
            else:
                found = mechanism.quantise(gradient, clip, batch)
            self._sent.append(found)
            return found

        return units

    def announce(self) -> tuple[Round, bytes]:
        """A new round, and its announcement."""
        self._number += 1
        current = Round(self.terms, self._number, self._model)
        return current, encode(current.announce(self._vector, self._keys.sign_digest))

    def member_calls(self) -> Iterator[Callable[[], bytes]]:
        """The work of one member after another, round after round; all of it is new work."""
        while True:
            _, message = self.announce()
            for member in self.members:
                recover.cache_clear()
                yield lambda member=member, message=message: member.upload(message)  # type: ignore[misc]

    def member_s(self, calls: int) -> float:
        """Median CPU seconds of a member's work in a round, the gradient left out."""
        work = self.member_calls()
        return alternate({"ours": lambda: next(work)()}, calls)["ours"]

    def unmasking(self, repetitions: int, down: int = 0) -> Unmasking:
        """The helpers' work in so many rounds, with the last `down` helpers away. Checks the sums."""
        up = dict(list(self.helpers.items())[: len(self.helpers) - down])
        taken = [self._unmask_round(up) for _ in range(repetitions)]
        whole = {s: median(sum(times[s]) for times in taken) for s in up}
        check = {s: median(times[s][1] for times in taken) for s in up}
        return Unmasking(max(whole.values()), max(check.values()))

    def _unmask_round(self, up: dict[int, Helper]) -> dict[int, tuple[float, float, float]]:
        """One round; gives the seconds of (opening, check, answer) of each helper."""
        current, message = self.announce()
        self._sent.clear()
        for member in self.members:
            data = member.upload(message)
            self.upload_bytes = len(data)
            current.upload(data)
        sign = self._keys.sign_digest
        opening, checking, answering = {}, dict.fromkeys(up, 0.0), {}
        for seat, intake in current.close(sign).items():
            if seat in up:
                opening[seat], reply = _timed(up[seat].ready, intake)
                current.ready(reply)
        if norm_plan(self.terms) is not None:
            panel = encode(next(iter(current.inspect(sign).values())))
            for seat, helper in up.items():
                checking[seat], reply = _timed(helper.check, panel)
                current.check(reply)
        manifest = current.commit(sign)
        self._board.post(manifest.release, manifest.round, manifest.content())
        question = encode(current.question())
        for seat, helper in up.items():
            answering[seat], reply = _timed(helper.answer, question)
            current.answer(reply)
        self._check_sum(current.sum(), len(up))
        return {s: (opening[s], checking[s], answering[s]) for s in up}

    def _check_sum(self, sums: Sequence[Signed], responders: int) -> None:
        """The sum must be ours to within twelve standard deviations of the committee's noise."""
        p = self.terms.parameters
        distance = float(np.abs(sums[0] - np.sum(self._sent, axis=0)).max())
        share = responders / (responders - p.corrupt)
        bound = 12 * p.noise_multiplier * SCALE * share**0.5
        if distance > bound or len(sums) != 1:
            raise WrongSum("mask committee", distance, bound)


def _timed(act: Callable[[bytes], bytes], body: bytes) -> tuple[float, bytes]:
    """CPU seconds of a party on a machine of its own: it knows no signature from others' work."""
    recover.cache_clear()
    begin = process_time()
    reply = act(body)
    return process_time() - begin, reply


@contextmanager
def bench(
    members: int,
    features: int,
    hidden: tuple[int, ...],
    norm_max: float | None = None,
    aggregation: Literal["mask", "bfv"] = "mask",
) -> Iterator[Bench]:
    """A consortium of so many members with a network of that shape, on a disk of its own."""
    board, keys = Board(), MemberKeys.ephemeral()
    changes = {
        "sampling_rate": 0.05,
        "rounds": 100,
        "update_norm_max": norm_max,
        "aggregation": aggregation,
    }
    parameters = PrivacyParameters.model_validate({**SMALL.model_dump(), **changes})
    with TemporaryDirectory() as folder:
        consortium = rehearse(
            Path(folder),
            members=members,
            parameters=parameters,
            base=small_base(features, hidden),
            positions_each=4,
            notices=board,
            coordinator_keys=keys,
        )
        try:
            yield Bench(consortium, board, keys)
        finally:
            consortium.close()


def _member_times(ours: Bench, flower: FlowerRound) -> tuple[float, float]:
    """CPU seconds of a member's work, ours and theirs: four stages against one message."""
    before = dict(flower.member_s)  # keys and shares: once a round, as the masks
    left, work = iter(flower.ids), ours.member_calls()
    taken = alternate(
        {"ours": lambda: next(work)(), "theirs": lambda: flower.mask(next(left))},
        REPETITIONS,
        inner={"ours": 6},
    )
    return taken["ours"], median(before.values()) + taken["theirs"]


def flower_unmask(flower: FlowerRound) -> tuple[float, float]:
    """Seconds of the server's unmasking, and bytes a parameter of one upload; checks the mean."""
    uploads = [flower.mask(member) for member in flower.ids]
    collected = flower.reveal()
    total = flower.add(uploads)
    begin = process_time()
    mean = flower.unmask(total, collected)
    seconds = process_time() - begin
    plain = np.mean(list(flower.updates.values()), axis=0)
    distance = float(np.abs(mean - plain).max())
    if distance > 1e-4:
        raise WrongSum("Flower SecAgg+", distance, 1e-4)
    return seconds, flower.message_bytes(uploads[0]) / flower.length
