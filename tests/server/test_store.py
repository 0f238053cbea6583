"""The coordinator's files after a crash, and after what no crash does."""

import pytest

from consortium.rehearsal import rehearse
from fedtrade.errors import Fault
from fedtrade.privacy.aggregation import Trajectory
from fedtrade.privacy.transcript import BaseFrame, read_frames
from fedtrade.protocol import decode
from server.store import TranscriptFile

ROUNDS = 4


@pytest.fixture
def release(tmp_path):
    """(path of a transcript of four rounds, a function that resumes from it)."""
    consortium = rehearse(tmp_path)
    for _ in range(ROUNDS):
        consortium.release.run_round(consortium.direct())
    consortium.close()
    path, terms = consortium.transcript_path, consortium.terms
    base = consortium.release.trajectory.base
    data = [body for _, body in read_frames(path.read_bytes())][1]

    def resume():
        artifact = decode(BaseFrame, data).artifact
        return TranscriptFile(path).resume(terms, artifact, Trajectory(terms, base))

    return path, resume


def frames(path):
    return list(read_frames(path.read_bytes()))[2:]


def test_a_torn_last_frame_is_dropped_and_its_round_is_done_again(release):
    path, resume = release
    assert resume() == ROUNDS
    at, body = frames(path)[-1]
    for left in (1, 3, 4, 5, len(body) // 2, len(body) + 3):
        path.write_bytes(path.read_bytes()[:at] + (len(body).to_bytes(4, "big") + body)[:left])
        assert resume() == ROUNDS - 1
        assert path.stat().st_size == at


@pytest.mark.parametrize("lost", [2, 3])
def test_more_than_the_last_round_is_never_dropped(release, lost):
    path, resume = release
    at, _ = frames(path)[ROUNDS - lost]
    data = bytearray(path.read_bytes())
    data[at] ^= 0x40  # a length beyond the end: what a torn frame looks like
    path.write_bytes(data)
    with pytest.raises(Fault, match="gone or damaged"):
        resume()
    assert path.read_bytes() == bytes(data)


@pytest.mark.parametrize("text", [b"", b"x", b"-1", b"1" * 5000])
def test_a_damaged_number_of_the_last_round_is_said(release, text):
    path, resume = release
    path.with_suffix(".ended").write_bytes(text)
    with pytest.raises(Fault, match="number of a round"):
        resume()


def test_damaged_stages_are_said(release):
    path, resume = release
    part = path.with_suffix(".part")
    data = part.read_bytes()
    at = data.index(b"\n") + 5
    part.write_bytes(data[:at] + b"\xc1" + data[at + 1 :])
    with pytest.raises(Fault, match="cannot be read"):
        resume()
    part.write_bytes(b"fedtrade round 1\n" + data[at:])
    with pytest.raises(Fault, match="another version"):
        resume()
