"""A round's cost for a member and for a helper, 50 members and 100,000 parameters, beside SecAgg+.

Ours is the real path: real members and helpers with real keys and messages, as they are in a
release; only the gradient is left out of the member's work, since it is the same under any way to
aggregate. The unmasked sum is compared with the plain one before anything is reported.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from time import process_time

import numpy as np
from numpy.typing import NDArray

from benchmarks.flower_secagg import FlowerRound
from benchmarks.measure import Row, alternate, row
from clients.keys import MemberKeys
from clients.member import Member
from consortium.rehearsal import SMALL, Board, Consortium, rehearse, small_base
from fedtrade.errors import Fault
from fedtrade.parameters import SCALE
from fedtrade.privacy import mechanism
from fedtrade.privacy.masking import Ring
from fedtrade.protocol import Announcement, Upload, decode, encode
from server.rounds import Round

MEMBERS, PARAMETERS = 50, 100_000
FEATURES, HIDDEN = 63, (230, 366)
"""A network of exactly 100,000 trainable parameters."""
REPETITIONS = 5
PACKAGES = ("flwr", "cryptography", "numpy")


class WrongSum(Fault):
    """What was unmasked is not the sum of what was masked."""

    def __init__(self, side: str, distance: float, bound: float) -> None:
        super().__init__(f"{side}: the sum is off by {distance:g}, more than {bound:g}.")
        self.side = side
        self.distance = distance
        self.bound = bound


def rows() -> list[Row]:
    """Member's work, unmasking with all helpers and with two down, bytes of an upload."""
    flower = FlowerRound(MEMBERS, PARAMETERS)
    flower.share()
    with TemporaryDirectory() as folder:
        board, coordinator = Board(), MemberKeys.ephemeral()
        consortium = rehearse(
            Path(folder),
            members=MEMBERS,
            base=small_base(FEATURES, HIDDEN),
            positions_each=4,
            notices=board,
            coordinator_keys=coordinator,
        )
        if consortium.terms.dimension != PARAMETERS:
            raise Fault(
                f"the network has {consortium.terms.dimension} parameters, not {PARAMETERS}"
            )
        desks = consortium.desks.values()
        members = [desk.member for desk in desks if desk.member is not None]
        gradients = [_gradient(seed) for seed in range(MEMBERS)]
        member = _member_row(consortium, coordinator, members, gradients, flower)
        uploads, sent = _all_upload(consortium, coordinator, members, gradients, 1)
        whole = _unmask(consortium, coordinator, board, uploads, gradients, 1, down=0)
        uploads, _ = _all_upload(consortium, coordinator, members, gradients, 2)
        two_down = _unmask(consortium, coordinator, board, uploads, gradients, 2, down=2)
        consortium.close()
    theirs, bytes_theirs = _flower_unmask(flower)
    server = "Flower SecAgg+ server, nobody dropped"
    bytes_ours = sent / PARAMETERS
    return [
        member,
        row("unmask_50x100k", server, whole * 1e3, theirs * 1e3, "ms", PACKAGES),
        row(
            "unmask_50x100k_two_down",
            f"{server}; ours with 2 of 5 helpers down",
            two_down * 1e3,
            theirs * 1e3,
            "ms",
            PACKAGES,
        ),
        row(
            "upload_bytes_per_param_mask",
            "Flower SecAgg+ reply with its masked vector",
            bytes_ours,
            bytes_theirs,
            "B",
            PACKAGES,
        ),
    ]


def _gradient(seed: int) -> NDArray[np.float64]:
    """A sum of clipped gradients such as a member has."""
    return np.random.default_rng(seed).normal(0.0, 0.01, PARAMETERS)


def _announcement(
    consortium: Consortium, keys: MemberKeys, number: int
) -> tuple[Round, Announcement]:
    trajectory = consortium.release.trajectory
    current = Round(consortium.terms, number, trajectory.model)
    return current, current.announce(trajectory.vector_bytes, keys.sign_digest)


def _member_work(member: Member, message: Announcement, gradient: NDArray[np.float64]) -> bytes:
    """All that a member does after its gradient: from floats to the bytes of its upload."""
    p, batch = member.terms.parameters, member.terms.member_batch_max()
    return member._mask(message, mechanism.quantise(gradient, p.clip_norm, batch))


def _member_row(
    consortium: Consortium,
    keys: MemberKeys,
    members: Sequence[Member],
    gradients: Sequence[NDArray[np.float64]],
    flower: FlowerRound,
) -> Row:
    """Their member's four stages against our one message."""
    _, message = _announcement(consortium, keys, 1)
    before = dict(flower.member_s)  # keys and shares: once a round, as the masks
    left = iter(flower.ids)
    taken = alternate(
        {
            "ours": lambda: _member_work(members[0], message, gradients[0]),
            "theirs": lambda: flower.mask(next(left)),
        },
        REPETITIONS,
        inner={"ours": 6},
    )
    theirs = median(before.values()) + taken["theirs"]
    return row(
        "member_round_50x100k",
        "Flower SecAgg+ member: keys, shares, masks",
        taken["ours"] * 1e3,
        theirs * 1e3,
        "ms",
        PACKAGES,
    )


def _all_upload(
    consortium: Consortium,
    keys: MemberKeys,
    members: Sequence[Member],
    gradients: Sequence[NDArray[np.float64]],
    number: int,
) -> tuple[Round, int]:
    """A round with every upload taken, and the size of one."""
    current, message = _announcement(consortium, keys, number)
    size = 0
    for member, gradient in zip(members, gradients, strict=True):
        data = _member_work(member, message, gradient)
        size = len(data)
        decode(Upload, data)
        current.upload(data)
    return current, size


def _unmask(
    consortium: Consortium,
    keys: MemberKeys,
    board: Board,
    current: Round,
    gradients: Sequence[NDArray[np.float64]],
    number: int,
    down: int,
) -> float:
    """Seconds of the slowest helper's whole work: open its boxes, then answer. Checks the sum."""
    helpers = {s: d.helper for s, d in consortium.desks.items() if d.helper is not None}
    up = dict(list(helpers.items())[: len(helpers) - down])
    intakes = {seat: encode(intake) for seat, intake in current.close(keys.sign_digest).items()}
    opening = alternate(
        {str(s): partial(helper.ready, intakes[s]) for s, helper in up.items()}, REPETITIONS
    )
    for seat, helper in up.items():
        current.ready(helper.ready(intakes[seat]))
    manifest = current.commit(keys.sign_digest)
    board.post(manifest.release, number, manifest.content())
    question = encode(manifest)
    answering = alternate(
        {str(s): partial(helper.answer, question) for s, helper in up.items()}, REPETITIONS
    )
    for helper in up.values():
        current.answer(helper.answer(question))
    total, _ = current.sum()
    _check_sum(total, gradients, len(up))
    return max(opening[seat] + answering[seat] for seat in opening)


def _check_sum(total: Ring, gradients: Sequence[NDArray[np.float64]], responders: int) -> None:
    """The sum must be ours to within twelve standard deviations of the committee's noise."""
    plain = np.sum([np.rint(g / SMALL.clip_norm * SCALE) for g in gradients], axis=0)
    distance = float(np.abs(total.view(np.int32) - plain).max())
    share = responders / (responders - SMALL.corrupt)
    bound = 12 * SMALL.noise_multiplier * SCALE * share**0.5
    if distance > bound:
        raise WrongSum("mask committee", distance, bound)


def _flower_unmask(flower: FlowerRound) -> tuple[float, float]:
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
    return seconds, flower.message_bytes(uploads[0]) / PARAMETERS
