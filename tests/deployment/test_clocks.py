"""Threat R21: processes whose clocks are wrong, over TLS. Each ends with a sentence or takes part.

Small differences (3 s) must do no harm. At 400 s a member or helper ends by `ClockSkew`, once, and the
others go on without it; a coordinator that is off itself ends by `CoordinatorClock` and publishes
nothing. `FEDTRADE_CLOCKS=1` runs every role with every sign. The agent's clock is in
`tests/clients/test_execution.py`, SuperNodes' are in `test_superlink.py`.
"""

from __future__ import annotations

import os
import re
import subprocess

import pytest

from consortium.deployment import COORDINATOR, LocalDeployment
from fedtrade.errors import Stale
from fedtrade.parameters import PrivacyParameters
from fedtrade.privacy.transcript import verify_file

PARAMETERS = PrivacyParameters(
    sampling_rate=0.02,
    noise_multiplier=1.0,
    clip_norm=1.0,
    rounds=2,
    delta=1e-6,
    epsilon_cap=8.0,
    cohort_min=3,
    helpers=3,
    corrupt=1,
    learning_rate=0.01,
    agreement="certificate",
)
FIVE = PARAMETERS.model_copy(update={"helpers": 5})
"""Of five helpers one may be missing, of three none: a certificate takes ⌈(m + c + 1)/2⌉."""
LIMIT_S = 240.0
FULL = "FEDTRADE_CLOCKS" in os.environ

pytestmark = pytest.mark.timeout(600)


@pytest.fixture
def opened(tmp_path, clock_off):
    """Start a new deployment, some of it with clocks that are so many seconds off."""
    running = []

    def start(off_s, parameters=PARAMETERS, roles=("member", "helper")):
        deployment = LocalDeployment.write(tmp_path, members=4, parameters=parameters)
        running.append(deployment)
        parties = [party.name for party in deployment.parties if party.role in roles]
        for name in (COORDINATOR, *parties):
            with clock_off(off_s.get(name, 0.0)):
                deployment.start(name)
        return deployment

    yield start
    for deployment in running:
        deployment.stop()


def ended(deployment, name):
    """Its exit code and everything that it said."""
    try:
        code = deployment.processes[name].wait(LIMIT_S)
    except subprocess.TimeoutExpired:
        raise AssertionError(deployment.log(name).read_text()[-2000:]) from None
    said = deployment.log(name).read_text()
    assert "Traceback" not in said
    return code, said


def off_told(said):
    """By how many seconds the one sentence says that a clock is off."""
    (found,) = re.findall(r"clock is ([+-]\d+\.\d) s off the coordinator's", said)
    return float(found)


def check_refused(deployment, name, off_s):
    code, said = ended(deployment, name)
    assert code == Stale.exit_code
    assert abs(off_told(said) - off_s) < 10  # said once: asked once
    assert "Set it by NTP, then start again" in said
    log = deployment.log(COORDINATOR).read_text()
    assert log.count(f"{name.replace('-', '/')}: ClockSkew") == 1


def check_released(deployment, cohort, parameters):
    """The release is published without those that were refused."""
    code, said = ended(deployment, COORDINATOR)
    assert code == 0, said[-2000:]
    proved = verify_file(deployment.release_folder / "transcript.bin")
    assert proved.steps == parameters.rounds
    assert proved.artifact_sha256 in said
    assert paid(deployment) == cohort


def paid(deployment):
    """Seats of the members that have spent ε."""
    ledgers = {p.seat: p.folder / "ledger.jsonl" for p in deployment.parties if p.role == "member"}
    return {
        seat
        for seat, path in ledgers.items()
        if path.exists() and '"pool":"rounds"' in path.read_text()
    }


SMALL = {"member-1": 3, "member-2": -3, "helper-5": 3}
ASIDE = [
    (PARAMETERS, {"member-4": 400}),
    (PARAMETERS, {"member-4": -400}),
    (FIVE, {"member-4": -400, "helper-9": 400}),
    (FIVE, {"member-4": 400, "helper-9": -400}),
]


@pytest.mark.parametrize(("parameters", "off_s"), ASIDE if FULL else ASIDE[:1])
def test_who_is_far_off_is_refused_once_and_the_others_go_on(opened, parameters, off_s):
    """Small differences cost nobody anything."""
    deployment = opened({**SMALL, **off_s}, parameters)
    for name, seconds in off_s.items():
        check_refused(deployment, name, seconds)
    check_released(deployment, {1, 2, 3}, parameters)
    for name in SMALL:
        assert ended(deployment, name)[0] == 0


@pytest.mark.parametrize("off_s", [400, -400] if FULL else [-400])
def test_a_coordinator_that_is_far_off_says_so_and_publishes_nothing(opened, off_s):
    deployment = opened({COORDINATOR: off_s}, roles=("member",))  # four of seven seats
    code, said = ended(deployment, COORDINATOR)
    assert code == Stale.exit_code
    (told,) = re.findall(
        r"seats have clocks from which this machine's is ([+-]\d+\.\d) s off", said
    )
    assert abs(float(told) - off_s) < 10
    for name in ("artifact.safetensors", "endorsements.json"):
        assert not (deployment.release_folder / name).exists()
    assert paid(deployment) == set()
    for seat in range(1, 5):
        check_refused(deployment, f"member-{seat}", -off_s)


@pytest.mark.skipif(not FULL, reason="FEDTRADE_CLOCKS=1 runs the whole matrix")
@pytest.mark.parametrize("off_s", [3, -3])
def test_a_coordinator_that_is_a_little_off_is_noticed_by_nobody(opened, off_s):
    deployment = opened({COORDINATOR: off_s})
    check_released(deployment, {1, 2, 3, 4}, PARAMETERS)
