"""What validators publish, read from where they say it lies: a folder or a web server.

Nothing here is believed for where it comes from. A checkpoint counts by its signature, an
announcement likewise, so a plain web server that somebody else runs is good enough. Reads are bounded
in size and time, follow no redirect, and go only to the places that the relayer's operator has named.
"""

from __future__ import annotations

import http.client
from pathlib import Path
from typing import Final
from urllib.parse import unquote, urlsplit

from fedtrade.errors import BadInput, Stale
from fedtrade.venues.hyperlane import (
    ANNOUNCEMENT_NAME,
    FILE_MAX_BYTES,
    Announcement,
    SignedCheckpoint,
    checkpoint_name,
    read_announcement,
    read_checkpoint,
)

TIMEOUT_S: Final = 5.0


class StorageLost(Stale):
    """A validator's storage does not answer."""

    def __init__(self, location: str, problem: str) -> None:
        super().__init__(
            f"{location}: {problem}. The other validators may suffice; tell its operator"
        )
        self.location = location
        self.problem = problem


class Storage:
    """The published files of one validator."""

    def __init__(self, location: str) -> None:
        """`location` as announced: file:///FOLDER or http(s)://HOST/PATH. Raises BadInput."""
        self.location = location
        parts = urlsplit(location)
        self._folder: Path | None = None
        if parts.scheme == "file" and not parts.netloc and parts.path.startswith("/"):
            self._folder = Path(unquote(parts.path))
        elif parts.scheme not in ("http", "https") or not parts.hostname:
            raise BadInput(
                "storages", f"{location!r} is no place", "Write file:///FOLDER or https://HOST/PATH"
            )
        self._host, self._port = parts.hostname or "", parts.port
        self._tls, self._path = parts.scheme == "https", parts.path.rstrip("/")

    def announcement(self) -> Announcement:
        """Who the validator is, signed. Raises StorageLost, BadCheckpoint."""
        content = self._read(ANNOUNCEMENT_NAME)
        if content is None:
            raise StorageLost(self.location, "there is no announcement")
        return read_announcement(content)

    def checkpoint(self, index: int) -> SignedCheckpoint | None:
        """The checkpoint of an index; None if it is not there yet. Raises as `announcement`."""
        content = self._read(checkpoint_name(index))
        return None if content is None else read_checkpoint(content)

    def _read(self, name: str) -> bytes | None:
        try:
            if self._folder is None:
                return self._fetch(name)
            with (self._folder / name).open("rb") as file:
                return file.read(FILE_MAX_BYTES + 1)
        except FileNotFoundError:
            return None
        except (OSError, http.client.HTTPException) as error:
            raise StorageLost(self.location, str(error) or type(error).__name__) from error

    def _fetch(self, name: str) -> bytes | None:
        kind = http.client.HTTPSConnection if self._tls else http.client.HTTPConnection
        connection = kind(self._host, self._port, timeout=TIMEOUT_S)
        try:
            connection.request("GET", f"{self._path}/{name}")
            response = connection.getresponse()
            if response.status == 404:
                return None
            if response.status != 200:
                raise StorageLost(self.location, f"it answers {response.status}")
            return response.read(FILE_MAX_BYTES + 1)
        finally:
            connection.close()
