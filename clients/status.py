"""What a member can see of itself: its ledger, and whether coordinator and home chain are there.

Looking changes nothing: the ledger is read from a copy, so that it may be looked at while a process
that trains holds it.
"""

from __future__ import annotations

import http.client
import shutil
import ssl
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

from clients.budget import Budget
from clients.channel import client_tls
from clients.floor import Floor
from clients.settings import CoordinatorAt, HomeChainAt
from fedtrade.chain.agreement import Standing, trust_line
from fedtrade.chain.rpc import Rpc, RpcCall
from fedtrade.channel import HEALTH
from fedtrade.errors import FedtradeError
from fedtrade.venues.codec import quantity

REACH_S: Final = 5.0


@contextmanager
def ledger_copy(path: Path, limit: float, delta: float) -> Iterator[Budget]:
    """The ledger of ε as it stands, from a copy of it. Raises Fault where it is damaged."""
    head = path.with_name(path.name + ".head")
    with tempfile.TemporaryDirectory(prefix="fedtrade-ledger-") as scratch:
        copy = Path(scratch) / path.name
        for source in (head, path):  # the head first: a ledger may be ahead of it, never behind
            if source.exists():
                shutil.copyfile(source, Path(scratch) / source.name)
        with Budget(copy, limit, delta) as budget:
            yield budget


def ledger_line(path: Path, floor: Floor) -> str:
    """What was spent and what is left of this member's limit, in one line."""
    if not path.exists():
        return f"nothing spent; limit {floor.epsilon_limit:g} (RDP, δ = {floor.delta_max:g})"
    with ledger_copy(path, floor.epsilon_limit, floor.delta_max) as budget:
        spent = budget.epsilon()
        last = ""
        if budget.last is not None:
            last = f"; last: round {budget.last[1]} of release {budget.last[0]}"
        return (
            f"{budget.rounds} rounds; {spent}; "
            f"{max(0.0, floor.epsilon_limit - spent.rdp):.4f} of {floor.epsilon_limit:g} left{last}"
        )


def coordinator_line(coordinator: CoordinatorAt) -> str:
    """Whether the round channel answers under the certificate that this member trusts."""
    address = urlsplit(coordinator.url)
    connection = http.client.HTTPSConnection(
        address.netloc, timeout=REACH_S, context=client_tls(coordinator.ca_file)
    )
    try:
        connection.request("GET", HEALTH)
        status = connection.getresponse().status
    except ssl.SSLCertVerificationError as error:
        return f"{coordinator.url}: not trusted ({error.verify_message})"
    except (OSError, http.client.HTTPException) as error:
        return (
            f"{coordinator.url}: no answer ({type(error).__name__}); a channel is open in a release"
        )
    finally:
        connection.close()
    return f"{coordinator.url}: " + ("it answers" if status == 200 else f"it answers {status}")


def chain_lines(home: HomeChainAt) -> Iterator[str]:
    """Whether each node of the home chain answers, and for the right chain; then who is believed."""
    for url in home.rpc_urls:
        yield f"{url}: {_node_line(url, home.chain_id)}"
    yield trust_line([Standing(url) for url in home.rpc_urls])


def _node_line(url: str, chain_id: int) -> str:
    try:
        with Rpc(url, timeout_s=REACH_S) as rpc:
            asked: list[RpcCall] = [("eth_chainId", []), ("eth_blockNumber", [])]
            found, block = map(quantity, rpc.batch(asked))
    except FedtradeError as error:
        return f"no answer ({type(error).__name__})"
    if found != chain_id:
        return f"it is of chain {found}, not {chain_id}"
    return f"chain {chain_id}, block {block}"
