"""The shipped contracts: what fedtrade relies on is there, and the sources still compile to it."""

from __future__ import annotations

import json
import shutil
import subprocess
from importlib.resources import files
from pathlib import Path
from typing import Any

import pytest
from eth_account import Account
from eth_account.messages import encode_typed_data

from fedtrade.protocol import publication_digest, recover
from fedtrade.typed_data import keccak

CONTRACTS = Path(__file__).parents[2] / "contracts"
NAMES = (
    "BreakerModifier",
    "ConsortiumGovernor",
    "ConsortiumTimelock",
    "DevToken",
    "LocalPriceFeed",
    "Membership",
    "ModelRegistry",
    "ParameterStore",
    "RegistryBeacon",
    "RegistryMirror",
)
PUBLICATION = {
    "Publication": [
        {"name": "release", "type": "uint64"},
        {"name": "version", "type": "uint64"},
        {"name": "sha256", "type": "bytes32"},
        {"name": "uri", "type": "string"},
        {"name": "epsilonMicro", "type": "uint64"},
    ]
}
PUBLICATION_TYPE = (
    "Publication(uint64 release,uint64 version,bytes32 sha256,string uri,uint64 epsilonMicro)"
)

_ACTIONS = "address[],uint256[],bytes[]"
RELIED_ON = {
    "BreakerModifier": {
        "function execute((uint64,bytes32,uint64,(address,bytes)[]))",
        "function nextNonce() view returns (uint64)",
        "function halted() view returns (bool)",
        "function agent() view returns (address)",
        "function guardian() view returns (address)",
        "function safe() view returns (address)",
        "function halt()",
        "function resume()",
        "function setAgent(address)",
        "function setGuardian(address)",
        "function setLimits((uint64,uint64,uint64,uint64,uint64,uint64,uint64))",
        "function spentToday() view returns (uint256)",
        "event OrderExecuted(uint64 indexed,bytes32 indexed,uint256 indexed,uint256)",
        "event Halted(address indexed)",
        "error BreakerModifier_WrongNonce(uint64,uint64)",
        "error BreakerModifier_OverEpoch(uint256,uint256,uint256)",
        "constructor((address,address,address,address,address,address,address,address,address),"
        "(uint64,uint64,uint64,uint64,uint64,uint64,uint64))",
    },
    "ConsortiumGovernor": {
        f"function propose({_ACTIONS},string) returns (uint256)",
        f"function queue({_ACTIONS},bytes32) returns (uint256)",
        f"function execute({_ACTIONS},bytes32) returns (uint256)",
        f"function cancel({_ACTIONS},bytes32) returns (uint256)",
        "function castVoteWithReason(uint256,uint8,string) returns (uint256)",
        "function castVoteBySig(uint256,uint8,address,bytes) returns (uint256)",
        "function state(uint256) view returns (uint8)",
        "function proposalVotes(uint256) view returns (uint256,uint256,uint256)",
        "function proposalDeadline(uint256) view returns (uint256)",
        "function proposalEta(uint256) view returns (uint256)",
        "function quorum(uint256) view returns (uint256)",
        "function hasVoted(uint256,address) view returns (bool)",
        "function nonces(address) view returns (uint256)",
        "function getVotes(address,uint256) view returns (uint256)",
        "function GRACE_S() view returns (uint256)",
        "function setProposalGuardian(address)",
        "event ProposalCreated(uint256,address,address[],uint256[],string[],bytes[],"
        "uint256,uint256,string)",
        "error ConsortiumGovernor_NoVote(address)",
        "constructor(address,address,(uint48,uint32,uint48,uint16),address)",
    },
    "ConsortiumTimelock": {
        f"function scheduleBatch({_ACTIONS},bytes32,bytes32,uint256)",
        f"function executeBatch({_ACTIONS},bytes32,bytes32)",
        "function grantRole(bytes32,address)",
        "function revokeRole(bytes32,address)",
        "function updateDelay(uint256)",
        "function getMinDelay() view returns (uint256)",
        "event RoleGranted(bytes32 indexed,address indexed,address indexed)",
        "event RoleRevoked(bytes32 indexed,address indexed,address indexed)",
        "constructor(address)",
    },
    "Membership": {
        "function admit(address,address,bytes32,uint8) returns (uint256)",
        "function update(uint256,address,bytes32,uint8)",
        "function expel(uint256)",
        "function seat(uint256) view returns ((address,address,bytes32,uint8))",
        "function hasRole(uint256,uint8) view returns (bool)",
        "function idOfSigner(address) view returns (uint256)",
        "function idOfAccount(address) view returns (uint256)",
        "function idOfKey(bytes32) view returns (uint256)",
        "function memberCount() view returns (uint256)",
        "function lastSeatId() view returns (uint256)",
        "function getVotes(address) view returns (uint256)",
        "event SeatAdmitted(uint256 indexed,address indexed,address indexed,bytes32,uint8)",
        "event SeatUpdated(uint256 indexed,address indexed,bytes32,uint8)",
        "event SeatExpelled(uint256 indexed,address indexed,address indexed)",
        "error Membership_UnknownSeat(uint256)",
        "error Membership_NotTransferable()",
        "constructor(address)",
    },
    "ModelRegistry": {
        "function openRelease(uint64,bytes32,bytes32,uint32,uint256[],uint256[])",
        "function postManifest(uint64,uint32,bytes32)",
        "function abandonRelease(uint64)",
        "function publish(uint64,uint64,bytes32,string,uint64,bytes[])",
        "function revoke(uint64)",
        "function setGuardian(address)",
        "function live() view returns (uint64,bytes32,uint64,uint64)",
        "function model(uint64) view returns (bytes32,uint64,uint64,uint64,bool)",
        "function releaseOf(uint64) view returns "
        "((uint256,bytes32,bytes32,uint32,uint32,uint32,uint16,uint64,uint64,uint8))",
        "function signaturesNeeded(uint64) view returns (uint256)",
        "function earliestOpening() view returns (uint64)",
        "function isSigner(uint64,address) view returns (bool)",
        "function manifestOf(uint64,uint32) view returns (bytes32)",
        "function hasManifest(uint64,uint32) view returns (bool)",
        "function digest(uint64,uint64,bytes32,string,uint64) view returns (bytes32)",
        "function latestRelease() view returns (uint64)",
        "function currentRelease() view returns (uint64)",
        "function latestVersion() view returns (uint64)",
        "function epsilonSpentMicro() view returns (uint64)",
        "function epsilonCapMicro() view returns (uint64)",
        "function parameterStore() view returns (address)",
        "function membership() view returns (address)",
        "event ReleaseOpened(uint64 indexed,uint256 indexed,bytes32,bytes32,uint32,uint32,"
        "uint256[],uint256[])",
        "event ReleaseRoster(uint64 indexed,uint8 indexed,uint256[],address[],bytes32[])",
        "event ReleaseAbandoned(uint64 indexed)",
        "event ManifestPosted(uint64 indexed,uint32 indexed,bytes32)",
        "event ModelPublished(uint64 indexed,uint64 indexed,bytes32,uint64,uint64,string)",
        "event ModelRevoked(uint64 indexed)",
        "error ModelRegistry_TooFewSignatures(uint256,uint256)",
        "error ModelRegistry_NotReleaseMember(uint64,address)",
        "error ModelRegistry_SignersNotAscending(address,address)",
        "error ModelRegistry_StaleVersion(uint64,uint64)",
        "error ModelRegistry_CapExceeded(uint64,uint64,uint64)",
        "error ModelRegistry_CapReached(uint64,uint64)",
        "error ModelRegistry_ReleaseNotOpen(uint64)",
        "error ModelRegistry_RoundNotAscending(uint32,uint32)",
        "error ModelRegistry_NotGuardian(address)",
        "constructor(address,address,address)",
    },
    "ParameterStore": {
        "function parameters() view returns (uint64[28],bool,uint64)",
        "function governed() view returns (uint64[28])",
        "function interim() view returns (uint64[28],uint64)",
        "function snapshot() view returns (uint64[28],uint64[28],uint64,bool,uint64)",
        "function lastSteered(uint8) view returns (uint64)",
        "function sequence() view returns (uint64)",
        "function set(uint8[],uint64[])",
        "function steer(uint8[],uint64[])",
        "function tighten(uint8[],uint64[])",
        "function veto()",
        "function pause()",
        "function unpause()",
        "function setGuardian(address)",
        "function setSteward(address)",
        "event ParametersChanged(uint64 indexed,uint64[28],bool)",
        "event ParametersSteered(address indexed,uint8[],uint64[],uint64)",
        "event ParametersTightened(address indexed,uint8[],uint64[])",
        "event InterimEnded(address indexed)",
        "event PauseChanged(address indexed,bool)",
        "error ParameterRules_OutOfBounds(uint8,uint64,uint64,uint64)",
        "error ParameterRules_JointlyAbsurd(uint8)",
        "constructor(address,uint64[28])",
    },
    "RegistryBeacon": {
        "function post(uint32[])",
        "function quote(uint32[]) view returns (uint256)",
        "function snapshot() view returns ((uint64,uint64,(uint64,uint64,uint64,uint64,bytes32)[],"
        "uint64[28],uint64[28],uint64,bool,uint64))",
        "function setMirror(uint32,bytes32)",
        "function mirrorOf(uint32) view returns (bytes32)",
        "function mailbox() view returns (address)",
        "function registry() view returns (address)",
        "function store() view returns (address)",
        "function sequence() view returns (uint64)",
        "event Posted(uint64 indexed,uint32 indexed,bytes32)",
        "event MirrorChanged(uint32 indexed,bytes32,bytes32)",
        "constructor(address,address,address,address)",
    },
    "RegistryMirror": {
        "function live() view returns (uint64,bytes32,uint64,uint64)",
        "function parameters() view returns (uint64[28],bool,uint64)",
        "function listed() view returns ((uint64,uint64,uint64,uint64,bytes32)[])",
        "function sequence() view returns (uint64)",
        "function sentAt() view returns (uint64)",
        "function handle(uint32,bytes32,bytes)",
        "function interchainSecurityModule() view returns (address)",
        "function mailbox() view returns (address)",
        "function homeDomain() view returns (uint32)",
        "function beacon() view returns (bytes32)",
        # The same events as registry and store: an agent reads either alike.
        "event ModelPublished(uint64 indexed,uint64 indexed,bytes32,uint64,uint64,string)",
        "event ModelRevoked(uint64 indexed)",
        "event ParametersChanged(uint64 indexed,uint64[28],bool)",
        "event Mirrored(uint64 indexed,uint64)",
        "constructor(address,uint32,bytes32,address)",
    },
    "LocalPriceFeed": {
        "function push(int256)",
        "function decimals() view returns (uint8)",
        "function description() view returns (string)",
        "function version() view returns (uint256)",
        "function latestAnswer() view returns (int256)",
        "function latestRoundData() view returns (uint80,int256,uint256,uint256,uint80)",
        "function getRoundData(uint80) view returns (uint80,int256,uint256,uint256,uint80)",
        "event AnswerUpdated(int256 indexed,uint256 indexed,uint256)",
        "constructor(uint8,string,int256)",
    },
    "DevToken": {
        "function mint(address,uint256)",
        "function decimals() view returns (uint8)",
        "event Transfer(address indexed,address indexed,uint256)",
        "constructor(string,string,uint8)",
    },
}


def shipped_text(name: str) -> str:
    return (files("fedtrade.chain") / "abi" / f"{name}.json").read_text()


def shipped(name: str) -> dict[str, Any]:
    content: dict[str, Any] = json.loads(shipped_text(name))
    return content


def type_of(parameter: dict[str, Any]) -> str:
    if not parameter["type"].startswith("tuple"):
        return str(parameter["type"])
    inner = ",".join(type_of(c) for c in parameter["components"])
    return f"({inner}){parameter['type'].removeprefix('tuple')}"


def line_of(entry: dict[str, Any]) -> str:
    """One ABI entry as a line of Solidity: kind, name, types, and what matters of the rest."""
    inputs = ",".join(
        type_of(p) + (" indexed" if p.get("indexed") else "") for p in entry.get("inputs", ())
    )
    head = entry["type"] + (f" {entry['name']}" if "name" in entry else "")
    outputs = ",".join(type_of(p) for p in entry.get("outputs", ()))
    view = " view" if entry.get("stateMutability") in ("view", "pure") else ""
    return f"{head}({inputs}){view}" + (f" returns ({outputs})" if outputs else "")


def vector() -> dict[str, Any]:
    content: dict[str, Any] = json.loads(
        (CONTRACTS / "test" / "vectors" / "publication.json").read_text()
    )
    return content


@pytest.mark.parametrize("name", NAMES)
def test_everything_relied_on_is_there(name: str) -> None:
    missing = RELIED_ON[name] - {line_of(entry) for entry in shipped(name)["abi"]}
    assert not missing


@pytest.mark.parametrize("name", NAMES)
def test_file_is_canonical_and_linked(name: str) -> None:
    content = shipped(name)
    assert set(content) == {"abi", "bytecode", "contract"}
    assert content["contract"] == name
    assert bytes.fromhex(content["bytecode"].removeprefix("0x"))  # no placeholder of a library
    assert json.dumps(content, indent=1, sort_keys=True, ensure_ascii=False) + "\n" == shipped_text(
        name
    )


def test_nobody_can_transfer_pause_or_upgrade() -> None:
    """The powers that must not exist are not in the interface either."""
    for name in (
        "BreakerModifier",
        "Membership",
        "ModelRegistry",
        "ParameterStore",
        "RegistryBeacon",
        "RegistryMirror",
    ):
        functions = {e["name"] for e in shipped(name)["abi"] if e["type"] == "function"}
        forbidden = {"upgradeTo", "upgradeToAndCall", "initialize", "withdraw"}
        if name != "ParameterStore":  # the one place from which everything is paused
            forbidden |= {"pause", "unpause"}
        assert not functions & forbidden
        assert not any(e["type"] in ("receive", "fallback") for e in shipped(name)["abi"])
        paid = {e["name"] for e in shipped(name)["abi"] if e.get("stateMutability") == "payable"}
        assert paid == ({"post"} if name == "RegistryBeacon" else set())


def test_a_mirror_has_no_powers() -> None:
    """Besides its mailbox's `handle` nothing changes it, and it has no owner."""
    changing = {
        e["name"]
        for e in shipped("RegistryMirror")["abi"]
        if e["type"] == "function" and e["stateMutability"] not in ("view", "pure")
    }
    assert changing == {"handle"}
    assert "owner" not in {e.get("name") for e in shipped("RegistryMirror")["abi"]}


def test_publication_type_is_compiled_in() -> None:
    assert keccak(PUBLICATION_TYPE.encode()).hex() in shipped("ModelRegistry")["bytecode"]


def test_publication_digest_is_the_same_everywhere() -> None:
    """One vector, read by forge against the contract and here against eth-account and our own code."""
    v = vector()
    signable = encode_typed_data(
        domain_data={
            "name": "fedtrade ModelRegistry",
            "version": "1",
            "chainId": v["chain_id"],
            "verifyingContract": v["registry"],
        },
        message_types=PUBLICATION,
        message_data={
            "release": v["release"],
            "version": v["version"],
            "sha256": bytes.fromhex(v["sha256"][2:]),
            "uri": v["uri"],
            "epsilonMicro": v["epsilon_micro"],
        },
    )
    signed = Account.sign_message(signable, v["test_key"])
    assert bytes(signed.message_hash) == bytes.fromhex(v["digest"][2:])
    assert bytes(signed.signature) == bytes.fromhex(v["signature"][2:])
    ours = publication_digest(
        v["chain_id"],
        v["registry"],
        v["release"],
        v["version"],
        bytes.fromhex(v["sha256"][2:]),
        v["uri"],
        v["epsilon_micro"],
    )
    assert ours.hex() == v["digest"][2:]
    assert recover(ours, bytes.fromhex(v["signature"][2:])) == v["signer"].lower()


def test_lock_names_no_registry() -> None:
    lock = json.loads((CONTRACTS / "package-lock.json").read_text())
    wanted = json.loads((CONTRACTS / "package.json").read_text())["devDependencies"]
    packages = {k: v for k, v in lock["packages"].items() if k}
    assert all("resolved" not in package for package in packages.values())
    assert all(package["integrity"].startswith("sha512-") for package in packages.values())
    for name, version in wanted.items():
        assert packages[f"node_modules/{name}"]["version"] == version  # exact, no range


def run_export(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["node", str(CONTRACTS / "tools" / "export"), *arguments],
        capture_output=True,
        text=True,
        timeout=100,
    )


needs_forge = pytest.mark.skipif(
    not (CONTRACTS / "node_modules" / ".bin" / "forge").exists() or shutil.which("node") is None,
    reason="forge is not installed: run `npm ci --ignore-scripts` in contracts/ (needs Node 20)",
)


@needs_forge
def test_shipped_files_are_what_the_sources_compile_to() -> None:
    run = run_export("--check")
    assert run.returncode == 0, run.stderr


@needs_forge
def test_drift_is_named(tmp_path: Path) -> None:
    """One shipped byte differs: the check names the file and the remedy, and writes nothing."""
    for name in NAMES:
        (tmp_path / f"{name}.json").write_text(shipped_text(name))
    altered = shipped_text("Membership").replace('"Seat', '"Seal', 1)
    (tmp_path / "Membership.json").write_text(altered)

    run = run_export("--check", str(tmp_path))
    assert run.returncode == 1
    assert "Membership.json" in run.stderr
    assert "ModelRegistry.json" not in run.stderr
    assert "contracts/tools/export" in run.stderr
    assert (tmp_path / "Membership.json").read_text() == altered

    assert run_export(str(tmp_path)).returncode == 0
    assert (tmp_path / "Membership.json").read_text() == shipped_text("Membership")


@needs_forge
def test_unknown_option_is_refused() -> None:
    run = run_export("--chek")
    assert run.returncode == 1
    assert "usage" in run.stderr
