"""What comes over sockets, fed with mutants: a chain's node, the round channel, the gate, bundles."""

import asyncio
import io
import itertools
import zipfile
from base64 import b64encode
from datetime import UTC, datetime
from types import SimpleNamespace

import aiohttp
import msgspec
import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from eth_abi.abi import encode as abi_encode
from fuzzing import fuzz
from mutation import JSON, MSGPACK, Mutator

from clients.channel import _Given, _Loop
from clients.ingest import Ingest, head_of
from clients.keys import MemberKeys
from clients.node import Node
from fedtrade import bundle
from fedtrade.chain import contracts
from fedtrade.chain.contracts import Membership, ModelRegistry, explain, known_errors
from fedtrade.chain.deployment import ChainDeployment
from fedtrade.chain.parameter_store import PARAMETERS
from fedtrade.chain.pools import holdings, oracle_answer
from fedtrade.chain.rpc import NodeRefused, Rpc
from fedtrade.channel import ClockSkew, Request, check_fresh, error_name, read_request
from fedtrade.errors import FedtradeError
from fedtrade.governed import Governed
from fedtrade.market.events import Head
from fedtrade.privacy import transcript
from fedtrade.venues import price_feed, uniswap_v3
from fedtrade.venues.codec import Function
from fedtrade.venues.model_registry import MODEL_PUBLISHED, MODEL_REVOKED
from server.admission import Refused, check_node
from server.app import _seats

pytestmark = pytest.mark.timeout(7200)

ADDRESS = "0x" + "0a" * 20


# --- a node over HTTP -----------------------------------------------------------------------------


class Answering:
    """A connection that gives what a hostile node would answer."""

    sock = object()
    status = 200
    body = b""

    def request(self, *_, **__):
        return None

    def getresponse(self):
        return self

    def read(self, *_):
        return self.body

    def close(self):
        return None


REPLIES = [
    b'{"jsonrpc":"2.0","id":1,"result":"0x1b4"}',
    b'{"jsonrpc":"2.0","id":1,"result":{"number":"0x10","hash":"0xab"}}',
    b'{"jsonrpc":"2.0","id":1,"result":[{"topics":["0x1"],"data":"0x"}]}',
    b'{"jsonrpc":"2.0","id":1,"error":{"code":3,"message":"reverted","data":"0x08c379a0"}}',
]


@pytest.fixture
def answering():
    connection, rpc = Answering(), Rpc("http://127.0.0.1:1")
    rpc._connection = connection

    def answered(ask):
        def parse(data):
            connection.body = data
            rpc._ids = itertools.count(1)
            return ask(rpc)

        return parse

    return answered


def test_replies_of_a_node(answering):
    call = answering(lambda rpc: rpc.call("eth_blockNumber"))
    fuzz("node call", call, Mutator(REPLIES, 18, JSON))
    batch = answering(lambda rpc: rpc.batch([("eth_x", []), ("eth_y", [])]))
    lists = [b"[%s,%s]" % (one, one.replace(b'"id":1', b'"id":2')) for one in REPLIES[:3]]
    fuzz("node batch", batch, Mutator(lists, 19, JSON))


FUNCTIONS = [
    *(f for f in vars(uniswap_v3).values() if isinstance(f, Function)),
    *(f for f in vars(contracts).values() if isinstance(f, Function)),
    price_feed.LATEST_ROUND,
]


def zero(kind):
    """A value of an ABI type."""
    if kind.endswith("[]"):
        return [zero(kind[:-2])]
    if kind.startswith("("):
        return tuple(map(zero, Function("f()", kind)._outputs))
    return {"addr": ADDRESS, "bool": False, "stri": "uri", "byte": bytes(32)}.get(kind[:4], 1)


def test_what_views_return():
    """The bytes that a contract (or a node in its place) gives for every view that we read."""
    views = [f for f in FUNCTIONS if f._outputs]
    assert len(views) > 20
    good = [abi_encode(f._outputs, [zero(kind) for kind in f._outputs]) for f in views]
    turns = itertools.cycle(views)
    fuzz("views", lambda data: next(turns).decode(data), Mutator(good, 20))


CONVERSATIONS = {
    "oracle": lambda: oracle_answer(ADDRESS, 8, 1),
    "seats": lambda: Membership(ADDRESS).seats([1, 2]),
    "release": lambda: ModelRegistry(ADDRESS).release(1),
    "model": lambda: ModelRegistry(ADDRESS).model(1),
    "live": lambda: ModelRegistry(ADDRESS).live(),
    "manifest": lambda: ModelRegistry(ADDRESS).manifest_of(1, 1),
    "manifests": lambda: ModelRegistry(ADDRESS).have_manifests(1, (1, 2)),
    "holdings": lambda: holdings(chain().pool_key(), ADDRESS, ADDRESS, 1),
}


def good_answer(call):
    """What a node answers to a call: zeros of the right form."""
    method, params = call
    if method != "eth_call":
        return "0x1"
    data = bytes.fromhex(params[0]["data"][2:])
    (view,) = {f.signature: f for f in FUNCTIONS if f.selector == data[:4]}.values()
    return "0x" + abi_encode(view._outputs, [zero(kind) for kind in view._outputs]).hex()


def hold(conversation, alter=None):
    """Run a conversation with good answers, the last step's altered by `alter`."""
    try:
        calls = next(conversation)
        while True:
            answers = [good_answer(call) for call in calls]
            calls = conversation.send(answers if alter is None else alter(answers))
    except StopIteration as end:
        return end.value


def test_conversations():
    """Whole readings of the chain, in which a node answers one call with what it likes."""
    whole = {name: b"" for name in CONVERSATIONS}
    for name, begin in CONVERSATIONS.items():
        hold(begin())  # good answers are read
        whole[name] = msgspec.json.encode(good_answer(next(begin())[0]))
    turns = itertools.cycle(CONVERSATIONS.values())

    def parse(data):
        try:
            value = msgspec.json.decode(data)
        except (msgspec.MsgspecError, ValueError):
            value = data.decode("latin1")
        hold(next(turns)(), lambda answers: [value, *answers[1:]])

    fuzz("conversations", parse, Mutator(list(whole.values()), 21, JSON), 500)


def test_reverts():
    good = [selector + bytes(96) for selector in list(known_errors())[:20]]

    def parse(data):
        raise explain(NodeRefused("eth_call", 3, "reverted", "0x" + data.hex()))

    fuzz("reverts", parse, Mutator(good, 22))
    fuzz(
        "reverts as text",
        lambda data: explain(NodeRefused("eth_call", 3, "", data.decode("latin1"))),
        Mutator([b"0x" + data.hex().encode() for data in good], 23),
    )


# --- a node over its websocket --------------------------------------------------------------------


def chain():
    token = {"symbol": "T", "decimals": 18}
    return ChainDeployment(
        name="aster", chain_id=1, rpc_url="http://x", ws_url="ws://x",
        registry="0x" + "02" * 20, parameters="0x" + "01" * 20, price_feed="0x" + "03" * 20,
        feed_decimals=8, base={**token, "address": "0x" + "04" * 20},
        quote={**token, "address": "0x" + "05" * 20}, pool="0x" + "06" * 20, fee_pips=3000,
        tick_spacing=60, factory="0x" + "07" * 20, position_manager="0x" + "08" * 20,
        swap_router="0x" + "09" * 20, quoter="0x" + "0a" * 20,
    )  # fmt: skip


class Frames:
    """A socket that gives one frame and closes."""

    def __init__(self, frame):
        self.frames = [frame]

    def __aiter__(self):
        return self

    async def __anext__(self):
        if not self.frames:
            raise StopAsyncIteration
        return SimpleNamespace(type=aiohttp.WSMsgType.BINARY, data=self.frames.pop())


def run(coroutine):
    """A coroutine that waits for nothing, to its end."""
    try:
        coroutine.send(None)
    except StopIteration as end:
        return end.value
    coroutine.close()
    raise AssertionError("it waits")


def test_frames_of_a_websocket():
    """The reader ends by saying that the node is lost, and whoever waits is told."""
    good = [
        *REPLIES,
        b'{"jsonrpc":"2.0","method":"eth_subscription",'
        b'"params":{"subscription":"0x1","result":{"number":"0x1","hash":"0x2"}}}',
    ]
    loop = asyncio.new_event_loop()

    def parse(data):
        node = Node("ws://127.0.0.1:1")
        waits = loop.create_future()
        node._waiting[1] = waits
        run(node._read(Frames(data)))
        assert waits.done()
        raise waits.exception() or node._lost

    fuzz("websocket", parse, Mutator(good, 24, JSON))
    loop.close()


def log_of(address, shape, indexed, values):
    topics = [shape.topic, *("0x" + abi_encode([k], [v]).hex() for k, v in indexed)]
    data = "0x" + abi_encode([k for k, _ in values], [v for _, v in values]).hex()
    place = {"blockNumber": "0x5", "logIndex": "0x0", "address": address}
    return {**place, "topics": topics, "data": data}


def logs():
    c = chain()
    of = {
        uniswap_v3.SWAP: c.pool, uniswap_v3.MINT: c.pool, uniswap_v3.BURN: c.pool,
        price_feed.ANSWER_UPDATED: c.price_feed, MODEL_PUBLISHED: c.registry,
        MODEL_REVOKED: c.registry,
    }  # fmt: skip
    return [
        log_of(
            address,
            shape,
            [(kind, zero(kind)) for kind in shape._indexed],
            [(kind, zero(kind)) for kind in shape._data],
        )
        for shape, address in of.items()
    ]


class Telling:
    """A node that announces one head, gives the logs and the answer to a call that it is told to,
    and knows nothing else."""

    url = "ws://x"
    head = None
    logs = None
    answer = None

    async def next_head(self, _limit_s=None):
        told, self.head = self.head, None
        return told

    async def call(self, method, *_):
        if method == "eth_getLogs":
            return self.logs
        if method == "eth_call":
            return self.answer
        raise NodeRefused(method, 0, "gone", "")


HEAD = {
    "number": "0x5", "hash": "0x" + "05" * 32, "parentHash": "0x" + "04" * 32,
    "timestamp": "0x65", "baseFeePerGas": "0x7",
}  # fmt: skip


def test_heads_and_logs():
    """What an agent is told of a block, from the announcement to the events that it believes; and
    the governed parameters, which it asks for at every block."""
    node, good, loop = Telling(), logs(), asyncio.new_event_loop()
    governed = abi_encode([PARAMETERS.returns], [(Governed().values, False, 100)]).hex()

    def told(data):
        ingest = Ingest(chain_, ADDRESS)
        ingest._remember(Head(4, HEAD["parentHash"], "0x03", 100, 7))
        try:
            tree = msgspec.json.decode(data)
            whole = isinstance(tree, list) and len(tree) == 3
            node.head, node.logs, node.answer = tree if whole else (tree, [], "0x" + governed)
        except (msgspec.MsgspecError, ValueError):
            node.head, node.logs, node.answer = HEAD, [], data.decode("latin1")
        return loop.run_until_complete(ingest.next(node))

    chain_ = chain()
    seeds = [msgspec.json.encode([HEAD, [log, good[0]], "0x" + governed]) for log in good]
    assert len(told(seeds[3]).events) == 3
    fuzz("heads and logs", told, Mutator(seeds, 25, JSON))
    loop.close()
    fuzz(
        "heads",
        lambda data: head_of(msgspec.json.decode(data)),
        Mutator([msgspec.json.encode(HEAD)], 26, JSON),
        refusals=(FedtradeError, msgspec.MsgspecError, UnicodeDecodeError),
    )


# --- the round channel and the gate ---------------------------------------------------------------


def test_requests_on_the_channel():
    """Headers of strangers and of a seat that signs nonsense."""
    keys, now_ms = MemberKeys.ephemeral(), 1_764_000_000_000
    signers = {("member", 1): keys.address.lower(), ("helper", 1): keys.address.lower()}
    request = Request(ADDRESS, "member", 1, "POST /v1/next", bytes(32), now_ms)
    good = msgspec.json.encode(request.headers(keys.sign_digest))

    def parse(data):
        try:
            headers = msgspec.json.decode(data, type=dict[str, str])
        except (msgspec.MsgspecError, UnicodeDecodeError):
            headers = {"Fedtrade-Seat": data.decode("latin1")}
        found = read_request(headers, ADDRESS, "POST /v1/next", signers)
        check_fresh(found.time_ms, now_ms - 1, now_ms)

    parse(good)
    fuzz("channel request", parse, Mutator([good], 27, JSON))


def test_names_of_refusals():
    def parse(data):
        if error_name(data) == "Unnamed":
            raise ClockSkew(0, 0)  # any name of ours: it counts as refused

    fuzz("channel refusal", parse, Mutator([b"Overspent"], 28))


def test_answers_of_the_coordinators_service():
    """A member's end: what a server says of its clock, and the names that it gives to tasks."""
    loop = _Loop.__new__(_Loop)
    loop._last_ms, loop._role, loop._seat, loop._done = 5, "member", 1, None
    good = msgspec.json.encode(
        {"Fedtrade-Time-Ms": "17", "Fedtrade-Refused": "ClockSkew", "Fedtrade-Task": "a-1"}
    )

    def parse(data):
        try:
            headers = msgspec.json.decode(data, type=dict[str, str])
        except (msgspec.MsgspecError, UnicodeDecodeError):
            headers = {"Fedtrade-Time-Ms": data.decode("latin1")}
        loop._behind(_Given(409, headers, b""))

    fuzz("channel answer", parse, Mutator([good], 29, JSON))


def test_requests_at_the_gate():
    """A SuperNode's headers; here the refusal is one of the gate's own, with a status."""
    key, now = ec.generate_private_key(ec.SECP384R1()), datetime(2025, 6, 1, tzinfo=UTC)
    pem = key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    stamp = now.isoformat()
    signature = key.sign(stamp.encode(), ec.ECDSA(hashes.SHA256()))
    headers = {
        "flwr-public-key": b64encode(pem).decode(),
        "flwr-timestamp": stamp,
        "flwr-signature": b64encode(signature).decode(),
    }

    def parse(data):
        try:
            found = msgspec.json.decode(data, type=dict[str, str])
        except (msgspec.MsgspecError, UnicodeDecodeError):
            found = {**headers, "flwr-timestamp": data.decode("latin1")}
        return check_node(found, lambda known: known == pem, now)

    parse(msgspec.json.encode(headers))
    fuzz("gate", parse, Mutator([msgspec.json.encode(headers)], 30, JSON), refusals=Refused)


def test_claims_of_seats():
    def parse(data):
        if not _seats({2: data})["member"]:
            raise transcript.Unverified("seats", "none claimed")  # it counts as refused

    fuzz(
        "claims", parse, Mutator([msgspec.msgpack.encode({"member": 1, "helper": 1})], 31, MSGPACK)
    )


# --- bundles --------------------------------------------------------------------------------------


def zipped(files, method=zipfile.ZIP_DEFLATED):
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", method) as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return packed.getvalue()


def test_bundles():
    files = {**bundle.bundle_files("1.0"), bundle.LISTING: b"pyproject.toml,0,1\nLICENSE,0,1"}
    seeds = [zipped(files, m) for m in (zipfile.ZIP_DEFLATED, zipfile.ZIP_STORED)]
    fuzz("bundle", lambda data: bundle.check_bundle(data, "1.0"), Mutator(seeds, 32))
    toml = Mutator([files["pyproject.toml"]], 33)
    fuzz(
        "bundle settings",
        lambda data: bundle.check_files({**files_only, "pyproject.toml": data}, "1.0", ""),
        toml,
        300,
    )


files_only = {"LICENSE": bundle.LICENSE}
