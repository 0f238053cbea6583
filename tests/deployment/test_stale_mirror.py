"""Custody on a chain that only follows: a real Safe, a real mirror, messages through real mailboxes.

Validators and relayer are this test's hands, so that it decides what arrives.
"""

from dataclasses import dataclass
from typing import Any

import pytest
from eth_account import Account

from fedtrade.chain.contracts import COORDINATOR, MEMBER, Membership, ModelRegistry, explain
from fedtrade.chain.conversation import ask, read
from fedtrade.chain.deployment import Custody
from fedtrade.chain.mirrors import RegistryBeacon, RegistryMirror
from fedtrade.chain.parameter_store import NothingMirrored, ParameterStore
from fedtrade.chain.pools import holdings, pool_snapshot
from fedtrade.chain.rpc import NodeRefused
from fedtrade.devnet.accounts import ARBITRAGEUR, GOVERNOR, NOISE_TRADER, OPERATOR, STATIC_LP
from fedtrade.devnet.artifacts import CUSTODY, fetch_packages
from fedtrade.devnet.custody import CustodyPlan, set_up, shared_code
from fedtrade.devnet.deploy import send
from fedtrade.devnet.net import Devnet
from fedtrade.venues import uniswap_v3 as v3
from fedtrade.venues.codec import Call
from fedtrade.venues.hyperlane import (
    DISPATCH,
    INSERTED,
    PROCESS,
    ROOT,
    Checkpoint,
    Message,
    metadata,
    word_of,
)
from fedtrade.venues.price_feed import encode_push
from fedtrade.venues.safe import NEXT_NONCE, BreakerLimits, encode_order

pytestmark = [pytest.mark.chain, pytest.mark.timeout(300)]

KEYS = sorted(
    (Account.from_key(bytes([n]) * 32) for n in range(1, 3)), key=lambda key: int(key.address, 16)
)
AGENT, MODEL = STATIC_LP, "ab" * 32
NEWS_MAX_S = 86_400
"""What governs by default; the Safe's owners allow more here."""


@dataclass
class Away:
    """A Safe on a following chain, the mirror that its breaker reads, and the home chain."""

    devnet: Devnet
    home: Any
    known: Any
    custody: Custody

    @property
    def rpc(self) -> Any:
        return self.devnet.rpc(self.known.name)

    @property
    def mirror(self) -> RegistryMirror:
        return RegistryMirror(self.known.messages.mirror)

    def deliver(self) -> None:
        """Post at home; sign and carry over as two validators and a relayer would."""
        rpc, at = self.devnet.rpc(self.home.name), self.home.messages
        beacon, domain = RegistryBeacon(at.beacon), self.known.messages.domain
        fee = ask(rpc, beacon.quote([domain]))
        receipt = send(rpc, GOVERNOR, beacon.post([domain], fee))
        logs = {log["topics"][0]: log for log in receipt["logs"]}
        _, (content,) = DISPATCH.decode(logs[DISPATCH.topic])
        _, (message_id, index) = INSERTED.decode(logs[INSERTED.topic])
        message = Message.decode(content)
        ((root,),) = ask(rpc, read([(at.merkle_tree_hook, ROOT, ())], "latest"))
        checkpoint = Checkpoint(
            message.origin, word_of(at.merkle_tree_hook), root, index, message_id
        )
        signed = [bytes(key.unsafe_sign_hash(checkpoint.digest).signature) for key in KEYS]
        proof = metadata(checkpoint, signed)
        mailbox = self.known.messages.mailbox
        send(self.rpc, NOISE_TRADER, Call(mailbox, PROCESS.encode(proof, message.encoded)))

    def later(self, seconds: int) -> None:
        """Both chains' clocks go on; the feed is fresh."""
        now = max(self.devnet.anvil(c.name).latest().timestamp_s for c in (self.home, self.known))
        for chain in (self.home, self.known):
            self.devnet.mine(chain.name, now + seconds)
        send(self.rpc, OPERATOR, encode_push(self.known.price_feed, round(self.price() * 10**8)))

    def pool(self) -> Any:
        block = self.devnet.anvil(self.known.name).latest().number
        return ask(self.rpc, pool_snapshot(self.known.pool_key(), block))

    def price(self) -> float:
        return float(self.known.pool_key().price(self.pool().sqrt_price_x96))

    def positions(self) -> Any:
        block, key = self.devnet.anvil(self.known.name).latest().number, self.known.pool_key()
        talk = holdings(key, self.known.position_manager, self.custody.safe, block)
        return ask(self.rpc, talk).positions

    def order(self, *calls: Call) -> Call:
        reads = [(self.custody.breaker, NEXT_NONCE, ())]
        ((nonce,),) = ask(self.rpc, read(reads, "latest"))
        deadline_s = self.devnet.anvil(self.known.name).latest().timestamp_s + 600
        return encode_order(self.custody.breaker, nonce, MODEL, deadline_s, calls)

    def tried(self, *calls: Call) -> str:
        """Send an order of the agent. Empty where it passed, else the name of the refusal."""
        order = self.order(*calls)
        try:
            self.rpc.call(
                "eth_call",
                {"from": AGENT, "to": order.to, "data": "0x" + order.data.hex()},
                "latest",
            )
        except NodeRefused as refused:
            return str(getattr(explain(refused), "error", refused.reason))
        send(self.rpc, AGENT, order)
        return ""

    def swap(self, sell_base: bool, amount: int) -> Call:
        key = self.known.pool_key()
        data = v3.encode_swap(key, self.custody.safe, sell_base == key.base_is_token0, amount)
        return Call(self.known.swap_router, data)

    def mint(self) -> Call:
        key, tick, spacing = self.known.pool_key(), self.pool().tick, self.known.tick_spacing
        middle = tick // spacing * spacing
        amounts = (10**7, 10_000 * 10**6) if key.base_is_token0 else (10_000 * 10**6, 10**7)
        data = v3.encode_provide(key, self.custody.safe, (middle - 600, middle + 600), amounts)
        return Call(self.known.position_manager, data)

    def removal(self) -> list[Call]:
        position = self.positions()[0]
        parts = v3.encode_removal(position.token_id, position.liquidity, self.custody.safe)
        parts.append(v3.BURN_TOKEN.encode(position.token_id))
        return [Call(self.known.position_manager, part) for part in parts]


def publish(devnet: Devnet, home: Any) -> None:
    """A model of one member, live at home."""
    registry, member, rpc = (
        ModelRegistry(home.model_registry),
        Account.create(),
        devnet.rpc("aster"),
    )
    membership = Membership(home.membership)
    for account, roles in ((member.address, MEMBER), (OPERATOR, COORDINATOR)):
        devnet.govern("aster", membership.admit(account, account, bytes(32), roles))
    seat = ask(rpc, membership.id_of_signer(member.address))
    opening = registry.open_release(1, b"\1" * 32, "00" * 32, 5, [seat], [])
    devnet.transact("aster", OPERATOR, opening)
    digest = ask(rpc, registry.digest(1, 1, MODEL, "file:a", 1000))
    signed = {member.address: bytes(member.unsafe_sign_hash(digest).signature)}
    devnet.transact("aster", OPERATOR, registry.publish(1, 1, MODEL, "file:a", 1000, signed))


@pytest.fixture
def away(chains: Devnet) -> Away:
    linked = chains.link([key.address for key in KEYS], 2)
    home, known = linked.chain("aster"), linked.chain("birch")
    publish(chains, home)
    mirror = known.messages.mirror
    plan = CustodyPlan(
        (Account.create().address,), 1, AGENT, ARBITRAGEUR, mirror, mirror,
        BreakerLimits(100_000, 1_000_000, 100, 300, 3_600, 30 * 86_400, 7 * 86_400),
    )  # fmt: skip
    rpc = chains.rpc("birch")
    shared = shared_code(fetch_packages(CUSTODY))
    custody = set_up(rpc, lambda call: send(rpc, GOVERNOR, call), GOVERNOR, known, plan, shared)
    chains.fund("birch", custody.safe, base=1.0, quote=100_000.0)
    found = Away(chains, home, known, custody)
    found.later(31)
    return found


def test_old_news_let_an_order_reduce_and_add_nothing(away: Away) -> None:
    with pytest.raises(NothingMirrored, match="no message of the home chain has arrived"):
        ask(away.rpc, ParameterStore(away.mirror.address).parameters())
    assert away.tried(away.mint()) == "BreakerModifier_Paused"  # nothing is known there yet
    away.deliver()
    assert ask(away.rpc, away.mirror.live()).sha256 == MODEL
    assert away.tried(away.mint()) == ""
    sent_s = ask(away.rpc, away.mirror.state()).sent_at_s
    away.later(NEWS_MAX_S - 300)
    assert away.tried(away.swap(False, 10**9)) == ""
    away.later(301)
    now_s = away.devnet.anvil("birch").latest().timestamp_s
    assert now_s - sent_s > NEWS_MAX_S
    assert ask(away.rpc, away.mirror.live()).sha256 == MODEL  # as far as it knows
    for adding in (away.mint(), away.swap(False, 10**9)):
        assert away.tried(adding) == "BreakerModifier_MirrorTooOld"
    assert away.tried(away.swap(True, 10**6)) == ""
    assert len(away.positions()) == 1
    assert away.tried(*away.removal()) == ""
    assert away.positions() == ()
    away.deliver()
    assert away.tried(away.mint()) == ""


def test_a_pause_at_home_stops_orders_here_when_it_arrives(away: Away) -> None:
    away.deliver()
    assert away.tried(away.mint()) == ""
    away.devnet.govern("aster", ParameterStore(away.home.parameters).pause())
    assert away.tried(away.swap(False, 10**9)) == ""  # nobody has said so here
    away.deliver()
    for order in ([away.mint()], [away.swap(True, 10**6)], away.removal()):
        assert away.tried(*order) == "BreakerModifier_Paused"
