"""A release over both transports: drop-outs, helpers down, crashes, and one hash."""

import numpy as np
import pytest

from clients.keys import MemberKeys
from consortium.rehearsal import SMALL, Board, rehearse
from fedtrade.errors import Fault
from fedtrade.privacy.transcript import verify
from server.rounds import RoundAbandoned


def fixed_keys(folder, count):
    keys = []
    for i in range(count):
        home = folder / f"keys-{i}"
        keys.append(MemberKeys.load(home) if home.exists() else MemberKeys.create(home))
    return keys


def run(consortium, rounds, exchange=None):
    exchange = exchange or consortium.direct()
    reports = [consortium.release.run_round(exchange) for _ in range(rounds)]
    consortium.close()
    return reports


def test_both_transports_give_the_same_hash(tmp_path):
    keys = fixed_keys(tmp_path, 7)
    made = []
    for name in ("plain", "flower"):
        consortium = rehearse(tmp_path / name, keys=keys[:6], coordinator_keys=keys[6])
        if name == "plain":
            run(consortium, 3)
        else:
            consortium.over_flower(lambda exchange, c=consortium: run(c, 3, exchange) and None)
        made.append(consortium.release.finish())
    assert made[0].artifact_sha256 == made[1].artifact_sha256
    assert verify(made[0].transcript).artifact_sha256 == made[0].artifact_sha256


@pytest.mark.parametrize("when", ["before", "after"])
def test_members_that_drop_change_nothing_but_the_cohort(tmp_path, when):
    """Dropping after the upload costs nothing: the committee needs no word from a member."""
    gone = {6, 8}  # members only, no helpers
    consortium = rehearse(tmp_path, members=8)
    inner = consortium.direct(lambda action, seat: when == "before" and seat in gone)

    def exchange(action, bodies):
        replies = inner(action, bodies)
        if action == "upload":
            for seat in gone:  # whoever asked for one of them now would fail
                consortium.desks.pop(seat).close()
        return replies

    report = consortium.release.run_round(exchange)
    assert report.cohort == tuple(s for s in range(1, 9) if when == "after" or s not in gone)
    assert report.responders == (1, 2, 3, 4, 5)
    assert verify(consortium.release.finish().transcript).steps == 1
    consortium.close()


@pytest.mark.parametrize("down", [set(), {1}, {4, 5}])
def test_up_to_c_helpers_down_change_nothing(tmp_path, down):
    consortium = rehearse(tmp_path)
    lose = consortium.direct(lambda action, seat: action == "ready" and seat in down)
    report = run(consortium, 2, lose)[0]
    assert report.cohort == (1, 2, 3, 4, 5, 6)
    assert report.responders == tuple(s for s in range(1, 6) if s not in down)
    assert verify(consortium.release.finish().transcript).steps == 2


@pytest.mark.parametrize("phase", ["ready", "answer"])
def test_three_helpers_down_end_the_round_without_a_model_and_epsilon_is_spent(tmp_path, phase):
    consortium = rehearse(tmp_path)
    lose = consortium.direct(lambda action, seat: action == phase and seat in {1, 2, 3})
    before = consortium.release.trajectory.model
    with pytest.raises(RoundAbandoned) as caught:
        consortium.release.run_round(lose)
    assert "ε stays on every member's ledger" in caught.value.message
    assert consortium.release.trajectory.model == before
    assert consortium.release.spent == 1
    for member in consortium.members():
        assert [s.rounds for s in member.budget.spends] == [1]
    report = consortium.release.run_round(consortium.direct())  # the helpers are back
    assert report.number == 2
    finished = consortium.release.finish()
    proved = verify(finished.transcript)
    assert (proved.steps, proved.rounds_spent) == (1, 2)
    consortium.close()


def test_the_sum_is_the_plain_sum_plus_noise_of_the_accounted_size(tmp_path):
    """Without noise the masks cancel to the last unit; with it, only the noise is left over."""
    consortium = rehearse(tmp_path, positions_each=30)
    plain = np.zeros(consortium.terms.dimension)
    for member in consortium.members():
        honest = member._units

        def keep(vector, context, honest=honest):
            units = honest(vector, context)
            plain[:] += units
            return units

        member._units = keep
    release = consortium.release
    seen = []
    step = release.trajectory.step
    release.trajectory.step = lambda manifest, sums: (
        seen.append(sums[0] - plain),
        step(manifest, sums),
    )
    residues = []
    for _ in range(8):
        plain[:] = 0
        release.run_round(consortium.direct())
        residues.append(seen[-1].copy())
    consortium.close()
    noise = np.concatenate(residues)
    expected = (SMALL.noise_multiplier * 2**16) ** 2 * 5 / 3  # five responders, each sigma²/(5-2)
    assert noise.var() == pytest.approx(expected, rel=5 * np.sqrt(2 / len(noise)))


def test_a_coordinator_that_starts_again_ends_in_the_same_hash(tmp_path):
    keys = fixed_keys(tmp_path, 7)

    def assemble(folder):
        return rehearse(folder, keys=keys[:6], coordinator_keys=keys[6], notices=board)

    board = Board()
    consortium = assemble(tmp_path / "run")
    run(consortium, 2)
    again = assemble(tmp_path / "run")  # a new process: everything is read from disk
    assert again.release.trajectory.steps == 2
    assert again.release.trajectory.model == consortium.release.trajectory.model
    report = again.release.run_round(again.direct())
    assert report.number == 3
    finished = again.release.finish()
    assert verify(finished.transcript).steps == 3
    with pytest.raises(Fault, match="closed"):
        again.release.run_round(again.direct())
    again.close()


def test_a_frame_cut_short_by_a_crash_is_made_again_bit_for_bit(tmp_path):
    keys = fixed_keys(tmp_path, 7)
    board = Board()

    def assemble():
        return rehearse(tmp_path / "run", keys=keys[:6], coordinator_keys=keys[6], notices=board)

    consortium = assemble()
    run(consortium, 2)
    path = consortium.transcript_path
    whole = path.read_bytes()
    path.write_bytes(whole[:-100])
    again = assemble()
    assert again.release.trajectory.steps == 1
    assert again.release.spent == 1
    assert again.release.run_round(again.direct()).number == 2
    assert path.read_bytes() == whole
    for member in again.members():
        assert member.budget.rounds == 2
    again.close()


@pytest.mark.parametrize("stage", ["upload", "ready", "post", "answer", "append"])
def test_a_coordinator_killed_at_any_step_goes_on_to_the_same_hash(tmp_path, stage):
    """Whoever is asked again gives the same bytes, and what was kept is not asked for again."""
    keys = fixed_keys(tmp_path, 7)

    class Killed(Exception):
        pass

    def assemble(name, board):
        return rehearse(tmp_path / name, keys=keys[:6], coordinator_keys=keys[6], notices=board)

    whole = assemble("whole", Board())
    run(whole, 2)
    board = Board()
    broken = assemble("broken", board)
    inner = broken.direct()

    def exchange(action, bodies):
        replies = inner(action, bodies)
        if action == stage:
            raise Killed  # after everybody has answered, before a byte of it was kept
        return replies

    if stage == "post":
        post = broken.release._post

        def post_and_die(*args):
            post(*args)
            raise Killed

        broken.release._post = post_and_die
    if stage == "append":

        def die(record):
            raise Killed

        broken.release._store.append = die
    with pytest.raises(Killed):
        broken.release.run_round(exchange)
    broken.close()
    again = assemble("broken", board)
    run(again, 2)
    assert again.transcript_path.read_bytes() == whole.transcript_path.read_bytes()


def test_a_transcript_of_another_release_is_a_fault(tmp_path):
    first = rehearse(tmp_path)
    first.close()
    with pytest.raises(Fault, match="another release"):
        rehearse(tmp_path)
