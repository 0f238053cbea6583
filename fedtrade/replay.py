"""Prove a journal: fresh agents, the artifacts kept beside it, the same actions and head hash."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from fedtrade.agent import Agent, agent_of
from fedtrade.errors import BadInput
from fedtrade.journal import Replay, replay


def replay_journal(path: Path) -> Replay:
    """Reproduce a journal. Raises JournalAltered or JournalDiffers, which name the record."""

    def make(start: Mapping[str, Any]) -> Agent:
        sha256 = str(start["artifact_sha256"])
        kept = path.parent / "artifacts" / f"{sha256}.safetensors"
        try:
            data = kept.read_bytes()
        except OSError as error:
            raise BadInput(
                str(kept),
                f"the artifact that this agent ran cannot be read ({error.strerror})",
                "Keep the folder `artifacts` beside the journal",
            ) from None
        return agent_of(start, data)

    return replay(path, make)
