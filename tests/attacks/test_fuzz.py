"""Every parser of bytes that another party or a node sends, fed with mutants: a value or a refusal.

The mutants come from seeds, so a run is repeatable; what is measured and what the environment may ask
for stands in `fuzzing.py`. Here: the messages of the protocol; what comes over sockets is in
`test_fuzz_wire.py`, what lies on a disk in `test_fuzz_files.py`.
"""

import hashlib
import json

import msgspec
import pytest
from adversary import COORDINATOR, LANES, Adversary, gather, key_record, person
from fuzzing import fuzz
from mutation import JSON, MSGPACK, Form, Mutator

from clients.dealer import Dealer
from fedtrade.artifact import load
from fedtrade.privacy import ceremony
from fedtrade.privacy.transcript import MAGIC, BaseFrame, Closing, RoundRecord, read_frames, verify
from fedtrade.protocol import (
    Announcement,
    Answer,
    Approval,
    Briefing,
    Check,
    Draw,
    Endorsement,
    Inspection,
    Intake,
    KeyCommit,
    KeyRecord,
    KeyRehearsal,
    KeyReveal,
    Malformed,
    Manifest,
    Masked,
    Question,
    Ready,
    ReleaseTerms,
    Statement,
    Upload,
    decode,
    encode,
    sign_message,
)
from server.rounds import Round

pytestmark = pytest.mark.timeout(7200)

SPOKEN = ("norm", "certificate", "buckets", "bfv")


@pytest.fixture(scope="module")
def spoken(tmp_path_factory):
    """Everything that is said in a round of each kind, and a transcript: kind -> messages."""
    found = {}

    def say(*messages):
        for message in messages:
            found.setdefault(type(message), []).append(message)

    for lane in SPOKEN:
        a = Adversary(tmp_path_factory.mktemp(lane), lane)
        say(a.announcement(), a.terms)
        a.collect().make_ready()
        question = a.finalise(a.question())
        upload = a.round.uploads[1]
        say(upload, upload.statement, Masked(statement=upload.statement, masked=upload.masked))
        say(a.intakes[1], a.round.readies[1], a.manifest, question)
        say(*question.approvals, *question.checks, *question.draws)
        say(decode(Answer, a.ask("answer", 1, question)))
        if a.round.panel:
            say(a.round.panel)
        if lane == "bfv":
            record = key_record(a.terms)
            say(record, record.commits[0], record.reveals[0], record.rehearsals[0])
        a.close()
    consortium, _ = gather(tmp_path_factory.mktemp("whole"))
    consortium.release.run_round(consortium.direct())
    transcript = consortium.release.finish().transcript
    registries = {consortium.terms.chain_id: consortium.terms.registry}
    base = consortium.release.trajectory.artifact(1)
    say(Endorsement(transcript=b"t" * 200, version=1, uri="u", registries=registries))
    say(Briefing(terms=consortium.terms, base=base), BaseFrame(artifact=base))
    frames = [body for _, body in read_frames(transcript)]
    say(decode(RoundRecord, frames[2]), decode(Closing, frames[-1]))
    consortium.close()
    found["transcript"], found["artifact"] = transcript, base
    return found


KINDS = (
    Manifest, Announcement, Upload, Statement, Masked, Intake, Ready, Inspection, Check, Approval,
    Draw, Question, Answer, ReleaseTerms, Endorsement, Closing, BaseFrame, RoundRecord, Briefing,
    KeyCommit, KeyReveal, KeyRehearsal, KeyRecord,
)  # fmt: skip
LARGE = {KeyReveal: 60, KeyRehearsal: 60, KeyRecord: 20}


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
def test_messages(spoken, kind):
    encoded = sorted((encode(m) for m in spoken[kind]), key=len)[:3]
    assert all(decode(kind, data) is not None for data in encoded)
    mutate = Mutator(encoded, 11, MSGPACK)
    fuzz(f"message {kind.__name__}", lambda data: decode(kind, data), mutate, LARGE.get(kind, 250))


def test_artifacts(spoken):
    """Each mutant comes with its own right hash: the hash is no protection from its publisher."""
    good = spoken["artifact"]

    def parse(data):
        return load(data, hashlib.sha256(data).hexdigest())

    parse(good)
    size = int.from_bytes(good[:8], "little")

    def read(head):
        tree = json.loads(head[8:])
        inner = json.loads(tree["__metadata__"]["fedtrade"])
        return {**tree, "__metadata__": {"fedtrade": inner}}

    def write(tree):
        """The header again, its length right and its inner manifest as text."""
        metadata = tree.get("__metadata__")
        if isinstance(metadata, dict):
            canonical = {k: json.dumps(v, sort_keys=True) for k, v in metadata.items()}
            tree = {**tree, "__metadata__": canonical}
        text = JSON.write(tree)
        text += b" " * (-len(text) % 8)
        return len(text).to_bytes(8, "little") + text

    (key,) = json.loads(good[8 : 8 + size])["__metadata__"]
    assert key == "fedtrade"
    mutate = Mutator([good[: 8 + size]], 14, Form(read, write))
    fuzz("artifact header", lambda head: parse(head + good[8 + size :]), mutate)
    fuzz("artifact", parse, Mutator([good], 15), 300)


# --- transcripts ----------------------------------------------------------------------------------


def split(data):
    return [msgspec.msgpack.decode(body) for _, body in read_frames(data)]


def join(trees):
    """Frames around trees, and in the last one the right hash of all before it: a forger's work."""
    trees, parts = (trees if isinstance(trees, list) else [trees]), [MAGIC]
    for tree in trees[:-1]:
        body = msgspec.msgpack.encode(tree)
        parts.append(len(body).to_bytes(4, "big") + body)
    before, last = b"".join(parts), trees[-1] if trees else None
    if isinstance(last, dict) and "before_sha256" in last:
        last = {**last, "before_sha256": hashlib.sha256(before).hexdigest()}
    body = msgspec.msgpack.encode(last)
    return before + len(body).to_bytes(4, "big") + body


def test_transcripts(spoken):
    good = spoken["transcript"]
    assert verify(good).steps == 1
    assert join(split(good)) == good
    mutate = Mutator([good], 15, Form(split, join, MSGPACK.values))
    fuzz("transcript verify", verify, mutate, 200)
    fuzz("transcript frames", lambda data: list(read_frames(data)), Mutator([good], 16))


# --- what a desk is asked, and what a coordinator is answered -------------------------------------


class Signed:
    """Mutants whose author has signed them again, where they still have the form of a message."""

    def __init__(self, mutate, kind, terms, sign, part=None):
        self.mutate, self.kind, self.terms, self.sign, self.part = mutate, kind, terms, sign, part

    def __call__(self):
        data = self.mutate()
        try:
            message = decode(self.kind, data)
        except Malformed:
            return data
        if self.part is None:
            return encode(sign_message(self.terms, message, self.sign))
        inner = sign_message(self.terms, getattr(message, self.part), self.sign)
        return encode(message.model_copy(update={self.part: inner}))


def drafted(a):
    """The question that its responders showed their nonces for."""
    question = a.question()
    return question.model_copy(update={"manifest": a.round.drafted, "draws": ()})


def asked_of(a, question):
    """action -> (a good body, its kind, the part of it that the coordinator signs)."""
    briefing = encode(Briefing(terms=a.terms, base=b"x"))
    endorsement = Endorsement(transcript=b"t", version=1, uri="", registries={})
    asked = {
        "upload": (encode(a.announcement()), Announcement, None),
        "ready": (encode(a.intakes[1]), Intake, None),
        "endorse": (encode(endorsement), None, None),
        "approve": (encode(question), Question, "manifest"),
        "answer": (encode(question), Question, "manifest"),
        "join": (briefing, None, None),
        "serve": (briefing, None, None),
        "deal": (encode(a.terms), None, None),
    }
    if a.round.panel:
        asked["check"] = (encode(a.round.panel), Inspection, None)
    if a.round.drafted:
        asked["draw"] = (encode(drafted(a)), Question, "manifest")
    return asked


@pytest.mark.parametrize("lane", ["mask", *SPOKEN])
def test_desks(tmp_path, lane):
    """What a desk is asked: an answer or a refusal, whatever the bytes and whoever signed them."""
    a = Adversary(tmp_path, lane)
    a.collect().make_ready()
    desk = a.desks[1]
    for action, (body, kind, part) in asked_of(a, a.question()).items():
        mutate = Mutator([body], 22, MSGPACK)
        if kind is not None:
            mutate = Signed(mutate, kind, a.terms, COORDINATOR.sign_digest, part)
        few = 15 if lane == "bfv" else 30
        fuzz(f"desk {lane} {action}", lambda data, act=action: desk.act(act, data), mutate, few)
    a.close()


@pytest.mark.parametrize("lane", ["mask", *SPOKEN])
def test_rounds(tmp_path, lane):
    """What the coordinator is answered, signed by a seat that says what it likes."""
    a = Adversary(tmp_path, lane)
    fresh = Round(a.terms, 1, a.trajectory.model)
    a.collect().make_ready()
    question = a.finalise(a.question())
    a.round.manifest = question.manifest
    answer = a.ask("answer", 1, question)
    upload = encode(a.round.uploads[1])
    fresh.upload(upload)
    replied = {
        "upload": (fresh.upload, upload, Upload, "statement"),
        "ready": (a.round.ready, encode(a.round.readies[1]), Ready, None),
        "answer": (a.round.answer, answer, Answer, None),
    }
    if a.round.checks:
        replied["check"] = (a.round.check, encode(a.round.checks[1]), Check, None)
    if a.round.draws:
        replied["draw"] = (a.round.draw, encode(a.round.draws[1]), Draw, None)
    if question.approvals:
        replied["approve"] = (a.round.approve, encode(question.approvals[0]), Approval, None)
    for action, (take, body, kind, part) in replied.items():
        mutate = Mutator([body], 25, MSGPACK)
        signed = Signed(mutate, kind, a.terms, person(0).sign_digest, part)
        fuzz(f"round {lane} {action}", take, signed, 30)
    a.close()


def test_ceremonies(tmp_path):
    """A dealer is shown what others are said to have dealt; whoever joins checks the record."""
    consortium, _ = gather(tmp_path, LANES["bfv"])
    terms, record = consortium.terms, key_record(consortium.terms)
    dealer = Dealer(terms, 1, person(0))
    commits = [encode(m) for m in record.commits]
    both = [*commits, *(encode(m) for m in record.reveals)]
    fuzz(
        "dealer reveal", dealer.reveal, Mutator([msgspec.msgpack.encode(commits)], 23, MSGPACK), 40
    )
    fuzz(
        "dealer rehearse", dealer.rehearse, Mutator([msgspec.msgpack.encode(both)], 24, MSGPACK), 40
    )
    fuzz(
        "ceremony record",
        lambda data: ceremony.check_record(terms, decode(KeyRecord, data)),
        Mutator([encode(record)], 26, MSGPACK),
        20,
    )
    consortium.close()


# --- the controls: what the same inputs do to a parser that has not been hardened -----------------


def naive_upload(data):
    """A message as one reads it who expects it to be good."""
    message = msgspec.msgpack.decode(data)
    return len(message["masked"]) // 4, message["statement"]["member"] + 1


def naive_frames(data):
    """Length-prefixed frames, the length believed."""
    at, frames = len(MAGIC), []
    while at < len(data):
        length = int.from_bytes(data[at : at + 4], "big")
        frames.append(msgspec.msgpack.decode(data[at + 4 : at + 4 + length]))
        at += 4 + length
    return frames


def test_a_naive_parser_falls_over_the_same_inputs(spoken):
    encoded = [encode(m) for m in spoken[Upload]]
    for parse, seeds in ((naive_upload, encoded), (naive_frames, [spoken["transcript"]])):
        parse(seeds[0])
        with pytest.raises(pytest.fail.Exception, match="input"):
            fuzz("naive", parse, Mutator(seeds, 11, MSGPACK if seeds is encoded else None))


def test_a_slow_parser_and_one_that_keeps_what_it_gets_are_found():
    kept = []

    def slow(data):
        sum(range(8_000_000 if data.startswith(b"\x81") else 1))

    with pytest.raises(AssertionError, match="s for"):
        fuzz("slow", slow, Mutator([b"\x81abc"], 1), 20)
    with pytest.raises(AssertionError, match="memory grows"):
        fuzz("leaky", lambda data: kept.append(bytes(2**17)), Mutator([b"abc"], 1), 600)
    with pytest.raises(AssertionError, match="nothing was refused"):
        fuzz("takes all", len, Mutator([b"abc"], 1), 600)
