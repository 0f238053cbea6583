"""Every parser of bytes that somebody else wrote, fed with mutants: a FedtradeError or a value.

The mutants come from one seed, so a run is repeatable. `FEDTRADE_FUZZ` is the number of inputs over all
parsers (each takes its share). Nothing else than a FedtradeError may come out, and memory stays flat.
"""

import hashlib
import io
import os
import time
import zipfile
from pathlib import Path

import msgspec
import pytest
from adversary import Adversary, gather, key_record
from mutation import Mutator

from clients.settings import MemberSettings
from fedtrade import bundle
from fedtrade.artifact import load
from fedtrade.chain.rpc import Rpc
from fedtrade.channel import read_request
from fedtrade.errors import FedtradeError
from fedtrade.privacy.transcript import Closing, RoundRecord, verify
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
    KeyRecord,
    Manifest,
    Masked,
    Question,
    Ready,
    ReleaseTerms,
    Statement,
    Upload,
    decode,
    encode,
)
from fedtrade.settings import SETTINGS_MAX_BYTES
from server.settings import COORDINATOR_TEMPLATE, CoordinatorSettings

INPUTS = int(os.environ.get("FEDTRADE_FUZZ", "40000"))
RSS_GROWTH_MAX_BYTES = 64 * 2**20
PAGE = os.sysconf("SC_PAGE_SIZE")


def rss_bytes():
    return int(Path("/proc/self/statm").read_text().split()[1]) * PAGE


def fuzz(name, parse, mutate, share):
    """Feed a parser; gives how many inputs it refused. Any other exception ends the test."""
    count = max(200, round(INPUTS * share))
    refused, slowest_s, warm = 0, 0.0, None
    start = time.perf_counter()
    for index in range(count):
        data = mutate()
        begun = time.perf_counter()
        try:
            parse(data)
        except FedtradeError:
            refused += 1
        except BaseException as error:
            pytest.fail(f"{name}, input {index}: {type(error).__name__}: {error}; {data[:400]!r}")
        slowest_s = max(slowest_s, time.perf_counter() - begun)
        if index == count // 10:
            warm = rss_bytes()
    growth = rss_bytes() - (warm or 0)
    rate = count / (time.perf_counter() - start)
    print(
        f"{name}: {count} inputs, {refused} refused, {rate:.0f}/s, slowest {1e3 * slowest_s:.1f} ms, "
        f"memory {growth / 2**20:+.1f} MiB"
    )
    assert growth < RSS_GROWTH_MAX_BYTES
    assert refused > 0.5 * count
    return refused


@pytest.fixture(scope="module")
def spoken(tmp_path_factory):
    """Everything that is said in a round of each kind, and a transcript."""
    found = {}
    for lane in ("norm", "certificate", "buckets", "bfv"):
        a = Adversary(tmp_path_factory.mktemp(lane), lane)
        announcement = a.announcement()
        a.collect().make_ready()
        question = a.finalise(a.question())
        answer = decode(Answer, a.ask("answer", 1, question))
        upload = a.round.uploads[1]
        masked = Masked(statement=upload.statement, masked=upload.masked)
        found[lane] = [
            announcement, upload, upload.statement, masked, a.intakes[1], a.round.readies[1],
            a.manifest, question, answer, *question.approvals, *question.checks, *question.draws,
            a.terms,
            *([a.round.panel] if a.round.panel else []),
        ]  # fmt: skip
        if lane == "bfv":
            found["record"] = [key_record(a.terms)]
        a.close()
    consortium, _ = gather(tmp_path_factory.mktemp("whole"))
    consortium.release.run_round(consortium.direct())
    found["transcript"] = consortium.release.finish().transcript
    registries = {consortium.terms.chain_id: consortium.terms.registry}
    endorsement = Endorsement(transcript=b"t" * 200, version=1, uri="u", registries=registries)
    found["norm"].append(endorsement)
    base = consortium.release.trajectory.artifact(1)
    found["artifact"] = base
    found["briefing"] = Briefing(terms=consortium.terms, base=base)
    consortium.close()
    return found


KINDS = (
    Announcement, Upload, Statement, Masked, Intake, Ready, Inspection, Check, Manifest, Approval,
    Draw, Question, Answer, ReleaseTerms, Endorsement,
)  # fmt: skip


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
@pytest.mark.timeout(3600)
def test_messages(spoken, kind):
    good = [
        m
        for lane in ("norm", "certificate", "buckets", "bfv")
        for m in spoken[lane]
        if type(m) is kind
    ]
    assert good
    encoded = sorted((encode(m) for m in good), key=len)[:3]
    assert all(decode(kind, data) is not None for data in encoded)
    fuzz(kind.__name__, lambda data: decode(kind, data), Mutator(encoded, 11), 0.36 / len(KINDS))


@pytest.mark.timeout(3600)
def test_large_messages(spoken):
    """The record of a key ceremony, a briefing, a round of a transcript: slower, so fewer."""
    record = encode(spoken["record"][0])
    briefing = encode(spoken["briefing"])
    fuzz("KeyRecord", lambda data: decode(KeyRecord, data), Mutator([record], 12), 0.005)
    fuzz("Briefing", lambda data: decode(Briefing, data), Mutator([briefing], 13), 0.03)


@pytest.mark.timeout(3600)
def test_artifacts(spoken):
    """Each mutant comes with its own right hash: the hash is no protection from its publisher."""
    good = spoken["artifact"]

    def parse(data):
        return load(data, hashlib.sha256(data).hexdigest())

    parse(good)
    header = int.from_bytes(good[:8], "little") + 8
    mutate = Mutator([good[:header]], 14)
    fuzz("artifact", lambda head: parse(head + good[header:]), mutate, 0.15)


@pytest.mark.timeout(3600)
def test_transcripts(spoken):
    good = spoken["transcript"]
    assert verify(good).steps == 1
    fuzz("transcript", verify, Mutator([good], 15), 0.02)
    last = good.rindex(b"rounds_spent") - 30
    fuzz("closing", lambda tail: verify(good[:last] + tail), Mutator([good[last:]], 16), 0.005)
    kinds = (Closing, RoundRecord)
    fuzz(
        "frames",
        lambda data: [decode(kind, data) for kind in kinds],
        Mutator([good[last + 5 :]], 17),
        0.03,
    )


class Answering:
    """A connection that gives what a hostile node would answer."""

    sock = object()
    status = 200

    def __init__(self):
        self.body = b""

    def request(self, *_, **__):
        return None

    def getresponse(self):
        return self

    def read(self, *_):
        return self.body

    def close(self):
        return None


@pytest.mark.timeout(3600)
def test_json_of_a_node():
    good = [
        b'{"jsonrpc":"2.0","id":1,"result":"0x1b4"}',
        b'{"jsonrpc":"2.0","id":1,"result":{"number":"0x10","hash":"0xab"}}',
        b'{"jsonrpc":"2.0","id":1,"result":[{"topics":["0x1"],"data":"0x"}]}',
    ]
    connection = Answering()
    rpc = Rpc("http://127.0.0.1:1")
    rpc._connection = connection

    def parse(data):
        connection.body = data
        return rpc.call("eth_blockNumber")

    mutate = Mutator(good, 18)
    fuzz("node", parse, mutate, 0.12)


def settings_in(folder, kind):
    path = folder / "settings.toml"

    def parse(data):
        path.write_bytes(data[: SETTINGS_MAX_BYTES + 1])
        return kind.load(path)

    return parse


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
COORDINATOR_TOML = "\n".join(
    line.split("#")[0].rstrip() for line in COORDINATOR_TEMPLATE.splitlines()
)


@pytest.mark.parametrize(
    ("kind", "text"),
    [(MemberSettings, MEMBER_TOML), (CoordinatorSettings, COORDINATOR_TOML)],
    ids=["member", "coordinator"],
)
@pytest.mark.timeout(3600)
def test_settings(tmp_path, kind, text):
    parse = settings_in(tmp_path, kind)
    assert parse(text.encode())
    fuzz(kind.__name__, parse, Mutator([text.encode()], 19), 0.03)


@pytest.mark.timeout(3600)
def test_bundles():
    files = {
        **bundle.bundle_files("1.0"),
        bundle.LISTING: b"pyproject.toml,0,1\nLICENSE,0,1",
    }
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    fuzz(
        "bundle",
        lambda data: bundle.check_bundle(data, "1.0"),
        Mutator([packed.getvalue()], 20),
        0.12,
    )


def drafted(a):
    """The question that its responders showed their nonces for."""
    question = a.question()
    return question.model_copy(update={"manifest": a.round.drafted, "draws": ()})


@pytest.mark.timeout(3600)
@pytest.mark.parametrize("lane", ["mask", "norm", "certificate", "buckets", "bfv"])
def test_desks(tmp_path, lane):
    """What a desk is asked, by anybody: an answer or a refusal, whatever the bytes."""
    a = Adversary(tmp_path, lane)
    a.collect().make_ready()
    question = a.question()
    briefing = encode(Briefing(terms=a.terms, base=b"x"))
    asked = {
        "upload": [encode(a.announcement())],
        "ready": [encode(a.intakes[1])],
        "check": [encode(a.round.panel)] if a.round.panel else [b"x"],
        "draw": [encode(drafted(a))] if a.round.drafted else [b"x"],
        "endorse": [encode(Endorsement(transcript=b"t", version=1, uri="", registries={}))],
        "approve": [encode(question)],
        "answer": [encode(question)],
        "join": [briefing],
        "serve": [briefing],
        "deal": [encode(a.terms)],
        "reveal": [msgspec.msgpack.encode([b"a", b"b"])],
        "rehearse": [msgspec.msgpack.encode([b"a", b"b"])],
    }
    desk = a.desks[1]
    for action, bodies in asked.items():
        fuzz(
            f"{lane} {action}",
            lambda data, action=action: desk.act(action, data),
            Mutator(bodies, 22),
            0.002,
        )
    a.close()


@pytest.mark.timeout(3600)
def test_headers_of_the_channel():
    signed = {"Fedtrade-Seat": "member/1", "Fedtrade-Time-Ms": "1764000000000"}
    good = msgspec.json.encode(
        {**signed, "Fedtrade-Body-Sha256": "00" * 32, "Fedtrade-Signature": "11" * 65}
    )

    def parse(data):
        try:
            headers = msgspec.json.decode(data, type=dict[str, str])
        except (msgspec.MsgspecError, UnicodeDecodeError):
            headers = {"Fedtrade-Seat": data.decode("latin1"), **signed}
        read_request(headers, "0x" + "00" * 20, "POST /v1/next", {("member", 1): "0x" + "11" * 20})

    fuzz("headers", parse, Mutator([good], 21), 0.05)
