"""The logs of ModelRegistry, sans-I/O: which models were published and revoked.

Hashes of artifacts are 64 lower-case hex digits without a prefix, as `fedtrade.artifact` has them.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from fedtrade.market.events import ModelPublished, ModelRevoked
from fedtrade.venues.codec import LogShape, field, quantity

MODEL_PUBLISHED: Final = LogShape(
    "ModelPublished(uint64,uint64,bytes32,uint64,uint64,string)",
    "(uint64,uint64)",
    "(bytes32,uint64,uint64,string)",
)
MODEL_REVOKED: Final = LogShape("ModelRevoked(uint64)", "(uint64)", "()")
TOPICS: Final = (MODEL_PUBLISHED.topic, MODEL_REVOKED.topic)


def decode(log: Mapping[str, Any]) -> ModelPublished | ModelRevoked | None:
    """The event of a registry's log; None for any other log."""
    block = quantity(field(log, "blockNumber"))
    if MODEL_PUBLISHED.matches(log):
        (version, _), (digest, live_from_s, epsilon_micro, _) = MODEL_PUBLISHED.decode(log)
        return ModelPublished(block, version, digest.hex(), live_from_s, epsilon_micro)
    if MODEL_REVOKED.matches(log):
        (version,), _ = MODEL_REVOKED.decode(log)
        return ModelRevoked(block, version)
    return None
