"""Chains with their markets kept as state dumps, so that every start but the first loads a file.

The consortium is not in them: it is founded at each start, with whatever seats it is to have, which
takes tenths of a second.

A dump is keyed by everything that it follows from: the artifact lock, our compiled contracts, the
sources that deploy, and the parameters. Whatever changes, changes the key, and a new dump is built;
an old one is never altered.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import asdict
from importlib.resources import files
from pathlib import Path
from typing import Final

from pydantic import TypeAdapter

from fedtrade.chain.plan import SitePlan
from fedtrade.devnet.anvil import HARDFORK, Anvil
from fedtrade.devnet.artifacts import Artifacts, lock_bytes
from fedtrade.devnet.cache import disk_errors, exclusive, new_folder
from fedtrade.devnet.deploy import ChainPlan, Genesis, contract_files, deploy_site
from fedtrade.devnet.hyperlane import deploy_hyperlane

_SOURCES: Final = (
    ("fedtrade.devnet", "accounts.py"),
    ("fedtrade.devnet", "anvil.py"),
    ("fedtrade.devnet", "deploy.py"),
    ("fedtrade.devnet", "hyperlane.py"),
    ("fedtrade.venues", "uniswap_v3.py"),
    ("fedtrade.chain", "deployment.py"),
    ("fedtrade.chain", "plan.py"),
)
_SITES: Final = TypeAdapter(tuple[SitePlan, ...])


def deployed_states(
    root: Path, artifacts: Artifacts, plans: Sequence[ChainPlan], genesis: Genesis
) -> Path:
    """A folder with `sites.json` (its node addresses are void) and `CHAIN.json` per chain."""
    folder = root / "states" / _key(plans, genesis)
    if not folder.is_dir():
        with exclusive(root):
            if not folder.is_dir():
                with disk_errors(root), new_folder(folder) as building:
                    _build(building, artifacts, plans, genesis)
    return folder


def sites_of(folder: Path) -> tuple[SitePlan, ...]:
    """What stands on each chain of such a folder."""
    return _SITES.validate_json((folder / "sites.json").read_bytes())


def _key(plans: Sequence[ChainPlan], genesis: Genesis) -> str:
    digest = hashlib.sha256(HARDFORK.encode())
    parts = [lock_bytes()]
    parts += [content for _, content in sorted(contract_files().items())]
    parts += [(files(package) / name).read_bytes() for package, name in _SOURCES]
    parts.append(json.dumps([[asdict(plan) for plan in plans], asdict(genesis)]).encode())
    for part in parts:
        digest.update(len(part).to_bytes(8, "big") + part)
    return digest.hexdigest()[:32]


def _build(
    folder: Path, artifacts: Artifacts, plans: Sequence[ChainPlan], genesis: Genesis
) -> None:
    sites = []
    for plan in plans:
        with ExitStack() as stack:
            chain = stack.enter_context(
                Anvil.start(artifacts.anvil, plan.chain_id, timestamp_s=genesis.start_s)
            )
            site = deploy_site(chain, plan, genesis, artifacts)
            others = [other.chain_id for other in plans if other is not plan]
            messages = deploy_hyperlane(chain.rpc, artifacts, plan.chain_id, others)
            sites.append(SitePlan(**dict(site), messages=messages))
            chain.dump_state(folder / f"{plan.name}.json")
    (folder / "sites.json").write_bytes(_SITES.dump_json(tuple(sites), indent=2))
