"""The governed part of the report: what mirrors took and breakers let through, read from the chains.

Nothing here is remembered from the run but the seconds: numbers and ids of messages, times, caps and
what was spent come out of the logs and views of the contracts.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from consortium.govern import Decided
from consortium.trade import OWNERS, OWNERS_NEEDED
from fedtrade.chain.contracts import Membership
from fedtrade.chain.conversation import ask, read
from fedtrade.chain.deployment import ChainDeployment
from fedtrade.chain.logs import logs_between
from fedtrade.chain.mirrors import MIRRORED, RegistryMirror
from fedtrade.chain.rpc import Rpc
from fedtrade.dashboard import Governance, MessageTaken, MirrorReport, Proposal, SafeReport
from fedtrade.devnet.net import Devnet
from fedtrade.errors import Fault
from fedtrade.risk.limits import EPOCH_S
from fedtrade.venues.codec import LogShape, quantity
from fedtrade.venues.hyperlane import PROCESS_ID, VALIDATORS_AND_THRESHOLD
from fedtrade.venues.safe import IN_FORCE, ORDER_EXECUTED


def tell_governance(
    devnet: Devnet,
    decided: Decided,
    model_seconds: Mapping[str, float],
    parameters_seconds: Mapping[str, float],
    keys: Mapping[str, str],
) -> Governance:
    """Section 5 of the report. `keys`: chain to the address of its agent's key."""
    deployment = devnet.deployment
    home = deployment.chain(deployment.home)
    seats = ask(devnet.rpc(home.name), Membership(home.membership).member_count())
    mirrors = []
    for chain in deployment.chains:
        if chain is home:
            continue
        messages = _messages(devnet.rpc(chain.name), chain)
        heard_s = [message.taken_s for message in messages[1:]]
        ends_s = [*heard_s, devnet.anvil(chain.name).latest().timestamp_s]
        mirrors.append(
            MirrorReport(
                chain=chain.name,
                address=chain.registry,
                messages=messages,
                model_seconds=model_seconds[chain.name],
                parameters_seconds=parameters_seconds[chain.name],
                oldest_s=max(
                    end_s - message.sent_s for message, end_s in zip(messages, ends_s, strict=True)
                ),
            )
        )
    away = next(chain for chain in deployment.chains if chain is not home)
    validators, threshold = _believed(devnet.rpc(away.name), away)
    return Governance(
        validators=validators,
        signatures_needed=threshold,
        proposal=Proposal(
            id=decided.id,
            why=decided.why,
            changes=list(decided.changes),
            proposer=decided.proposer,
            in_favour=decided.in_favour,
            against=decided.against,
            seats=seats,
            needed=decided.needed,
            proposed_s=decided.proposed_s,
            queued_s=decided.queued_s,
            executed_s=decided.executed_s,
            transaction=decided.transaction,
        ),
        mirrors=mirrors,
        safes=[
            _safe(devnet.rpc(chain.name), chain, keys[chain.name]) for chain in deployment.chains
        ],
    )


def _believed(rpc: Rpc, chain: ChainDeployment) -> tuple[int, int]:
    """How many validators a mirror knows, and how many of them it asks for."""
    module = ask(rpc, RegistryMirror(chain.registry).state()).security_module
    ((validators, threshold),) = ask(
        rpc, read([(module, VALIDATORS_AND_THRESHOLD, (b"",))], "latest")
    )
    return len(validators), int(threshold)


def _messages(rpc: Rpc, chain: ChainDeployment) -> list[MessageTaken]:
    """What the mirror took, each with the id that the mailbox gave in the same transaction."""
    assert chain.messages is not None
    ids = {
        log["transactionHash"]: PROCESS_ID.decode(log)[0][0]
        for log in _logs(rpc, chain, chain.messages.mailbox, PROCESS_ID)
    }
    taken = []
    for log in _logs(rpc, chain, chain.registry, MIRRORED):
        (sequence,), (sent_s,) = MIRRORED.decode(log)
        block = rpc.call("eth_getBlockByNumber", log["blockNumber"], False)
        taken.append(
            MessageTaken(
                sequence=sequence,
                id="0x" + ids[log["transactionHash"]].hex(),
                sent_s=sent_s,
                taken_s=quantity(block["timestamp"]),
            )
        )
    return taken


def _safe(rpc: Rpc, chain: ChainDeployment, key: str) -> SafeReport:
    if (custody := chain.custody) is None:
        raise Fault(f"{chain.name}: the agent has no custody. See deployment.json")
    unit = 10**chain.quote.decimals
    ((limits, _, _),) = ask(rpc, read([(custody.breaker, IN_FORCE, ())], "latest"))
    spent: dict[str, float] = defaultdict(float)
    orders = _logs(rpc, chain, custody.breaker, ORDER_EXECUTED)
    for log in orders:
        (_, _, epoch), (sent_out,) = ORDER_EXECUTED.decode(log)
        day = datetime.fromtimestamp(epoch * EPOCH_S, UTC).strftime("%Y-%m-%d")
        spent[day] += sent_out / unit
    return SafeReport(
        chain=chain.name,
        safe=custody.safe,
        breaker=custody.breaker,
        key=key,
        owners=OWNERS,
        owners_needed=OWNERS_NEEDED,
        action_cap=limits[0],
        epoch_cap=limits[1],
        orders=len(orders),
        spent=dict(spent),
    )


def _logs(
    rpc: Rpc, chain: ChainDeployment, address: str, shape: LogShape
) -> list[Mapping[str, Any]]:
    newest = quantity(rpc.call("eth_blockNumber"))
    return ask(rpc, logs_between(address, [shape.topic], chain.from_block, newest))
