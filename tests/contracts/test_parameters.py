"""The rules of the parameters, judged alike by Python and by Solidity.

`contracts/test/vectors/parameters.json` is what the Python rules say about the table and about several
hundred cases; forge reads the same file and asks the contracts. Run this file to write it anew:

    python tests/contracts/test_parameters.py
"""

from __future__ import annotations

import json
import random
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from fedtrade.errors import Refusal
from fedtrade.governed import JOINT_RULES, RULES, Governed, OutOfBounds, broken

FILE = Path(__file__).parents[2] / "contracts" / "test" / "vectors" / "parameters.json"
LARGEST = 2**64 - 1
DEFAULTS = Governed().values

EDGES: dict[str, list[tuple[dict[str, int], dict[str, int]]]] = {
    # The defaults with these still hold the rule; with these they break it, and it is the first.
    "CommitteeStands": [
        ({"helpers": 5}, {"helpers": 4}),
        ({"helpers": 9, "corrupt": 4, "respondersMin": 5, "cohortMin": 6}, {"corrupt": 3}),
        ({"helpers": 3, "corrupt": 1}, {"helpers": 8, "corrupt": 4}),
    ],
    "RespondersSuffice": [
        ({"respondersMin": 3}, {"respondersMin": 2}),
        ({"respondersMin": 5}, {"respondersMin": 6}),
        ({"respondersMin": 9, "helpers": 9}, {"respondersMin": 9, "helpers": 8}),
    ],
    "CohortHides": [
        ({"cohortMin": 4}, {"cohortMin": 3}),
        (
            {"cohortMin": 6, "corrupt": 4, "helpers": 9, "respondersMin": 5},
            {"cohortMin": 5, "corrupt": 4, "helpers": 9, "respondersMin": 5},
        ),
    ],
    "SamplingNeedsNoise": [
        ({"samplingRateMicro": 100_000}, {"samplingRateMicro": 100_001}),
        ({"noiseMultiplierMicro": 500_000}, {"noiseMultiplierMicro": 499_999}),
        (
            {"samplingRateMicro": 250_000, "noiseMultiplierMicro": 2_500_000},
            {"samplingRateMicro": 250_000, "noiseMultiplierMicro": 2_499_999},
        ),
    ],
    "ReleaseWithinTotal": [
        ({"epsilonTotalMicro": 8_000_000}, {"epsilonTotalMicro": 7_999_999}),
        ({"epsilonReleaseMicro": 20_000_000}, {"epsilonReleaseMicro": 20_000_001}),
    ],
    "ModelOutlivesDelay": [
        (
            {"modelAgeMaxS": 86_401, "mirrorAgeMaxS": 86_400},
            {"modelAgeMaxS": 86_400, "mirrorAgeMaxS": 86_400},
        ),
        (
            {"modelAgeMaxS": 600, "activationDelayS": 0, "mirrorAgeMaxS": 60},
            {"modelAgeMaxS": 600, "activationDelayS": 600, "mirrorAgeMaxS": 60},
        ),
        (
            {"modelAgeMaxS": 600, "activationDelayS": 0, "releaseIntervalS": 599,
             "mirrorAgeMaxS": 60},
            {"modelAgeMaxS": 600, "activationDelayS": 0, "releaseIntervalS": 600,
             "mirrorAgeMaxS": 60},
        ),
        (
            {"releaseIntervalS": 2_505_599},
            {"releaseIntervalS": 2_505_600},
        ),
        ({"modelAgeMaxS": 1, "activationDelayS": 0, "mirrorAgeMaxS": 1},
         {"modelAgeMaxS": 0, "activationDelayS": 0}),
    ],
    "LevelsAscend": [
        ({"drawdownReduceBps": 399}, {"drawdownReduceBps": 400}),
        ({"drawdownHaltBps": 899}, {"drawdownHaltBps": 900}),
        ({"drawdownUnwindBps": 600, "deltaBandBps": 1_000}, {"drawdownUnwindBps": 400}),
        ({"drawdownHaltBps": 201}, {"drawdownHaltBps": 200}),
    ],
    "ActionWithinEpoch": [
        ({"actionNotionalMax": 5_000_000}, {"actionNotionalMax": 5_000_001}),
        (
            {"epochNotionalMax": 300_000, "bridgeInFlightMax": 300_000},
            {"epochNotionalMax": 299_999, "bridgeInFlightMax": 0},
        ),
    ],
    "OldPriceMayDiffer": [
        ({"oracleAgeMaxS": 13_500}, {"oracleAgeMaxS": 13_501}),
        ({"oracleDeviationMaxBps": 162}, {"oracleDeviationMaxBps": 161}),
        ({"oracleAgeMaxS": 60, "oracleDeviationMaxBps": 50},
         {"oracleAgeMaxS": 376, "oracleDeviationMaxBps": 50}),
        ({"oracleAgeMaxS": 15, "oracleDeviationMaxBps": 10, "slippageMaxBps": 10},
         {"oracleAgeMaxS": 16, "oracleDeviationMaxBps": 10, "slippageMaxBps": 10}),
        ({"oracleAgeMaxS": 86_400, "oracleDeviationMaxBps": 759},
         {"oracleAgeMaxS": 86_400, "oracleDeviationMaxBps": 758}),
    ],
    "SlippageWithinOracle": [
        ({"slippageMaxBps": 300}, {"slippageMaxBps": 301}),
        ({"oracleDeviationMaxBps": 50, "oracleAgeMaxS": 60},
         {"oracleDeviationMaxBps": 49, "oracleAgeMaxS": 60}),
    ],
    "BridgeWithinEpoch": [
        ({"bridgeInFlightMax": 5_000_000}, {"bridgeInFlightMax": 5_000_001}),
        ({"epochNotionalMax": 1_000_000}, {"epochNotionalMax": 999_999}),
        ({"bridgeInFlightMax": 0, "epochNotionalMax": 1, "actionNotionalMax": 1},
         {"bridgeInFlightMax": 2, "epochNotionalMax": 1, "actionNotionalMax": 1}),
    ],
    "BandWithinUnwind": [
        ({"deltaBandBps": 1_500}, {"deltaBandBps": 1_501}),
        ({"leverageMaxBps": 45_000}, {"leverageMaxBps": 45_001}),
        ({"drawdownUnwindBps": 600}, {"drawdownUnwindBps": 599}),
        ({"deltaBandBps": 0, "leverageMaxBps": 100_000},
         {"deltaBandBps": 10_000, "leverageMaxBps": 100_000}),
    ],
    "MirrorWithinModel": [
        ({"mirrorAgeMaxS": 604_800}, {"mirrorAgeMaxS": 604_801, "modelAgeMaxS": 604_800}),
        (
            {"modelAgeMaxS": 86_400, "activationDelayS": 0},
            {"modelAgeMaxS": 86_399, "activationDelayS": 0},
        ),
    ],
}  # fmt: skip


def values_with(changes: dict[str, int]) -> list[int]:
    """The defaults with some values changed, sound or not."""
    values = list(DEFAULTS)
    for name, value in changes.items():
        values[next(rule.id for rule in RULES if rule.name == name)] = value
    return values


def judged(values: list[int]) -> tuple[int, int]:
    """(id of the first value that is out of bounds or the count, number of the broken rule)."""
    outside = next((r.id for r in RULES if not r.least <= values[r.id] <= r.most), len(RULES))
    return outside, broken(values)


def sets() -> Iterator[list[int]]:
    """Whole sets of values: each edge of each joint rule, each bound, and many by chance."""
    yield list(DEFAULTS)
    for pairs in EDGES.values():
        for holding, breaking in pairs:
            yield values_with(holding)
            yield values_with(breaking)
    for rule in RULES:
        for value in {rule.least, rule.most, max(rule.least - 1, 0), rule.most + 1}:
            yield values_with({rule.name: value})
    yield [0] * len(RULES)
    yield [LARGEST] * len(RULES)
    yield [rule.least for rule in RULES]
    yield [rule.most for rule in RULES]
    chance = random.Random(4)
    for _ in range(80):  # a few values far from the defaults: several rules are broken at once
        moved = {r.name: chance.randint(r.least, r.most) for r in chance.sample(RULES, 3)}
        yield values_with(moved)


def moves() -> Iterator[tuple[int, int, int]]:
    """(id, from, to): each step's edge in both directions, and each reach's."""
    for rule in RULES:
        for start in {rule.default, rule.least, rule.most, 0, 1, LARGEST}:
            step = max(1, start * rule.step_bps // 10_000)
            for far in (step, step + 1, 4 * step, 4 * step + 1):
                for to in (start - far, start + far):
                    if 0 <= to <= LARGEST:
                        yield rule.id, start, to


def vectors() -> dict[str, Any]:
    """What the Python rules say. One column a key, so that forge reads each at once."""
    cases = list(sets())
    steps = list(moves())
    return {
        "table": {
            "name": [rule.name for rule in RULES],
            "unit": [rule.unit for rule in RULES],
            "least": [rule.least for rule in RULES],
            "most": [rule.most for rule in RULES],
            "step_bps": [rule.step_bps for rule in RULES],
            "cool_down_s": [rule.cool_down_s for rule in RULES],
            "tighter_up": [int(rule.tighter_up) for rule in RULES],
            "default": [rule.default for rule in RULES],
        },
        "joint_rules": [rule.name for rule in JOINT_RULES],
        "sets": {
            "values": [value for case in cases for value in case],
            "outside": [judged(case)[0] for case in cases],
            "broken": [judged(case)[1] for case in cases],
        },
        "moves": {
            "id": [i for i, _, _ in steps],
            "from": [start for _, start, _ in steps],
            "to": [to for _, _, to in steps],
            "within_step": [int(RULES[i].within_step(start, to)) for i, start, to in steps],
            "within_reach": [int(RULES[i].within_reach(start, to)) for i, start, to in steps],
            "as_tight": [int(RULES[i].as_tight(to, start)) for i, start, to in steps],
        },
    }


def text() -> str:
    """The file: one line a column."""
    found = vectors()
    parts = []
    for key, value in found.items():
        if isinstance(value, list):
            parts.append(f' "{key}": {json.dumps(value)}')
            continue
        columns = ",\n".join(f'  "{name}": {json.dumps(column)}' for name, column in value.items())
        parts.append(f' "{key}": {{\n{columns}\n }}')
    return "{\n" + ",\n".join(parts) + "\n}\n"


def test_the_file_is_what_the_rules_say() -> None:
    assert FILE.read_text() == text(), "run tests/contracts/test_parameters.py and commit"


def test_every_edge_of_every_joint_rule_is_judged() -> None:
    assert list(EDGES) == [rule.name for rule in JOINT_RULES]
    for number, (name, pairs) in enumerate(EDGES.items(), start=1):
        for holding, breaking in pairs:
            assert broken(values_with(holding)) == 0, (name, holding)
            assert broken(values_with(breaking)) == number, (name, breaking)


def test_the_cases_are_many_and_of_every_kind() -> None:
    cases = [judged(case) for case in sets()]
    assert len(cases) >= 200
    by_rule = Counter(rule for _, rule in cases)
    assert all(by_rule[number] >= 2 for number in range(len(JOINT_RULES) + 1)), by_rule
    assert {outside for outside, _ in cases} == set(range(len(RULES) + 1))
    assert len(list(moves())) >= 500


def test_the_cases_are_refused_as_they_are_judged() -> None:
    """`Governed` takes exactly the sets that are within bounds and break no joint rule."""
    for case in sets():
        outside, number = judged(case)
        try:
            Governed.of(case)
        except OutOfBounds as refused:
            assert refused.rule.id == outside
        except Refusal as refused:
            assert outside == len(RULES)
            assert refused.joint.number == number  # type: ignore[attr-defined]
        else:
            assert (outside, number) == (len(RULES), 0)


if __name__ == "__main__":
    FILE.write_text(text())
