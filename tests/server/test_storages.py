"""What validators publish is read within limits, and is worth no more than its signature."""

import http.server
import threading

import pytest
from eth_account import Account

from fedtrade.errors import BadInput
from fedtrade.venues.hyperlane import (
    Announcement,
    BadCheckpoint,
    Checkpoint,
    SignedCheckpoint,
    announcement_digest,
    announcement_file,
    checkpoint_file,
)
from server import storages
from server.storages import Storage, StorageLost

KEY = Account.from_key(b"\x07" * 32)
MAILBOX = "0x" + "ab" * 20
CHECKPOINT = Checkpoint(1, b"\x01" * 32, b"\x02" * 32, 3, b"\x04" * 32)
SIGNED = SignedCheckpoint(CHECKPOINT, bytes(KEY.unsafe_sign_hash(CHECKPOINT.digest).signature))


@pytest.fixture
def folder(tmp_path):
    place = f"file://{tmp_path}"
    digest = announcement_digest(1, MAILBOX, place)
    signature = bytes(KEY.unsafe_sign_hash(digest).signature)
    said = Announcement(KEY.address.lower(), 1, MAILBOX, place, signature)
    (tmp_path / "announcement.json").write_bytes(announcement_file(said))
    (tmp_path / "3_with_id.json").write_bytes(checkpoint_file(SIGNED))
    return tmp_path


def serve(answer):
    """A web server on loopback that answers each path by `answer(handler)`."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            answer(self)

        def log_message(self, *_):
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return server


@pytest.fixture
def web(folder):
    opened = []

    def open_(answer=None):
        def plain(handler):
            path = folder / handler.path.removeprefix("/v/")
            handler.send_response(200 if path.exists() else 404)
            content = path.read_bytes() if path.exists() else b"nothing"
            handler.send_header("Content-Length", str(len(content)))
            handler.end_headers()
            handler.wfile.write(content)

        opened.append(serve(answer or plain))
        return Storage(f"http://127.0.0.1:{opened[-1].server_port}/v")

    yield open_
    for server in opened:
        server.shutdown()
        server.server_close()


@pytest.mark.parametrize("kind", ["folder", "web"])
def test_a_folder_and_a_web_server_are_read_alike(folder, web, kind):
    storage = Storage(f"file://{folder}") if kind == "folder" else web()
    assert storage.checkpoint(3) == SIGNED
    assert storage.checkpoint(4) is None
    assert storage.announcement().validator == KEY.address.lower()
    (folder / "announcement.json").unlink()
    with pytest.raises(StorageLost, match="no announcement"):
        storage.announcement()


@pytest.mark.parametrize("content", [b"", b"{}", b"x" * 10_000, b"[" * 4_000])
def test_garbage_is_refused(folder, web, content):
    (folder / "3_with_id.json").write_bytes(content)
    for storage in (Storage(f"file://{folder}"), web()):
        with pytest.raises(BadCheckpoint):
            storage.checkpoint(3)


def test_a_server_that_fails_is_said(web):
    def fails(handler):
        handler.send_response(500)
        handler.end_headers()

    with pytest.raises(StorageLost, match="500"):
        web(fails).checkpoint(3)


def test_a_redirect_is_not_followed(web):
    asked = []

    def away(handler):
        asked.append(handler.path)
        handler.send_response(302)
        handler.send_header("Location", f"http://127.0.0.1:{handler.server.server_port}/evil")
        handler.end_headers()

    with pytest.raises(StorageLost, match="302"):
        web(away).checkpoint(3)
    assert asked == ["/v/3_with_id.json"]


def test_an_endless_answer_is_cut_off(web):
    def endless(handler):
        handler.send_response(200)
        handler.end_headers()
        handler.wfile.write(b"x" * 100_000)

    with pytest.raises(BadCheckpoint, match="over"):
        web(endless).checkpoint(3)


def test_a_silent_server_is_left(web, monkeypatch):
    monkeypatch.setattr(storages, "TIMEOUT_S", 0.2)
    wait = threading.Event()
    storage = web(lambda handler: wait.wait(5.0))
    with pytest.raises(StorageLost, match="timed out"):
        storage.checkpoint(3)
    wait.set()


def test_nobody_there_is_said():
    with pytest.raises(StorageLost):
        Storage("http://127.0.0.1:1").checkpoint(0)


@pytest.mark.parametrize("place", ["ftp://a/b", "file://host/x", "http://", "nonsense", "/etc"])
def test_no_place_is_refused(place):
    with pytest.raises(BadInput):
        Storage(place)
