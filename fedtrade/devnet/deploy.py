"""What is deployed on a local chain, and in which order.

Real: Uniswap v3 (factory, descriptor, position manager, router, quoter) from the pinned packages,
Hyperlane (`hyperlane.py`), and our own consortium on the home chain with a mirror on every other,
founded by the deployer of every other chain (`found`). Stand-ins: tokens (`DevToken`) and the price
feed (`LocalPriceFeed`), written by one operator in place of an oracle committee. The tokens are no
wrapped native tokens, so the venue's native-token paths are unused.

The pool starts at the plan's price with one full-range position of a background LP under it, which
is the market's depth. Time starts at `Genesis.start_s`, so that simulated market time is chain time.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from importlib.resources import files
from typing import Any, Final

from eth_abi.abi import encode
from eth_utils.address import to_checksum_address
from eth_utils.crypto import keccak

from fedtrade.chain.contracts import CONTRACTS, MEMBER
from fedtrade.chain.deploying import Deployer, establish
from fedtrade.chain.deployment import ChainSite, Deployment, TokenAt
from fedtrade.chain.plan import FoundingPlan, GovernancePlan, SeatPlan, SitePlan
from fedtrade.chain.rpc import NodeRefused, Rpc, from_hex
from fedtrade.chain.steps import Steps
from fedtrade.chain.transacting import Transaction
from fedtrade.devnet.accounts import (
    ARBITRAGEUR,
    BACKGROUND_LP,
    GOVERNOR,
    GUARDIAN,
    NOISE_TRADER,
    OPERATOR,
    STATIC_LP,
    STEWARD,
)
from fedtrade.devnet.anvil import Anvil
from fedtrade.devnet.artifacts import CORE, PERIPHERY, Artifacts
from fedtrade.errors import Fault
from fedtrade.venues.codec import Call, Function, quantity
from fedtrade.venues.uniswap_v3 import (
    CREATE_POOL,
    encode_approval,
    encode_provide,
    full_range,
    sqrt_price_x96,
)

GAS: Final = 12_000_000
NO_WRAPPED_NATIVE: Final = "0x000000000000000000000000000000000000dEaD"
FEED_DECIMALS: Final = 8
MINT_TOKEN: Final = Function("mint(address,uint256)")
GET_POOL: Final = Function("getPool(address,address,uint24)", "(address)")
BOTTOMLESS: Final = 10**15
"""Whole units of each token that the market's own accounts get: they never run out."""


@dataclass(frozen=True, slots=True)
class ChainPlan:
    """One chain before it exists."""

    name: str
    chain_id: int
    symbol: str
    decimals: int
    fee_pips: int
    tick_spacing: int
    base_is_token0: bool
    price: float
    """Quote per base at the start."""


@dataclass(frozen=True, slots=True)
class Genesis:
    """What all local chains begin with."""

    start_s: int = 1_749_686_400
    """Time of the first block: 2025-06-12 00:00 UTC, where the training data end."""
    depth_quote: int = 20_000_000
    """Whole quote units on each side of the background LP's full range."""
    activation_delay_s: int = 30
    """Shorter than the default of the parameter: a rehearsal does not wait for a day."""
    slippage_max_bps: int = 50
    """Of a swap against the feed's price, fee included: it has to leave room for the pools' fees."""
    voting_s: int = 300
    """Of the governor: how long votes are taken; they begin, and what is passed waits, a fifth."""
    home: str = "aster"

    def founding(self, seats: Sequence[SeatPlan] = ()) -> FoundingPlan:
        """The consortium of the home chain."""
        fifth = self.voting_s // 5
        how = GovernancePlan(
            voting_delay_s=fifth,
            voting_period_s=self.voting_s,
            late_quorum_s=fifth,
            timelock_delay_s=fifth,
            guardian=GUARDIAN,
            steward=STEWARD,
        )
        return FoundingPlan(
            governance=how,
            seats=tuple(seats),
            parameters={
                "activationDelayS": self.activation_delay_s,
                "slippageMaxBps": self.slippage_max_bps,
            },
        )


MARKETS: Final = (
    ChainPlan("aster", 31101, "WETH", 18, 500, 10, False, 2_770.0),
    ChainPlan("birch", 31102, "WBTC", 8, 500, 10, True, 107_800.0),
    ChainPlan("cedar", 31103, "SOL", 9, 3000, 60, True, 160.0),
)
"""The three local markets, with real prices of 2025-06-12 18:00 UTC."""


class Reverted(Fault):
    """A set-up transaction did not do what it is there for."""

    def __init__(self, what: str, reason: str) -> None:
        super().__init__(f"{what} failed on-chain ({reason}). Check the arguments.")
        self.what = what
        self.reason = reason


def contract_files() -> dict[str, bytes]:
    """Our compiled contracts as shipped: name to file content."""
    folder = files("fedtrade.chain") / "abi"
    return {name: (folder / f"{name}.json").read_bytes() for name in CONTRACTS}


def send(rpc: Rpc, sender: str, call: Call, gas: int = GAS) -> dict[str, Any]:
    """One transaction of an unlocked account on a chain that mines at once; gives its receipt."""
    return _send(rpc, {"from": sender, "to": call.to, "data": "0x" + call.data.hex(),
                       "value": hex(call.value_wei), "gas": hex(gas)}, "A transaction")  # fmt: skip


def deploy_site(chain: Anvil, plan: ChainPlan, genesis: Genesis, uniswap: Artifacts) -> ChainSite:
    """Deploy the market on an empty chain: what is there before a consortium comes."""
    deployer = _Deployer(chain.rpc, uniswap)
    base, quote = deployer.tokens(plan)
    factory = deployer.uniswap(CORE, "UniswapV3Factory.sol")
    library = deployer.uniswap(PERIPHERY, "libraries/NFTDescriptor.sol")
    descriptor = deployer.uniswap(
        PERIPHERY,
        "NonfungibleTokenPositionDescriptor.sol",
        encode(["address", "bytes32"], [NO_WRAPPED_NATIVE, b"ETH"]),
        NFTDescriptor=library,
    )
    venue = encode(["address", "address"], [factory, NO_WRAPPED_NATIVE])
    position_manager = deployer.uniswap(
        PERIPHERY,
        "NonfungiblePositionManager.sol",
        venue + encode(["address"], [descriptor]),
    )
    swap_router = deployer.uniswap(PERIPHERY, "SwapRouter.sol", venue)
    quoter = deployer.uniswap(PERIPHERY, "lens/QuoterV2.sol", venue)
    answer = round(plan.price * 10**FEED_DECIMALS)
    described = encode(
        ["uint8", "string", "int256"], [FEED_DECIMALS, f"{plan.symbol} / USDC", answer]
    )
    feed = deployer.ours("LocalPriceFeed", described, sender=OPERATOR)
    pool = deployer.pool(plan, base, quote, factory, position_manager)
    deployed = ChainSite(
        name=plan.name,
        chain_id=plan.chain_id,
        rpc_url=chain.url,
        ws_url=chain.ws_url,
        confirmations=1,
        price_feed=feed,
        feed_decimals=FEED_DECIMALS,
        base=base,
        quote=quote,
        pool=pool,
        fee_pips=plan.fee_pips,
        tick_spacing=plan.tick_spacing,
        factory=factory,
        position_manager=position_manager,
        swap_router=swap_router,
        quoter=quoter,
        keeps_time=False,
    )
    _endow(chain.rpc, deployed)
    _provide_depth(chain.rpc, deployed, plan, genesis)
    return deployed


def found(
    chains: Mapping[str, Anvil],
    sites: Sequence[SitePlan],
    genesis: Genesis,
    seats: Sequence[SeatPlan],
) -> Deployment:
    """Found the consortium with these seats; its members' signatures are what mirrors believe.

    Two thirds of the members have to have signed. Where nobody has a seat yet, the operator alone.
    """
    plan, steps = genesis.founding(seats), Steps()
    signers = [seat.signer for seat in plan.seats if seat.mask & MEMBER] or [OPERATOR]
    validators = sorted(signers, key=lambda address: int(address, 16))
    deployers = {}
    for site in sites:
        rpc = chains[site.name].rpc
        founder = Unlocked(rpc, GOVERNOR)
        deployers[site.name] = Deployer(rpc, site.name, site.chain_id, founder, steps)
    believed = (validators, (2 * len(validators) + 2) // 3)
    return establish(deployers, sites, genesis.home, plan, believed)


def mint_tokens(rpc: Rpc, token: TokenAt, account: str, whole_units: float) -> int:
    """Mint stand-in tokens to an account; gives the amount in the token's smallest unit."""
    amount = round(Fraction(whole_units) * Fraction(10) ** token.decimals)
    send(rpc, GOVERNOR, Call(token.address, MINT_TOKEN.encode(account, amount)))
    return amount


class Unlocked:
    """An account for which the node of a local chain signs."""

    def __init__(self, rpc: Rpc, address: str) -> None:
        self.address = address
        self._rpc = rpc

    def sign_transaction(self, transaction: Transaction) -> bytes:
        """The raw bytes of a signed transaction."""
        body = {
            name: hex(value) if isinstance(value, int) else value
            for name, value in transaction.items()
            if name != "data"
        }
        body |= {"from": self.address, "data": "0x" + transaction["data"].hex()}
        return from_hex(self._rpc.call("eth_signTransaction", body))


class _Deployer:
    """Sends creation transactions and knows where the bytecode comes from."""

    def __init__(self, rpc: Rpc, artifacts: Artifacts) -> None:
        self._rpc = rpc
        self._artifacts = artifacts
        self._ours = contract_files()

    def uniswap(self, package: str, member: str, arguments: bytes = b"", **libraries: str) -> str:
        code = self._artifacts.contract(package, member).linked(**libraries)
        return self._create(member, code + arguments, GOVERNOR)

    def ours(self, name: str, arguments: bytes, sender: str = GOVERNOR) -> str:
        code = bytes.fromhex(json.loads(self._ours[name])["bytecode"].removeprefix("0x"))
        return self._create(name, code + arguments, sender)

    def tokens(self, plan: ChainPlan) -> tuple[TokenAt, TokenAt]:
        """Deploy base and quote, in the order that gives the pool its token order."""
        nonce = quantity(self._rpc.call("eth_getTransactionCount", GOVERNOR, "latest"))
        first_is_token0 = _created(GOVERNOR, nonce) < _created(GOVERNOR, nonce + 1)
        kinds = [(plan.symbol, plan.decimals), ("USDC", 6)]
        if first_is_token0 != plan.base_is_token0:
            kinds.reverse()
        found = {}
        for symbol, decimals in kinds:
            named = encode(["string", "string", "uint8"], [f"Stand-in {symbol}", symbol, decimals])
            address = self.ours("DevToken", named)
            found[symbol] = TokenAt(address=address, symbol=symbol, decimals=decimals)
        return found[plan.symbol], found["USDC"]

    def pool(
        self, plan: ChainPlan, base: TokenAt, quote: TokenAt, factory: str, manager: str
    ) -> str:
        pair = [base, quote] if plan.base_is_token0 else [quote, base]
        price = sqrt_price_x96(plan.price, base.decimals, quote.decimals, plan.base_is_token0)
        where = (pair[0].address, pair[1].address, plan.fee_pips)
        send(self._rpc, GOVERNOR, Call(manager, CREATE_POOL.encode(*where, price)))
        (pool,) = GET_POOL.decode(self._rpc.eth_call(factory, GET_POOL.encode(*where)))
        return to_checksum_address(pool)

    def _create(self, name: str, code: bytes, sender: str) -> str:
        body = {"from": sender, "data": "0x" + code.hex(), "gas": hex(GAS)}
        return to_checksum_address(_send(self._rpc, body, f"Deploying {name}")["contractAddress"])


def _created(sender: str, nonce: int) -> bytes:
    """The address of the contract that this transaction creates: keccak(rlp([sender, nonce]))."""
    number = b"" if nonce == 0 else nonce.to_bytes((nonce.bit_length() + 7) // 8, "big")
    item = number if len(number) == 1 and nonce < 0x80 else bytes([0x80 + len(number)]) + number
    content = bytes([0x94]) + bytes.fromhex(sender[2:]) + item
    return keccak(bytes([0xC0 + len(content)]) + content)[12:]


def _endow(rpc: Rpc, chain: ChainSite) -> None:
    """Give the market's own accounts tokens, and let the venue take them."""
    for account in (ARBITRAGEUR, NOISE_TRADER, BACKGROUND_LP, STATIC_LP):
        for token in (chain.base, chain.quote):
            mint_tokens(rpc, token, account, BOTTOMLESS)
            for spender in (chain.position_manager, chain.swap_router):
                send(rpc, account, encode_approval(token.address, spender))


def _provide_depth(rpc: Rpc, chain: ChainSite, plan: ChainPlan, genesis: Genesis) -> None:
    key = chain.pool_key()
    base = round(genesis.depth_quote / plan.price * 10**chain.base.decimals)
    quote = genesis.depth_quote * 10**chain.quote.decimals
    amounts = (base, quote) if key.base_is_token0 else (quote, base)
    data = encode_provide(key, BACKGROUND_LP, full_range(key.tick_spacing), amounts)
    send(rpc, BACKGROUND_LP, Call(chain.position_manager, data))


def _send(rpc: Rpc, body: dict[str, str], what: str) -> dict[str, Any]:
    receipt: dict[str, Any] = rpc.call("eth_sendTransactionSync", body)
    if receipt["status"] != "0x1":
        try:
            rpc.call("eth_call", body, "latest")
        except NodeRefused as error:
            raise Reverted(what, f"{error.reason} {error.data}".strip()) from error
        raise Reverted(what, "no reason is given")
    return receipt
