"""The HTTP transport against a scripted node: every way in which a node can fail us."""

import json
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer
from types import SimpleNamespace

import pytest

from fedtrade.chain.rpc import BATCH_MAX, NodeLost, NodeRefused, Rpc, eth_call, from_hex
from fedtrade.errors import BadInput, Unavailable


@pytest.fixture
def node():
    """Serves `answer(request body)`; `answer` may be replaced. None closes the connection."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self):
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            served.bodies.append(body)
            content = served.answer(body)
            if content is None:
                self.close_connection = True
                self.connection.shutdown(2)
                return
            content = content if isinstance(content, bytes) else json.dumps(content).encode()
            self.send_response(200)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *_):
            pass

    class Quiet(HTTPServer):
        def handle_error(self, *_):
            """A client that gave up is what some tests are about."""

    served = SimpleNamespace(answer=echo, bodies=[])
    server = Quiet(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    served.url = f"http://127.0.0.1:{server.server_port}"
    yield served
    server.shutdown()
    thread.join()
    server.server_close()


def echo(body):
    """The parameters as result; batches answered backwards."""
    if isinstance(body, list):
        return [echo(one) for one in reversed(body)]
    return {"jsonrpc": "2.0", "id": body["id"], "result": body["params"]}


def test_a_call_and_a_batch_in_order(node):
    with Rpc(node.url) as rpc:
        assert rpc.call("m", 1, "x") == [1, "x"]
        assert rpc.batch([("a", [1]), ("b", [2]), ("c", [])]) == [[1], [2], []]
        assert rpc.batch([]) == []


def test_long_batches_go_in_pieces(node):
    count = 2 * BATCH_MAX + 1
    with Rpc(node.url) as rpc:
        assert rpc.batch([("m", [n]) for n in range(count)]) == [[n] for n in range(count)]
    assert [len(body) for body in node.bodies] == [BATCH_MAX, BATCH_MAX, 1]


def test_a_nodes_error_is_a_refusal_with_its_data(node):
    error = {"code": 3, "message": "reverted:\x00 oh\n no", "data": "0xabcd"}
    node.answer = lambda body: {"id": body["id"], "error": error}
    with Rpc(node.url) as rpc, pytest.raises(NodeRefused, match="refused m: reverted: oh no") as e:
        rpc.call("m")
    assert (e.value.code, e.value.data) == (3, "0xabcd")


def test_a_batch_names_the_call_that_failed(node):
    def answer(body):
        replies = [echo(one) for one in body]
        replies[1] = {"id": body[1]["id"], "error": {"code": -1, "message": "no"}}
        return replies

    node.answer = answer
    with Rpc(node.url) as rpc, pytest.raises(NodeRefused, match="refused second"):
        rpc.batch([("first", []), ("second", [])])


def test_a_missing_answer_in_a_batch_is_stale(node):
    node.answer = lambda body: [echo(body[0])]
    with Rpc(node.url) as rpc, pytest.raises(NodeLost, match="no answer to second"):
        rpc.batch([("first", []), ("second", [])])


@pytest.mark.parametrize("content", [None, b"<html>"])
def test_a_broken_answer_is_stale_and_the_next_call_connects_anew(node, content):
    with Rpc(node.url) as rpc:
        node.answer = lambda _: content
        with pytest.raises(NodeLost, match="Connect again"):
            rpc.call("m")
        node.answer = echo
        assert rpc.call("m", 7) == [7]


def test_silence_ends_at_the_limit(node):
    gate = threading.Event()

    def answer(body):
        gate.wait(10)
        return echo(body)

    node.answer = answer
    with Rpc(node.url, timeout_s=0.05) as rpc, pytest.raises(NodeLost, match="timed out"):
        rpc.call("m")
    gate.set()


def test_no_node_says_how_to_start_one():
    with Rpc("http://127.0.0.1:1") as rpc, pytest.raises(Unavailable, match="fedtrade devnet up"):
        rpc.call("eth_chainId")


@pytest.mark.parametrize("url", ["127.0.0.1:8545", "ws://127.0.0.1:1", "https://", "http://"])
def test_only_http_addresses(url):
    with pytest.raises(BadInput, match="http://HOST:PORT"):
        Rpc(url)


def test_call_parameters():
    asked = ("eth_call", {"to": "0x1", "data": "0x0102", "from": "0x2"}, "0x10")
    assert eth_call("0x1", b"\1\2", 16, "0x2") == asked
    assert eth_call("0x1", b"")[2] == "latest"
    assert from_hex("0x0a") == b"\n"
