"""How far each mirror is, from the chains alone: rows of `fedtrade-coordinator relay status`."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime

from fedtrade.chain.conversation import ask
from fedtrade.chain.deployment import ChainDeployment, Deployment
from fedtrade.chain.mirrors import RegistryBeacon, RegistryMirror
from fedtrade.chain.quorum import reader
from fedtrade.chain.rpc import Rpc
from fedtrade.errors import FedtradeError
from fedtrade.venues.codec import quantity
from server.relay_settings import RelaySettings

Row = tuple[str, str, str, str, str, str, str]


def mirror_rows(settings: RelaySettings, account: str) -> Iterator[Row]:
    """One row a connected chain: name, message, time, paused, version, hash, balance.

    A node that does not answer gets a row that says so.
    """
    for chain in Deployment.load(settings.deployment).chains:
        if chain.messages is None:
            continue
        with reader(chain.all_rpc_urls, chain.chain_id) as rpc:
            try:
                yield _row(rpc, chain, account)
            except FedtradeError as error:
                yield (chain.name, str(error), "", "", "", "", "")


def _row(rpc: Rpc, chain: ChainDeployment, account: str) -> Row:
    assert chain.messages is not None
    balance = quantity(rpc.call("eth_getBalance", account, "latest")) / 1e18
    if chain.messages.beacon is not None:
        now = ask(rpc, RegistryBeacon(chain.messages.beacon).snapshot())
        live = next((m for m in now.models if m.live_from_s <= now.sent_at_s), None)
        shown = (str(live.version), live.sha256[:16]) if live is not None else ("0", "none is live")
        paused = "yes" if now.paused else "no"
        return (chain.name, f"{now.sequence - 1} posted", _time(now.sent_at_s), paused, *shown,
                f"{balance:.4f}")  # fmt: skip
    assert chain.messages.mirror is not None
    mirror = RegistryMirror(chain.messages.mirror)
    state, model = ask(rpc, mirror.state()), ask(rpc, mirror.live())
    values = ask(rpc, mirror.parameters())
    return (
        chain.name,
        f"{state.sequence} taken",
        _time(values.as_of_s) if state.sequence else "never",
        "yes" if values.paused else "no",
        str(model.version),
        model.sha256[:16] if model.version else "none is live",
        f"{balance:.4f}",
    )


def _time(seconds: int) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d %H:%M:%S")
