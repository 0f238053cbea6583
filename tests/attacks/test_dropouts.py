"""Members and helpers that vanish before or after any message: the exact sum, or no sum at all.

Each round draws a drop-out rate of 10, 30 or 40 % for the members and one for the helpers, and for
each party and each message whether it is lost: before it is sent (its author never acts) or after
(it was acted on, and the coordinator hears nothing). A round that ends must give, to the last unit,
the plain sum of the cohort's updates plus the responders' noise; it may be abandoned, and it may
never be wrong.

`FEDTRADE_DROPOUT_ROUNDS=10000` runs the full count; with `-s` it says how the rounds ended. On a file
system in memory (`--basetemp=/dev/shm/dropouts`) it waits for no disk.
"""

import os
from collections import Counter

import numpy as np
import pytest
from adversary import COORDINATOR, LANES, gather

from fedtrade.channel import role_of
from fedtrade.errors import FedtradeError
from fedtrade.privacy.aggregation import buckets_of, weights_of
from fedtrade.protocol import encode
from server.rounds import Round, RoundAbandoned, drop_alone

ROUNDS = int(os.environ.get("FEDTRADE_DROPOUT_ROUNDS", "200"))
RATES = (0.1, 0.3, 0.4)
CASES = [
    # lane, members, share of the rounds
    ("mask", 3, 0.22),
    ("mask", 10, 0.27),
    ("five", 10, 0.16),
    ("certificate", 10, 0.12),
    ("mask", 50, 0.06),
    ("buckets", 10, 0.07),
    ("norm", 10, 0.06),
    ("bfv", 10, 0.04),
]
ROUNDS_A_RELEASE = 8


class Draw:
    """Who is lost, when: all drawn from one seed."""

    def __init__(self, seed):
        self.rng = np.random.default_rng(seed)
        self.members = float(self.rng.choice(RATES))
        self.helpers = float(self.rng.choice(RATES))

    def fate(self, role):
        """ "sent", or lost "before" it was acted on or "after"."""
        if self.rng.random() >= (self.members if role == "member" else self.helpers):
            return "sent"
        return str(self.rng.choice(["before", "after"]))


class Table:
    """One release's parties, asked directly. Every update is watched, which only a test may do."""

    def __init__(self, folder, lane, members):
        least = {3: 3, 10: 4, 50: 10}[members]
        parameters = LANES[lane].model_copy(
            update={"cohort_min": 6 if lane == "buckets" else least, "rounds": ROUNDS_A_RELEASE}
        )
        self.consortium, self.board = gather(folder, parameters, members, count=4)
        self.terms, self.p = self.consortium.terms, parameters
        self.desks = self.consortium.desks
        self.units = {}
        for seat, desk in self.desks.items():
            self._watch(seat, desk.member)

    def _watch(self, seat, member):
        inner = member._units

        def units(vector, context):
            self.units[seat] = inner(vector, context)
            return self.units[seat]

        member._units = units

    def ask(self, draw, action, bodies):
        """Replies of those that are there; the others act or do not, and nobody hears of it."""
        replies = {}
        for seat, body in bodies.items():
            fate = draw.fate(role_of(action))
            if fate == "before":
                continue
            try:
                reply = self.desks[seat].act(action, body)
            except FedtradeError:
                continue
            if fate == "sent":
                replies[seat] = reply
        return replies

    def round(self, number, draw):
        """ "summed" or the reason of the abandonment. A wrong sum is an AssertionError."""
        trajectory = self.consortium.release.trajectory
        current = Round(self.terms, number, trajectory.model)
        sign, left = COORDINATOR.sign_digest, []
        announcement = encode(current.announce(trajectory.vector_bytes, sign))
        try:
            replies = self.ask(draw, "upload", dict.fromkeys(self.desks, announcement))
            drop_alone(current.upload, replies, left, "member")
            intakes = current.close(sign)
            drop_alone(current.ready, self.ask(draw, "ready", intakes), left, "helper")
            if self.p.update_norm_max is not None:
                panels = {h: encode(i) for h, i in current.inspect(sign).items()}
                drop_alone(current.check, self.ask(draw, "check", panels), left, "helper")
            if self.p.bucket_min is not None:
                draft = current.draft(sign)
                shown = dict.fromkeys(draft.manifest.responders, encode(draft))
                drop_alone(current.draw, self.ask(draw, "draw", shown), left, "helper")
            manifest = current.commit(sign)
            if self.p.agreement == "certificate":
                shown = dict.fromkeys(
                    (h.id for h in self.terms.helpers), encode(current.question())
                )
                drop_alone(current.approve, self.ask(draw, "approve", shown), left, "helper")
                current.certified()
            else:
                self.board.post(self.terms.release, number, manifest.content())
            asked = dict.fromkeys(manifest.responders, encode(current.question()))
            drop_alone(current.answer, self.ask(draw, "answer", asked), left, "helper")
            sums = current.sum()
        except RoundAbandoned as why:
            return why.reason.split(" ", 1)[1] if why.reason[0].isdigit() else "answers are missing"
        assert not left, left  # all are honest: nobody is refused
        self._compare(manifest, sums)
        return "summed"

    def _compare(self, manifest, sums):
        weights = weights_of(manifest)
        helpers = [self.desks[h].helper for h in manifest.responders]
        for place, (group, total) in enumerate(
            zip(buckets_of(self.terms, manifest), sums, strict=True)
        ):
            plain = sum(weights[m] * self.units[m] for m in group)
            content, r = manifest.content(), len(helpers)
            noise = sum(h._noise(content, place, r) for h in helpers)
            np.testing.assert_array_equal(total, plain + noise)


@pytest.mark.parametrize(("lane", "members", "share"), CASES)
@pytest.mark.timeout(3600)
def test_whoever_drops_out_the_sum_is_exact_or_there_is_none(tmp_path, lane, members, share):
    rounds = max(6, round(ROUNDS * share))
    ends, why = Counter(), Counter()
    table = None
    for index in range(rounds):
        if index % ROUNDS_A_RELEASE == 0:
            if table is not None:
                table.consortium.close()
            table = Table(tmp_path / str(index), lane, members)
        draw = Draw([index, members, list(LANES).index(lane)])
        end = table.round(index % ROUNDS_A_RELEASE + 1, draw)
        ends["summed" if end == "summed" else "abandoned"] += 1
        why[f"{draw.members:.0%} of members, {draw.helpers:.0%} of helpers lost: {end}"] += 1
    table.consortium.close()
    print(f"\n{lane}, {members} members: {dict(ends)}, none wrong")
    for reason, count in sorted(why.items()):
        print(f"  {count:5d}  {reason}")
    assert ends["summed"] + ends["abandoned"] == rounds
    if rounds >= 20:
        assert ends["summed"] > rounds / 20  # the comparison has been made


def test_the_comparison_finds_a_sum_that_is_off_by_one(tmp_path, monkeypatch):
    """The control."""
    table = Table(tmp_path, "mask", 10)

    class Nobody(Draw):
        def fate(self, role):
            return "sent"

    inner = Round.sum

    def off(self):
        sums = inner(self)
        sums[0][0] += 1
        return sums

    monkeypatch.setattr(Round, "sum", off)
    with pytest.raises(AssertionError):
        table.round(1, Nobody(1))
    table.consortium.close()
