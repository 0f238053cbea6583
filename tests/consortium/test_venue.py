"""A recording served as if it were the venue, with the commands that a user types."""

import asyncio
import os
import signal
import socket
import subprocess
import sys
import urllib.error
import urllib.request
from pathlib import Path

import pytest

from fedtrade.errors import BadInput
from fedtrade.market.feeds.events import Market
from fedtrade.market.feeds.recording import Entry, Recorder, Recording

MARKET = Market("okx", "BTC-USDT", 1, 2)
WEB = "https://www.okx.com/api/v5/public/time?x=1"


def message(action, number, bid):
    told = (
        f'{{"arg":{{"channel":"books","instId":"BTC-USDT"}},"action":"{action}","data":[{{"asks":'
        f'[["9.5","1.25","0","1"]],"bids":[["{bid}","2.00","0","1"]],"ts":"{number}",'
        f'"seqId":{number},"prevSeqId":{number - 1 if number > 1 else -1}}}]}}'
    )
    return told.encode()


@pytest.fixture
def recording(tmp_path):
    file = tmp_path / "okx.jsonl.zst"
    with file.open("wb") as out:
        recorder = Recorder(out, "okx", [MARKET])
        recorder.write(Entry("http", 5, "web", b"early", WEB))
        for number in range(1, 40):
            whole = "snapshot" if number == 1 else "update"
            frame = message(whole, number, f"{8 + number / 100:.2f}"[:3])
            recorder.write(Entry("recv", number * 10_000_000, "ws", frame))
        recorder.write(Entry("http", 390_000_000, "web", b"late", WEB))
        recorder.flush()
    return file


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def command(*arguments, **more):
    return subprocess.run([sys.executable, "-m", "fedtrade.cli", *arguments], text=True,
                          capture_output=True, timeout=60, check=False, **more)  # fmt: skip


def answer(port, path):
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=5) as told:
            return told.status, told.read()
    except urllib.error.HTTPError as refused:
        with refused:
            return refused.code, b""


def test_serve_record_and_play_are_one_journey(recording, tmp_path):
    port = free_port()
    serving = subprocess.Popen(
        [sys.executable, "-m", "consortium.venue", str(recording), "--port", str(port)],
        stdout=subprocess.PIPE, text=True, env={**os.environ, "PYTHONUNBUFFERED": "1"},
    )  # fmt: skip
    try:
        assert str(port) in serving.stdout.readline()
        for _ in range(50):
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", port)) == 0:
                    break
            asyncio.run(asyncio.sleep(0.1))
        path = "/api/v5/public/time?x=1"
        assert answer(port, path) == (200, b"early")
        assert answer(port, "/api/v5/public/time?x=2")[0] == 404
        copy = tmp_path / "copy.jsonl.zst"
        done = command("feed", "record", "okx", "BTC-USDT:1:2", "--at", f"127.0.0.1:{port}",
                       "--out", str(copy), "--for-s", "2.5")  # fmt: skip
        assert done.returncode == 0, done.stderr
        assert "39 messages" in done.stdout
        assert answer(port, path) == (200, b"late")  # no older than what was told
    finally:
        serving.send_signal(signal.SIGINT)
        serving.wait(10)
        serving.stdout.close()

    def frames(file):
        with file.open("rb") as lines:
            return [each.data for each in Recording(lines) if each.kind == "recv"]

    assert frames(copy) == frames(recording)
    with copy.open("ab") as out:
        out.write(b"\x28\xb5\x2f\xfd torn")  # a crash within a frame
    played = command("feed", "play", str(copy))
    assert played.returncode == 0, played.stderr
    rows = {line.rsplit(None, 1)[0].strip(): line.split()[-1] for line in
            played.stdout.splitlines() if line.strip() and "─" not in line}  # fmt: skip
    assert rows == {"what": "count", "frames": "39", "BookReset": "1", "BookMoved": "38",
                    "in the end okx BTC-USDT": "whole"}  # fmt: skip


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (("feed", "play", "nowhere.zst"), "nowhere.zst"),
        (("feed", "record", "dydx-v3", "BTC-USD", "--out", "x.zst"), "it is closed"),
        (("feed", "record", "okx", "BTC:x", "--out", "x.zst"), "SYMBOL:2"),
        (("feed", "serve", "nowhere.zst"), "it is no file"),
    ],
)
def test_what_cannot_be_done_is_one_sentence(arguments, told, tmp_path):
    here = os.environ.get("PYTHONPATH", "")
    root = str(Path(__file__).parents[2])
    done = command(*arguments, cwd=tmp_path, env={**os.environ, "PYTHONPATH": f"{root}:{here}"})
    assert done.returncode == 2
    assert told in done.stderr
    assert "Traceback" not in done.stderr


def test_a_recording_that_is_not_there_is_refused(tmp_path):
    from consortium.venue import LocalVenue

    with pytest.raises(BadInput, match="it is no file"):
        LocalVenue(tmp_path / "none.zst")
