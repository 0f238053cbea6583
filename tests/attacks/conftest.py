"""The attack suite's own modules (`adversary`, `naive`, `mutation`) are imported by its tests."""

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from adversary import Adversary


@pytest.fixture
def attack(tmp_path):
    made = []

    def make(lane="mask", **more):
        folder = tmp_path / f"{lane}-{len(made)}"
        made.append(Adversary(folder, lane, **more))
        return made[-1]

    yield make
    for adversary in made:
        adversary.close()
