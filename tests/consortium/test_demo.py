"""The main job in small: every stage, every check, and what it leaves on disk."""

import hashlib
import json
import re
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

from consortium import tell
from fedtrade.artifact import load
from fedtrade.errors import Fault
from fedtrade.market.actions import SwapExactInput, WithdrawLiquidity
from fedtrade.risk.breakers import Level
from fedtrade.venues.codec import Call
from fedtrade.venues.safe import encode_order

pytestmark = [pytest.mark.chain, pytest.mark.timeout(600)]


def command(*words):
    return subprocess.run([sys.executable, "-m", *words], capture_output=True, text=True)


@pytest.fixture(scope="module")
def out(tmp_path_factory):
    folder = tmp_path_factory.mktemp("demo")
    done = command("consortium.demo", "--out", str(folder), "--rounds", "4", "--minutes", "25")
    assert done.returncode == 0, done.stderr[-2000:]
    return folder


@pytest.fixture(scope="module")
def summary(out):
    return json.loads((out / "summary.json").read_text())


def test_the_summary_has_what_it_promises(summary):
    assert set(summary) == {
        "chains",
        "artifact_sha256",
        "rounds",
        "epsilon",
        "metrics",
        "agents",
        "governance",
        "seconds",
        "standins",
    }
    assert [c["name"] for c in summary["chains"]] == ["aster", "birch", "cedar"]
    assert set(summary["epsilon"]) == {"rdp", "pld", "delta", "unit", "adjacency"}
    assert 0 < summary["epsilon"]["pld"] <= summary["epsilon"]["rdp"] < 8
    assert set(summary["metrics"]) == {"federated", "solo_mean", "pooled", "har", "persistence"}
    for agent in summary["agents"].values():
        assert set(agent) == {
            "actions",
            "transactions",
            "pnl",
            "pnl_static_lp",
            "pnl_hold",
            "breakers",
        }
    assert any("simulated" in text for text in summary["standins"])


def test_every_registry_has_the_hash_of_the_artifact_on_disk(out, summary):
    data = (out / "model" / "artifact.safetensors").read_bytes()
    assert hashlib.sha256(data).hexdigest() == summary["artifact_sha256"]
    assert {c["registry_hash"] for c in summary["chains"]} == {summary["artifact_sha256"]}
    card = load(data, summary["artifact_sha256"]).manifest
    assert card.rounds == summary["rounds"] == 4
    assert any("simulated" in text for text in card.standins)


def test_what_was_decided_stands_on_every_mirror_and_binds_every_safe(out, summary):
    """Told out of the chains' own logs: the demo has ended, and with it the chains."""
    governance = summary["governance"]
    proposal = governance["proposal"]
    assert (proposal["in_favour"], proposal["against"], proposal["seats"]) == (7, 1, 8)
    assert proposal["changes"] == ["epochNotionalMax: 5,000,000 → 2,000,000 quote (tighter)"]
    assert proposal["proposed_s"] < proposal["queued_s"] < proposal["executed_s"]
    assert (governance["validators"], governance["signatures_needed"]) == (8, 6)
    assert [mirror["chain"] for mirror in governance["mirrors"]] == ["birch", "cedar"]
    for mirror in governance["mirrors"]:
        numbers = [message["sequence"] for message in mirror["messages"]]
        assert len(numbers) >= 2  # the model, and then the parameters
        assert numbers == sorted(set(numbers))
        assert all(m["taken_s"] >= m["sent_s"] for m in mirror["messages"])
        assert mirror["messages"][-1]["sent_s"] >= proposal["executed_s"]
    ids = {m["id"] for mirror in governance["mirrors"] for m in mirror["messages"]}
    assert len(ids) == sum(len(mirror["messages"]) for mirror in governance["mirrors"])
    for safe in governance["safes"]:
        assert safe["epoch_cap"] == 2_000_000
        assert all(0 < spent <= safe["epoch_cap"] for spent in safe["spent"].values())
    assert sum(safe["orders"] for safe in governance["safes"]) > 0


def test_each_agents_money_is_its_safes(out, summary):
    """A key sends orders; what trades is the Safe."""
    deployment = json.loads((out / "deployment.json").read_text())
    for chain in deployment["chains"]:
        name, status = (
            chain["name"],
            json.loads((out / "agents" / chain["name"] / "status.json").read_text()),
        )
        safe = next(s for s in summary["governance"]["safes"] if s["chain"] == name)
        assert status["account"] == chain["custody"]["safe"] == safe["safe"]
        assert status["key"] == safe["key"] != safe["safe"]
        assert (chain["consortium"] is None) is (name != "aster")
        assert chain["registry"] == (
            chain["consortium"]["model_registry"]
            if name == "aster"
            else chain["messages"]["mirror"]
        )


def test_the_transcript_proves_the_hash_in_another_process(out, summary):
    transcript = out / "coordinator" / "transcript.bin"
    words = ("fedtrade.cli", "verify", str(transcript), "--expect", summary["artifact_sha256"])
    done = command(*words)
    assert done.returncode == 0
    assert done.stdout.startswith(summary["artifact_sha256"])
    altered = bytearray(transcript.read_bytes())
    altered[len(altered) // 3] ^= 1
    broken = out / "altered.bin"
    broken.write_bytes(altered)
    done = command("fedtrade.cli", "verify", str(broken))
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1
    assert "transcript," in done.stderr


def test_every_journal_replays_and_an_altered_one_is_named(out, summary):
    for name in summary["agents"]:
        journal = out / "agents" / name / "journal.jsonl"
        done = command("fedtrade.cli", "replay", str(journal))
        assert done.returncode == 0, done.stderr
        assert done.stdout.split()[0] == json.loads(journal.read_text().splitlines()[-1])["hash"]
    lines = journal.read_text().splitlines(keepends=True)
    place = next(i for i, line in enumerate(lines) if '"type":"Swapped"' in line)
    lines[place] = lines[place].replace('"tick":', '"tick": ', 1)
    altered = journal.with_name("altered.jsonl")
    altered.write_text("".join(lines))
    done = command("fedtrade.cli", "replay", str(altered))
    assert done.returncode == 4
    assert f"record {place}" in done.stderr


def test_agents_have_acted_and_their_processes_are_gone(out, summary):
    assert sum(a["transactions"] for a in summary["agents"].values()) > 0
    for name in summary["agents"]:
        pid = json.loads((out / "agents" / name / "status.json").read_text())["pid"]
        assert not Path(f"/proc/{pid}").exists()


def test_the_report_is_one_page_without_network(out):
    page = (out / "report.html").read_text()
    assert "<script src=" not in page
    assert "stand" in page


def test_no_position_stands_in_any_file_outside_the_members_folders(out):
    rows = [
        line
        for path in (out / "members").glob("*/positions.csv")
        for line in path.read_text().splitlines()[1:]
    ]
    assert len(rows) > 10_000
    ids = {row.split(",")[0].encode() for row in rows}
    tails = {row.split(",", 6)[6].encode() for row in rows}  # price, size and leverage together
    others = [
        p for p in out.rglob("*") if p.is_file() and "members" not in p.relative_to(out).parts
    ]
    assert len(others) > 15
    everything = b"\0".join(p.read_bytes() for p in others)
    assert re.search(rb"sim-[a-z]+-\d{5}", everything) is None
    assert [t for t in list(tails)[:400] if t in everything] == []
    assert (
        next(iter(ids))
        in (out / "members")
        .joinpath(next(iter(ids)).split(b"-")[1].decode(), "positions.csv")
        .read_bytes()
    )  # the same search finds what is there


def test_a_window_that_was_not_recorded_is_refused_in_one_sentence(tmp_path):
    done = command("consortium.demo", "--out", str(tmp_path), "--minutes", "100000")
    assert done.returncode == 2
    assert done.stderr.startswith("fedtrade demo: --minutes")


@dataclass
class Blocks:
    """A node that has these transactions in one block."""

    transactions: list

    def call(self, method, *_):
        return "0xb" if method == "eth_blockNumber" else {"transactions": self.transactions}


@dataclass
class Halted:
    receipts: tuple
    actions: tuple


@dataclass
class Chain:
    name: str = "aster"

    def pool_key(self):
        return type("Key", (), {"address": "0xpool"})()

    class quote:
        address = "0x" + "cc" * 20


def test_the_check_after_halt_can_fail():
    """In the journal, and on the chain: each kind of risk is found."""
    receipts = ({"level": int(Level.HALT), "timestamp_s": 100, "block": 10},)
    sell = SwapExactInput("a-1", "p", True, 1, 1, 0, False)
    buy = SwapExactInput("a-2", "p", False, 1, 1, 0, True)
    leave = WithdrawLiquidity("a-3", "p", 1, 1, 0, 0, 0)
    me = "0x" + "aa" * 20
    quiet = Halted(receipts, ((90, buy), (100, leave), (160, sell)))
    tell.check_halt(quiet, Chain(), Blocks([]), me)
    with pytest.raises(Fault, match="a-2"):
        tell.check_halt(Halted(receipts, ((100, buy),)), Chain(), Blocks([]), me)
    mint = "0x" + tell.PROVIDE.selector.hex()
    swap = "0x" + tell.SWAP_EXACT_INPUT.selector.hex() + "00" * 12
    for data, risky in ((mint, True), (swap + "cc" * 20, True), (swap + "bb" * 20, False)):
        node = Blocks([{"from": me, "input": data, "hash": "0xh"}])
        if risky:
            with pytest.raises(Fault, match="after HALT"):
                tell.check_halt(quiet, Chain(), node, me)
        else:
            tell.check_halt(quiet, Chain(), node, me)
        others = Blocks([{"from": "0x" + "bb" * 20, "input": data, "hash": "0xh"}])
        tell.check_halt(quiet, Chain(), others, me)
        calls = [Call("0x" + "11" * 20, bytes.fromhex(d[2:])) for d in ("0x00000000", data)]
        order = encode_order("0x" + "22" * 20, 7, "ab" * 32, 200, calls)
        node = Blocks([{"from": me, "input": "0x" + order.data.hex(), "hash": "0xh"}])
        if risky:  # in an order's second call, too
            with pytest.raises(Fault, match="after HALT"):
                tell.check_halt(quiet, Chain(), node, me)
        else:
            tell.check_halt(quiet, Chain(), node, me)
