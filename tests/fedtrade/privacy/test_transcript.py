"""A transcript proves its model or names what is wrong with it."""

import subprocess
import sys

import pytest

from clients.keys import MemberKeys
from consortium.rehearsal import rehearse
from fedtrade.errors import BadInput
from fedtrade.privacy import transcript as module
from fedtrade.privacy.transcript import (
    MAGIC,
    Closing,
    RoundRecord,
    Unverified,
    closing,
    frame,
    read_frames,
    verify,
    verify_file,
)
from fedtrade.protocol import decode


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    consortium = rehearse(tmp_path_factory.mktemp("release"))
    for _ in range(2):
        consortium.release.run_round(consortium.direct())
    consortium.close()
    return consortium.release.finish()


def rebuilt(transcript, change):
    """The transcript with one round's record changed and an honest closing frame over it."""
    frames = [body for _, body in read_frames(transcript)]
    data = MAGIC
    for index, body in enumerate(frames[:-1]):
        if index == 2:
            data += frame(change(decode(RoundRecord, body)))
        else:
            data += len(body).to_bytes(4, "big") + body
    end = decode(Closing, frames[-1])
    return data + frame(closing(data, end.rounds_spent, end.epsilon_micro, end.artifact_sha256))


def test_it_recomputes_the_published_hash(finished):
    proved = verify(finished.transcript, finished.artifact_sha256)
    assert proved.artifact == finished.artifact
    assert proved.epsilon_micro == finished.epsilon_micro


def test_another_process_recomputes_it_too(finished, tmp_path):
    path = tmp_path / "transcript.bin"
    path.write_bytes(finished.transcript)
    code = (
        "import sys, pathlib; from fedtrade.privacy.transcript import verify_file; "
        "print(verify_file(pathlib.Path(sys.argv[1])).artifact_sha256); "
        "assert 'torch' not in sys.modules and 'flwr' not in sys.modules"
    )
    run = subprocess.run(
        [sys.executable, "-c", code, str(path)], capture_output=True, text=True, check=True
    )
    assert run.stdout.strip() == finished.artifact_sha256


def test_every_altered_byte_is_found(finished):
    data = finished.transcript
    step = max(1, len(data) // 400)
    for at in [*range(0, len(data), step), *range(len(data) - 80, len(data))]:
        altered = data[:at] + bytes([data[at] ^ 0x10]) + data[at + 1 :]
        with pytest.raises(Unverified):
            verify(altered, finished.artifact_sha256)


@pytest.mark.parametrize("cut", [1, 10, 1000])
def test_a_cut_file_is_found(finished, cut):
    with pytest.raises(Unverified):
        verify(finished.transcript[:-cut])


def test_a_missing_upload_is_named(finished):
    def change(record):
        return record.model_copy(update={"uploads": record.uploads[1:]})

    with pytest.raises(Unverified, match=r"round 1: .*upload of member 1 is missing"):
        verify(rebuilt(finished.transcript, change))


def test_an_altered_upload_is_named(finished):
    def change(record):
        first = record.uploads[0]
        masked = bytes([first.masked[0] ^ 1]) + first.masked[1:]
        uploads = (first.model_copy(update={"masked": masked}), *record.uploads[1:])
        return record.model_copy(update={"uploads": uploads})

    with pytest.raises(Unverified, match=r"round 1, upload of member 1: .*masked vector"):
        verify(rebuilt(finished.transcript, change))


def test_a_wrong_share_is_named(finished):
    def change(record):
        second = record.answers[1]
        share = bytes([second.share[0] ^ 1]) + second.share[1:]
        answers = list(record.answers)
        answers[1] = second.model_copy(update={"share": share})
        return record.model_copy(update={"answers": tuple(answers)})

    with pytest.raises(Unverified, match=r"round 1, share of helper 2: .*signed by"):
        verify(rebuilt(finished.transcript, change))


def test_a_missing_share_is_named(finished):
    def change(record):
        return record.model_copy(update={"answers": record.answers[:-1]})

    with pytest.raises(Unverified, match="share of helper 5 is missing"):
        verify(rebuilt(finished.transcript, change))


def test_a_manifest_that_the_coordinator_did_not_sign_is_found(finished):
    def change(record):
        signature = MemberKeys.ephemeral().sign_digest(b"d" * 32)
        manifest = record.question.manifest.model_copy(update={"signature": signature})
        question = record.question.model_copy(update={"manifest": manifest})
        return record.model_copy(update={"question": question})

    with pytest.raises(Unverified, match=r"round 1: .*Manifest: signed by"):
        verify(rebuilt(finished.transcript, change))


def test_bytes_that_were_touched_are_found_by_the_closing_hash(finished):
    """The round begun and abandoned at the end is only counted; the hash over the file is whole."""
    frames = list(read_frames(finished.transcript))
    end = decode(Closing, frames[-1][1])
    lie = end.model_copy(update={"before_sha256": "0" * 64})
    with pytest.raises(Unverified, match="closing frame: the bytes before it"):
        verify(finished.transcript[: frames[-1][0]] + frame(lie))


def test_readiness_that_the_manifest_does_not_name_is_found(finished):
    def change(record):
        readies = record.question.readies[:-1]
        question = record.question.model_copy(update={"readies": readies})
        return record.model_copy(update={"question": question})

    with pytest.raises(Unverified, match="readiness does not match"):
        verify(rebuilt(finished.transcript, change))


def test_a_missing_round_is_found(finished):
    frames = [body for _, body in read_frames(finished.transcript)]
    data = MAGIC + b"".join(
        len(b).to_bytes(4, "big") + b for i, b in enumerate(frames[:-1]) if i != 2
    )
    end = decode(Closing, frames[-1])
    data += frame(closing(data, end.rounds_spent, end.epsilon_micro, end.artifact_sha256))
    with pytest.raises(Unverified, match=r"round 2: .*model"):
        verify(data)


def test_an_epsilon_that_was_made_smaller_is_found(finished):
    frames = list(read_frames(finished.transcript))
    data = finished.transcript[: frames[-1][0]]
    end = decode(Closing, frames[-1][1])
    data += frame(closing(data, end.rounds_spent, end.epsilon_micro // 2, end.artifact_sha256))
    with pytest.raises(Unverified, match="ε"):
        verify(data)


def test_another_hash_on_the_registry_is_found(finished):
    with pytest.raises(Unverified, match="registry"):
        verify(finished.transcript, "0" * 64)


def test_what_is_no_transcript_is_said_in_one_sentence(tmp_path):
    with pytest.raises(BadInput, match="cannot be read"):
        verify_file(tmp_path / "nothing")
    (tmp_path / "x").write_bytes(b"hello")
    with pytest.raises(Unverified, match="not a fedtrade transcript"):
        verify_file(tmp_path / "x")


def test_a_transcript_holds_no_seed_and_no_box():
    kept = {
        *module.Masked.model_fields,
        *RoundRecord.model_fields,
        *module.Question.model_fields,
    }
    rounds = {"statement", "masked", "uploads", "question", "answers"}
    assert kept == rounds | {"manifest", "readies", "draws", "checks", "approvals"}
