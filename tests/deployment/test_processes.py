"""Four members, three helpers and a coordinator as real processes over TLS, to a verified model."""

from __future__ import annotations

import json
import time

import pytest

from consortium.deployment import COORDINATOR, LocalDeployment
from fedtrade.parameters import PrivacyParameters
from fedtrade.privacy.transcript import verify_file

PARAMETERS = PrivacyParameters(
    sampling_rate=0.02,
    noise_multiplier=1.0,
    clip_norm=1.0,
    rounds=6,
    delta=1e-6,
    epsilon_cap=8.0,
    cohort_min=3,
    helpers=3,
    corrupt=1,
    learning_rate=0.01,
    agreement="certificate",
)
LIMIT_S = 240.0


def rounds_done(deployment):
    path = deployment.release_folder / "transcript.bin"
    return path.stat().st_size if path.exists() else 0


@pytest.mark.timeout(300)
def test_a_release_ends_in_a_verified_transcript_through_kills_of_everybody(tmp_path):
    with LocalDeployment.write(tmp_path, members=4, parameters=PARAMETERS) as deployment:
        deployment.start(COORDINATOR)
        deployment.start_parties()
        start = None
        until = time.monotonic() + LIMIT_S
        killed = False
        while deployment.processes[COORDINATOR].poll() is None and not killed:
            assert time.monotonic() < until
            size = rounds_done(deployment)
            start = start or size
            if start and size > start:  # a round is on disk: the power goes at three machines
                for name in (COORDINATOR, "member-2", "helper-6"):
                    deployment.kill(name)
                killed = True
                for name in ("member-2", "helper-6", COORDINATOR):
                    deployment.start(name)
            time.sleep(0.01)
        assert killed
        deployment.wait(COORDINATOR, LIMIT_S)
        for party in deployment.parties:  # each was told that the release is over
            deployment.wait(party.name, 30.0)
    proved = verify_file(deployment.release_folder / "transcript.bin")
    assert proved.rounds_spent == PARAMETERS.rounds
    assert proved.steps >= PARAMETERS.rounds - 2
    signatures = json.loads((deployment.release_folder / "endorsements.json").read_text())
    assert len(signatures["0"]) >= 3
    assert proved.artifact_sha256 in deployment.log(COORDINATOR).read_text()
    for party in deployment.parties:
        said = deployment.log(party.name).read_text()
        assert "Traceback" not in said
