"""The names by which Flower 1.41 starts processes for apps. A member runs the first alone."""

from __future__ import annotations

from typing import Final

CLIENT_COMMAND: Final = "flwr-clientapp"
OTHER_COMMANDS: Final = (
    "flwr-agentapp",
    "flwr-connector",
    "flwr-model",
    "flwr-serverapp",
    "flwr-simulation",
)
