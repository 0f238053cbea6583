"""The bundle that Flower hands to every member: no code, and the check that says so.

Flower ships an app as a zip. Whatever Python lies in it goes to the front of a member's import path,
and the file `pyproject.toml` in it names the module that is imported; a bundle that carries `clients/`
would silently replace the member's installed code. Ours carries three files and none of them is code:
a licence, a `pyproject.toml` that names the *installed* modules, and Flower's list of the two.

`check_bundle` holds a received bundle to exactly that, before anything of it is written to disk. It
compares contents, not the hash of the zip, since another zlib packs the same contents otherwise. An
older version, another component, one more file or one more setting is refused.
"""

from __future__ import annotations

import hashlib
import io
import lzma
import struct
import tomllib
import zipfile
import zlib
from collections.abc import Mapping
from typing import Any, Final

from fedtrade.errors import Refusal

BUNDLE_BYTES_MAX: Final = 65_536
"""A bundle of ours is about 1 kB; nothing larger is unpacked."""
FILE_BYTES_MAX: Final = 16_384
SERVER_COMPONENT: Final = "server.flower:app"
CLIENT_COMPONENT: Final = "clients.flower:app"
LICENSE: Final = b"""\
Apache License, Version 2.0
https://www.apache.org/licenses/LICENSE-2.0

This bundle carries no code. Members and coordinator run the fedtrade that they installed.
"""
LISTING: Final = ".info/CONTENT"
FILES: Final = frozenset({"LICENSE", "pyproject.toml"})
"""What a bundle may hold beside Flower's own listing, and all that an installed one holds."""
NAMES_SHOWN_MAX: Final = 12
_UNREADABLE: Final = (
    zipfile.BadZipFile,
    zlib.error,
    lzma.LZMAError,
    struct.error,
    EOFError,
    OSError,
    ValueError,  # a name that is no text
    RuntimeError,  # an encrypted file, or (NotImplementedError) a packing that we do not have
)


class ForeignBundle(Refusal):
    """A bundle other than the one that carries no code."""

    def __init__(self, digest: str, problem: str, names: tuple[str, ...] = ()) -> None:
        shown = ", ".join(repr(name[:80]) for name in names[:NAMES_SHOWN_MAX])
        more = f" and {len(names) - NAMES_SHOWN_MAX} more" if len(names) > NAMES_SHOWN_MAX else ""
        super().__init__(
            f"bundle {digest} is refused, nothing of it was imported: {problem}"
            f"{': ' + shown + more if names else ''}. Ask the coordinator to send the bundle of the "
            "release that you installed, which holds no code"
        )
        self.digest = digest
        self.problem = problem
        self.names = names


def bundle_files(version: str) -> dict[str, bytes]:
    """The files to build a bundle from, for one version of fedtrade: name -> content."""
    return {"LICENSE": LICENSE, "pyproject.toml": _pyproject(version).encode()}


def _pyproject(version: str) -> str:
    return f"""\
[project]
name = "fedtrade"
version = "{version}"
description = "Names the installed modules of fedtrade; carries no code"
license = {{ file = "LICENSE" }}
dependencies = ["flwr>=1.41,<1.42"]

[tool.flwr.app]
publisher = "fedtrade"
fab-format-version = 1
flwr-version-target = "1.41.0"
fab-include = ["/LICENSE"]

[tool.flwr.app.components]
serverapp = "{SERVER_COMPONENT}"
clientapp = "{CLIENT_COMPONENT}"

[tool.flwr.app.config]
"""


def check_bundle(content: bytes, version: str) -> str:
    """The sha256 of a bundle that is ours, in hex. Raises ForeignBundle for any other.

    `version` is that of the fedtrade installed here: a bundle of another one, older or newer, is
    not what this side runs.
    """
    digest = hashlib.sha256(content).hexdigest()
    files = _unzip(content, digest)
    listing = files.pop(LISTING)
    check_files(files, version, digest)
    # Flower looks up every path of the listing on the disk and answers whether its hash fits, which
    # would let a coordinator ask about any file here: so the listing is held to these two files
    lines = [
        f"{name},{hashlib.sha256(files[name]).hexdigest()},{8 * len(files[name])}"
        for name in ("pyproject.toml", "LICENSE")
    ]
    if listing != "\n".join(lines).encode():
        raise ForeignBundle(digest, "its listing is not that of its files")
    return digest


def check_files(files: Mapping[str, bytes], version: str, digest: str) -> None:
    """Hold the files of a bundle, name -> content, to ours. Raises ForeignBundle."""
    foreign = tuple(sorted(set(files) - FILES))
    if foreign:
        raise ForeignBundle(digest, "it carries foreign files", foreign)
    missing = tuple(sorted(FILES - set(files)))
    if missing:
        raise ForeignBundle(digest, "files are missing", missing)
    if files["LICENSE"] != LICENSE:
        raise ForeignBundle(digest, "its LICENSE is another one")
    try:
        named: dict[str, Any] = tomllib.loads(files["pyproject.toml"].decode())
    except (ValueError, RecursionError):  # not TOML, not UTF-8, or a number beyond all bounds
        raise ForeignBundle(digest, "its pyproject.toml is not TOML") from None
    ours = tomllib.loads(_pyproject(version))
    if named != ours:
        raise ForeignBundle(digest, f"its pyproject.toml is not that of fedtrade {version}")


def _unzip(content: bytes, digest: str) -> dict[str, bytes]:
    """The files of a small zip with the right names. Raises ForeignBundle."""
    if len(content) > BUNDLE_BYTES_MAX:
        # its names tell the operator what it was; the directory of a zip is read without unpacking
        raise ForeignBundle(digest, f"it is over {BUNDLE_BYTES_MAX} bytes", _names(content))
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            entries = archive.infolist()
            names = [entry.filename for entry in entries]
            foreign = tuple(sorted(set(names) - FILES - {LISTING}))
            if foreign:
                raise ForeignBundle(digest, "it carries foreign files", foreign)
            if len(set(names)) != len(names) or LISTING not in names:
                raise ForeignBundle(digest, "its listing is missing, or a file is there twice")
            if any(entry.orig_filename != entry.filename for entry in entries):
                raise ForeignBundle(digest, "a file has two names")
            return {entry.filename: _read(archive, entry, digest) for entry in entries}
    except _UNREADABLE:
        raise ForeignBundle(digest, "it is no readable zip") from None


def _read(archive: zipfile.ZipFile, entry: zipfile.ZipInfo, digest: str) -> bytes:
    with archive.open(entry) as file:
        data = file.read(FILE_BYTES_MAX + 1)
    if len(data) > FILE_BYTES_MAX:
        raise ForeignBundle(digest, "a file of it is too large", (entry.filename,))
    return data


def _names(content: bytes) -> tuple[str, ...]:
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            return tuple(sorted(set(archive.namelist()) - FILES - {LISTING}))
    except _UNREADABLE:
        return ()
