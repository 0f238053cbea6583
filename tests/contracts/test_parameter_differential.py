"""The parameter store of `fedtrade.steering` against the compiled one, on random states and proposals.

The harness (contracts/test/harness/StoreHarness.sol) is the store itself, which can be put into any
state. Each case is a state and a proposal; both sides must refuse with the same error and the same
arguments, or leave the same storage, word by word. FEDTRADE_DIFFERENTIAL_CASES asks for more cases.
"""

from __future__ import annotations

import json
import os
import random
import subprocess
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

import pytest
from eth_abi.abi import encode
from eth_utils.crypto import keccak

from fedtrade.chain.parameter_store import SET, STEER, TIGHTEN, VETO
from fedtrade.chain.rpc import Rpc, from_hex
from fedtrade.devnet.anvil import Anvil
from fedtrade.devnet.artifacts import fetch
from fedtrade.errors import Refusal
from fedtrade.governed import RULES, Governed, JointlyAbsurd, OutOfBounds, Rule, broken
from fedtrade.steering import (
    INTERIM_S,
    Looser,
    NoInterim,
    NothingTighter,
    OutOfReach,
    Standing,
    StepTooFar,
    StorePaused,
    TooSoon,
    arguments,
)
from fedtrade.venues.codec import Function

CONTRACTS = Path(__file__).parents[2] / "contracts"
FORGE = CONTRACTS / "node_modules" / ".bin" / "forge"
SOURCE = "test/harness/StoreHarness.sol"
COMPILED = CONTRACTS / "out" / "StoreHarness.sol" / "StoreHarness.json"
CASES = int(os.environ.get("FEDTRADE_DIFFERENTIAL_CASES", "4000"))
BATCH = 100
NOW_S = 1_750_000_000
HARNESS = "0x" + "a5" * 20
JUDGE = Function("judge(bytes32[],bytes[])", "(bytes[])")
GAS = 10**10
SAME_TIME = {"time": hex(NOW_S)}

pytestmark = [
    pytest.mark.chain,
    pytest.mark.skipif(
        not FORGE.exists(),
        reason="forge is not installed: run `npm ci --ignore-scripts` in contracts/ (needs Node 20)",
    ),
]


def reverted(signature: str, *arguments: int) -> bytes:
    """What a custom error of the contract looks like."""
    types = signature[signature.index("(") + 1 : -1]
    kinds = types.split(",") if types else []
    return keccak(text=signature)[:4] + encode(kinds, arguments)


def as_revert(refused: Refusal) -> bytes:
    """The contract's error for a refusal of ours."""
    match refused:
        case OutOfBounds(rule=r, value=value):
            signature = "ParameterRules_OutOfBounds(uint8,uint64,uint64,uint64)"
            return reverted(signature, r.id, value, r.least, r.most)
        case JointlyAbsurd(joint=joint):
            return reverted("ParameterRules_JointlyAbsurd(uint8)", joint.number)
        case StepTooFar(rule=r, present=present, to=to):
            return reverted("ParameterStore_StepTooFar(uint8,uint64,uint64)", r.id, present, to)
        case OutOfReach(rule=r, governed=governed, to=to):
            return reverted("ParameterStore_OutOfReach(uint8,uint64,uint64)", r.id, governed, to)
        case TooSoon(rule=r, earliest_s=earliest_s):
            return reverted("ParameterStore_TooSoon(uint8,uint64)", r.id, earliest_s)
        case Looser(rule=r, value=value, than=than):
            return reverted("ParameterStore_Looser(uint8,uint64,uint64)", r.id, value, than)
        case NothingTighter():
            return reverted("ParameterStore_NothingTighter()")
        case StorePaused():
            return reverted("ParameterStore_Paused()")
        case NoInterim():
            return reverted("ParameterStore_NoInterim()")
    raise refused


def packed(values: Sequence[int]) -> bytes:
    """Numbers of 64 bits as storage has them, four a word, the first lowest."""
    return b"".join(
        b"".join(value.to_bytes(8, "big") for value in reversed(values[i : i + 4]))
        for i in range(0, len(values), 4)
    )


def storage(standing: Standing, interim: Sequence[int], sequence: int) -> bytes:
    """The contract's storage from slot 0 on, every office the harness's own."""
    office = bytes(12) + bytes.fromhex(HARNESS[2:])
    flags = [standing.interim_until_s, sequence, int(standing.paused)]
    return (
        office
        + bytes(32)
        + packed(standing.governed.values)
        + packed(interim)
        + packed(standing.last_steered_s)
        + packed([*flags, 0])
        + office
        + office
    )


class Chance:
    """Random stores and proposals, from a seed; near the edges of the rules for the most part."""

    def __init__(self, seed: int) -> None:
        self.draw = random.Random(seed)
        self.pool = [Governed()]

    def beside(self, rule: Rule, present: int, governed: int) -> int:
        """A value for a parameter: an edge of what is allowed, or anything."""
        step = max(1, present * rule.step_bps // 10_000)
        value = self.draw.choice((
            present + step, present - step, present + step + 1, present - step - 1,
            present + self.draw.randint(0, step), present - self.draw.randint(0, step),
            present, governed, rule.default, rule.least, rule.most, rule.least - 1, rule.most + 1,
            governed + 4 * max(1, governed * rule.step_bps // 10_000),
            governed - 4 * max(1, governed * rule.step_bps // 10_000) - 1,
            self.draw.randint(rule.least, rule.most), self.draw.getrandbits(64),
        ))  # fmt: skip
        return min(max(value, 0), 2**64 - 1)

    def sound(self) -> Governed:
        """A set of values that obeys the rules, wherever earlier ones led."""
        values = list(self.draw.choice(self.pool).values)
        for _ in range(self.draw.randint(1, 6)):
            rule = self.draw.choice(RULES)
            before = values[rule.id]
            value = self.beside(rule, before, rule.default)
            values[rule.id] = min(max(value, rule.least), rule.most)
            if broken(values):
                values[rule.id] = before
        found = Governed.of(values)
        self.pool.append(found)
        if len(self.pool) > 500:
            self.pool.pop(self.draw.randrange(500))
        return found

    def standing(self) -> Standing:
        governed = self.sound()
        until_s = self.draw.choice((0, NOW_S - 1, NOW_S, NOW_S + 1, NOW_S + INTERIM_S))
        steered = [
            self.draw.choice((0, 0, NOW_S - r.cool_down_s, NOW_S - r.cool_down_s + 1, NOW_S))
            if self.draw.random() < 0.3
            else 0
            for r in RULES
        ]
        paused = self.draw.random() < 0.05
        return Standing(governed, self.sound(), until_s, paused, tuple(steered))

    def changes(self, standing: Standing) -> dict[str, int]:
        """One to four parameters, often such as belong together."""
        first = self.draw.randrange(len(RULES))
        count = self.draw.choice((1, 1, 1, 2, 2, 3, 4))
        chosen = {RULES[(first + self.draw.randint(0, 2) * i) % len(RULES)] for i in range(count)}
        present, governed = standing.in_force(NOW_S).values, standing.governed.values
        return {r.name: self.beside(r, present[r.id], governed[r.id]) for r in chosen}


Act = Callable[[Standing, Mapping[str, int]], Standing]
ACTS: dict[str, tuple[Function, Act]] = {
    "set": (SET, lambda standing, changes: standing.after_set(changes, NOW_S)),
    "steer": (STEER, lambda standing, changes: standing.after_steer(changes, NOW_S)),
    "tighten": (TIGHTEN, lambda standing, changes: standing.after_tighten(changes, NOW_S)),
    "veto": (VETO, lambda standing, _: standing.after_veto(NOW_S)),
}


def case(chance: Chance) -> tuple[bytes, bytes, bytes, str]:
    """(storage before, call, outcome expected, what kind it is)."""
    standing = chance.standing()
    assert standing.interim is not None
    name = chance.draw.choices(tuple(ACTS), (5, 10, 5, 1))[0]
    function, act = ACTS[name]
    changes = chance.changes(standing)
    call = function.encode(*(() if name == "veto" else arguments(changes)))
    before = storage(standing, standing.interim.values, 7)
    try:
        after = act(standing, changes)
    except Refusal as refused:
        return before, call, as_revert(refused), f"{name}: {type(refused).__name__}"
    interim = after.term(NOW_S) or standing.interim
    return before, call, storage(after, interim.values, 8), f"{name}: done"


def words(data: bytes) -> list[bytes]:
    return [data[i : i + 32] for i in range(0, len(data), 32)]


@pytest.fixture(scope="module")
def harness() -> Iterator[Rpc]:
    """A chain on which the harness stands."""
    subprocess.run([FORGE, "build", SOURCE], cwd=CONTRACTS, check=True, capture_output=True)
    code = json.loads(COMPILED.read_text())["deployedBytecode"]["object"]
    with Anvil.start(fetch().anvil, 31199, timestamp_s=NOW_S) as chain:
        chain.rpc.call("anvil_setCode", HARNESS, code)
        yield chain.rpc


@pytest.mark.timeout(3600)
def test_both_judge_alike(harness: Rpc) -> None:
    chance = Chance(seed=4)
    kinds: Counter[str] = Counter()
    for start in range(0, CASES, BATCH):
        cases = [case(chance) for _ in range(min(BATCH, CASES - start))]
        state = [word for before, _, _, _ in cases for word in words(before)]
        data = JUDGE.encode(state, [call for _, call, _, _ in cases])
        sent = {"to": HARNESS, "data": "0x" + data.hex(), "gas": hex(GAS)}
        (outcomes,) = JUDGE.decode(
            from_hex(harness.call("eth_call", sent, "latest", {}, SAME_TIME))
        )
        for (_, call, expected, kind), outcome in zip(cases, outcomes, strict=True):
            assert words(outcome) == words(expected), (kind, call.hex())
            kinds[kind] += 1
    assert sum(kinds.values()) == CASES
    rare = {kind for kind in EVERY_KIND if kinds[kind] < CASES // 2000}
    assert not rare, kinds
    assert kinds.keys() <= EVERY_KIND


EVERY_KIND = {
    "set: done", "set: OutOfBounds", "set: JointlyAbsurd",
    "steer: done", "steer: OutOfBounds", "steer: JointlyAbsurd", "steer: StepTooFar",
    "steer: OutOfReach", "steer: TooSoon", "steer: StorePaused",
    "tighten: done", "tighten: OutOfBounds", "tighten: JointlyAbsurd", "tighten: Looser",
    "tighten: NothingTighter",
    "veto: done", "veto: NoInterim",
}  # fmt: skip
