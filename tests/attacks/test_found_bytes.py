"""Bytes that a parser of an earlier version did not stand: messages, files, a chain node's replies."""

import asyncio
import base64
import hashlib
import io
import json
import ssl
import subprocess
import sys
import zipfile
from datetime import UTC, datetime
from types import SimpleNamespace

import aiohttp
import msgspec
import pytest

from clients.homechain import final_manifests
from clients.ledger import Ledger, LedgerDamaged
from clients.node import Node, NodeLost
from clients.settings import MemberSettings
from consortium.rehearsal import small_base
from fedtrade import bundle
from fedtrade.artifact import ArtifactInvalid, load
from fedtrade.chain.rpc import NodeLost as HttpNodeLost
from fedtrade.chain.rpc import NodeRefused, Rpc
from fedtrade.errors import BadInput, FedtradeError
from fedtrade.journal import JournalAltered, Reader
from fedtrade.privacy.transcript import Closing, Unverified
from fedtrade.protocol import (
    Endorsement,
    Malformed,
    Upload,
    decode,
)
from fedtrade.venues import uniswap_v3
from fedtrade.venues.codec import AnswerUnreadable, LogUnreadable, quantity
from fedtrade.venues.uniswap_v3 import SWAP
from server.certificates import create_authority, issue
from server.gate import read_node_keys
from server.settings import CoordinatorSettings

# --- bytes that are no message --------------------------------------------------------------------

BAD_MSGPACK = {
    "a map as a key": b"\x81\x80\x00",
    "a list as a key": b"\x81\x90\x00",
    "a deep nest": b"\x91" * 900,
    "an extension": b"\xc7\x0c\xff" + b"\xff" * 12,
    "a timestamp": b"\xd7\xff" + b"\xff" * 8,
    "bad UTF-8": b"\x81\xa1\xff\x01",
}


@pytest.mark.parametrize("what", BAD_MSGPACK)
@pytest.mark.parametrize("kind", [Upload, Endorsement])
def test_bytes_that_msgpack_itself_stumbles_over_are_malformed(what, kind):
    with pytest.raises(Malformed):
        decode(kind, BAD_MSGPACK[what])


DEEP = """
import server.keys
from fedtrade.protocol import Malformed, Upload, decode
try:
    decode(Upload, b"\\x91" * 100_000)
except Malformed:
    raise SystemExit(7)
"""


def test_a_deep_nest_is_malformed_in_the_coordinators_process():
    """In a process of its own: 100 kB of any member's reply must not end it."""
    ended = subprocess.run([sys.executable, "-c", DEEP], timeout=60, check=False)
    assert ended.returncode == 7


def test_a_number_written_as_text_is_malformed():
    fields = {"rounds_spent": "1" * 40, "epsilon_micro": 1}
    hashes = {"artifact_sha256": "0" * 64, "before_sha256": "0" * 64}
    with pytest.raises(Malformed):
        decode(Closing, msgspec.msgpack.encode({**fields, **hashes}))


def plain(transcript=b"t", version=1, uri="u", registries=None):
    fields = {"transcript": transcript, "version": version, "uri": uri}
    return msgspec.msgpack.encode({**fields, "registries": registries or {}})


NO_ENDORSEMENTS = {
    "nothing": b"",
    "no msgpack": b"\xff",
    "a tuple": msgspec.msgpack.encode((b"", 1, "", {})),
    "a version below 0": plain(version=-1),
    "no address": plain(registries={1: "zz"}),
    "no hex": plain(registries={1: "0xzz"}),
    "an address too long": plain(registries={1: "0x" + "00" * 99}),
    "a chain below 0": plain(registries={-1: "0x" + "00" * 20}),
    "a chain of 2^63": plain(registries={2**63: "0x" + "00" * 20}),
    "a long uri": plain(uri="u" * 1025),
    "many registries": plain(registries={i: "0x" + "00" * 20 for i in range(65)}),
}


def refusal_of(act):
    try:
        act()
    except FedtradeError as refused:
        return type(refused)
    return None


def test_nonsense_to_endorse_is_malformed_and_another_release_unverified(attack):
    desk = attack("mask").desks[1]
    for what, body in NO_ENDORSEMENTS.items():
        assert refusal_of(lambda body=body: desk.act("endorse", body)) is Malformed, what
    with pytest.raises(Unverified):
        desk.act("endorse", plain())


# --- files ----------------------------------------------------------------------------------------

DTYPES = ["F8_E4M3", "F8_E5M2", "BF16", "U4", "F4", "F6_E2M3", "BOOL", "C64", "F8_E8M0", "I16"]


def artifact_of(header, body):
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text + body


@pytest.mark.parametrize("dtype", DTYPES)
def test_number_types_that_are_not_ours_are_refused_by_name(dtype):
    base = small_base()
    size = int.from_bytes(base[:8], "little")
    header = json.loads(base[8 : 8 + size])
    header["head.bias"]["dtype"] = dtype
    found = [artifact_of(header, base[8 + size :])]
    for dims in ([4], [8], [2], [16], [1]):  # whole in itself, of a size that may fit
        array = {"dtype": dtype, "shape": dims, "data_offsets": [0, 8]}
        alone = {"__metadata__": header["__metadata__"], "head.bias": array}
        found.append(artifact_of(alone, bytes(8)))
    for data in found:
        with pytest.raises(ArtifactInvalid):
            load(data, hashlib.sha256(data).hexdigest())


BAD_TOML = {
    "a deep list": "a=" + "[" * 20_000,
    "a number of 5000 digits": "a=" + "9" * 5000,
    "a path with a zero": 'folder = "\\u0000"',
    "no such month": "a=1979-13-01",
    "a deep key": "a." * 60_000 + "b=1",
    "deep tables": "[" * 5000,
}


@pytest.mark.parametrize("what", BAD_TOML)
@pytest.mark.parametrize("kind", [MemberSettings, CoordinatorSettings])
def test_settings_that_the_parser_stumbles_over_are_refused_by_name(tmp_path, kind, what):
    path = tmp_path / "settings.toml"
    path.write_text(BAD_TOML[what])
    with pytest.raises(FedtradeError):
        kind.load(path)


def packed(project, method=zipfile.ZIP_DEFLATED):
    out = io.BytesIO()
    files = {"LICENSE": bundle.LICENSE, "pyproject.toml": project, bundle.LISTING: b""}
    with zipfile.ZipFile(out, "w", method) as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return out.getvalue()


def test_a_bundle_with_a_number_of_5000_digits_is_foreign():
    with pytest.raises(bundle.ForeignBundle):
        bundle.check_bundle(packed(b"a=" + b"9" * 5000), "1")


@pytest.mark.parametrize("method", [zipfile.ZIP_LZMA, zipfile.ZIP_BZIP2])
def test_a_damaged_bundle_is_foreign_however_it_is_packed(method):
    good = packed(b"a=1", method)
    for at in range(30, min(400, len(good)), 3):
        bad = bytearray(good)
        bad[at] ^= 0x55
        with pytest.raises(bundle.ForeignBundle):
            bundle.check_bundle(bytes(bad), "1")


NO_RECORDS = {
    "a list as a kind": b'{"body":{},"hash":"","kind":[],"prev":"","seq":0}',
    "a body that is a number": b'{"body":7,"hash":"","kind":"note","prev":"","seq":0}',
    "NaN in the body": b'{"body":{"x":NaN},"hash":"","kind":"note","prev":"%s","seq":0}'
    % (b"0" * 64),
}


@pytest.mark.parametrize("what", NO_RECORDS)
def test_a_line_that_is_no_record_is_named(tmp_path, what):
    path = tmp_path / "journal.jsonl"
    path.write_bytes(NO_RECORDS[what] + b"\n")
    with pytest.raises(JournalAltered, match="record 0"):
        list(Reader(path))


@pytest.mark.parametrize("head", [b"[" * 5000, b"[1]", b"\xff", b"[true, 1]", b"9" * 5000])
def test_a_head_of_a_ledger_that_cannot_be_read_is_damage(tmp_path, head):
    path = tmp_path / "ledger.jsonl"
    with Ledger(path) as ledger:
        ledger.append({"round": 1})
    path.with_name("ledger.jsonl.head").write_bytes(head)
    with pytest.raises(LedgerDamaged, match="cannot be read"):
        Ledger(path)


def test_a_node_key_as_a_packed_point_is_refused_by_name(tmp_path):
    """OpenSSH's encoding of one: the library that reads it raises NotImplementedError."""
    parts = (b"ecdsa-sha2-nistp384", b"nistp384", b"\x02" + bytes(48))
    body = b"".join(len(part).to_bytes(4, "big") + part for part in parts)
    path = tmp_path / "node.pub"
    path.write_bytes(parts[0] + b" " + base64.b64encode(body))
    with pytest.raises(BadInput, match="no public key"):
        read_node_keys([path])


def test_an_authority_whose_key_is_no_point_is_damaged(tmp_path):
    now = datetime(2025, 6, 1, tzinfo=UTC)
    create_authority(tmp_path, "consortium", now)
    path = tmp_path / "ca.crt"
    der = bytearray(ssl.PEM_cert_to_DER_cert(path.read_text()))
    at = der.index(b"\x03\x42\x00\x04")  # the bit string of the key: an uncompressed point
    der[at + 4 : at + 36] = bytes(32)
    path.write_text(ssl.DER_cert_to_PEM_cert(bytes(der)))
    with pytest.raises(BadInput, match="damaged"):
        issue(tmp_path, ["localhost"], now)


# --- a chain's node -------------------------------------------------------------------------------

REPLIES = [
    b'{"error":"x"}', b'{"error":{"code":"abc"}}', b'{"error":{"code":null}}', b'{"error":[]}',
    b'{"error":{"code":1e999}}', b'{"error":{"code":[]}}', b'{"error":1}', b"[]", b"null", b"1",
    b"[" * 5000, b'{"jsonrpc":"2.0","\xf3\xf1":1,"result":"0x1b4"}',
]  # fmt: skip


@pytest.mark.parametrize("reply", REPLIES, ids=range(len(REPLIES)))
def test_whatever_a_node_replies_is_a_refusal_by_name(reply):
    rpc = Rpc("http://127.0.0.1:1")
    rpc._connection = SimpleNamespace(
        sock=object(),
        request=lambda *_, **__: None,
        getresponse=lambda: SimpleNamespace(status=200, read=lambda most: reply),
        close=lambda: None,
    )
    for ask in (
        lambda: rpc.call("eth_x"),
        lambda: rpc.batch([("eth_x", [])]),
        lambda: rpc.eth_call("0x", b""),
    ):
        with pytest.raises((NodeRefused, HttpNodeLost)):
            ask()


NO_LOGS = [
    "x", None, [], {}, {"topics": [SWAP.topic]},
    {"topics": [SWAP.topic, 1, 2], "data": "0x"},
    {"topics": [SWAP.topic, "0x" + "00" * 32, "0x" + "00" * 32], "data": None},
]  # fmt: skip


@pytest.mark.parametrize("log", NO_LOGS, ids=range(len(NO_LOGS)))
def test_a_log_that_is_none_is_unreadable(log):
    with pytest.raises((AnswerUnreadable, LogUnreadable)):
        assert uniswap_v3.decode(log) is not None


@pytest.mark.parametrize("answer", [None, [], {}, "", "zz", "-0x1", -1, 1.5])
def test_what_is_no_quantity_is_unreadable(answer):
    with pytest.raises(AnswerUnreadable):
        quantity(answer)


@pytest.mark.parametrize("answer", [b"", b"\x00", b"\xff" * 31])
def test_a_view_that_returns_something_else_is_unreadable(answer):
    with pytest.raises(AnswerUnreadable, match="liquidity"):
        uniswap_v3.LIQUIDITY.decode(answer)


FRAMES = [
    b'{"\xff":1}', b'{"id":[]}', b'{"id":{}}', b"[" * 3000,
    b'{"method":"eth_subscription","params":[1]}',
]  # fmt: skip


class Frames:
    """A socket that gives some frames and closes."""

    def __init__(self, *frames):
        self.frames = list(frames)

    def __aiter__(self):
        return self

    async def __anext__(self):
        if not self.frames:
            raise StopAsyncIteration
        return SimpleNamespace(type=aiohttp.WSMsgType.BINARY, data=self.frames.pop(0))


@pytest.mark.parametrize("frame", FRAMES, ids=range(len(FRAMES)))
def test_the_agents_reader_never_dies_unseen(frame):
    async def main():
        node = Node("ws://127.0.0.1:1")
        waits = asyncio.get_running_loop().create_future()
        node._waiting[1] = waits
        await node._read(Frames(frame))
        assert isinstance(waits.exception(), NodeLost)
        with pytest.raises(NodeLost):
            await node.next_head(1.0)

    asyncio.run(main())


ERRORS = ["x", [], 1, {"code": "abc"}, {"code": None}, {"code": []}]


@pytest.mark.parametrize("error", ERRORS, ids=range(len(ERRORS)))
def test_an_error_in_a_bad_form_is_a_refusal_by_name(error):
    async def main():
        node = Node("ws://127.0.0.1:1")

        async def send_bytes(request, compress):
            number = msgspec.json.decode(request)["id"]
            node._route({"id": number, "error": error})

        node._socket = SimpleNamespace(send_bytes=send_bytes)
        with pytest.raises(FedtradeError):
            await node.call("eth_blockNumber")

    asyncio.run(main())


def test_manifests_are_read_at_a_finalised_block():
    """One that can still be reorganised away could show two helpers two manifests of a round."""
    asked = []

    def batch(calls):
        asked.extend(calls)
        return ["0x" + "ab" * 32]

    final = final_manifests(SimpleNamespace(batch=batch), "0x" + "00" * 20)
    assert final(1, 1) == b"\xab" * 32
    assert [call[1][-1] for call in asked] == ["finalized"]
