"""The module that the bundle names as ClientApp; it is this one, as the member installed it.

Everything that it opens comes from the member's own `member.toml`, whose path the member's SuperNode
hands down in its environment. Nothing of the run's config is read.

Rounds travel in one of two ways. As *Flower messages*, each action of each round is a message, and
Flower starts a process for it (`clients.app`). Over the *round channel*, one message opens the
release: this process answers it when the release is over, and meanwhile works for the coordinator
over the channel.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING

from flwr.app import Context, Message
from flwr.clientapp import ClientApp

from clients.app import answer, make_app
from clients.settings import MemberSettings
from clients.supernode import SETTINGS_VARIABLE
from fedtrade.errors import Fault, FedtradeError

if TYPE_CHECKING:
    from clients.desk import Desk

log = logging.getLogger("fedtrade.member")


class NotOpened(Fault):
    """This node's desk does not open. Why is in its own log: Flower shows this text to others."""

    def __init__(self) -> None:
        super().__init__("this node's desk does not open; its operator finds the reason in its log")


def member_settings() -> MemberSettings:
    """The settings that this process was started with. Raises NotOpened."""
    try:
        return MemberSettings.load(Path(os.environ[SETTINGS_VARIABLE]))
    except (FedtradeError, KeyError) as error:
        log.error("no settings: %s", error)
        raise NotOpened from None


def open_desk(_context: Context) -> Desk:
    """The desk of this member's settings. Raises NotOpened."""
    from clients.desk import Desk  # torch: seconds that a roll call need not pay

    settings = member_settings()
    try:
        return Desk.open(settings)
    except (FedtradeError, OSError) as error:
        log.error("the desk does not open: %s", error)
        raise NotOpened from None


def add_release(app: ClientApp, serve: Callable[[], None]) -> None:
    """Let an app answer a roll call, and stay for a release for as long as `serve` works."""

    @app.query("installed")
    def installed(message: Message, _context: Context) -> Message:
        return answer(message, lambda _: version("fedtrade").encode())

    @app.query("release")
    def release(message: Message, _context: Context) -> Message:
        def stay(_: bytes) -> bytes:
            serve()
            return b"over"

        return answer(message, stay)


def serve_over_channel() -> None:
    """Work over the round channel until the coordinator says that the release is over."""
    from clients.channel import run
    from clients.desk import Desk
    from clients.keys import MemberKeys

    settings = member_settings()
    keys = MemberKeys.load(settings.keys)
    with Desk.open(settings) as desk:
        run(desk, settings, keys.sign_digest)


app = make_app(open_desk)
add_release(app, serve_over_channel)
