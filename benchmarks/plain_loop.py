"""What one would write without us: read the chain at each head with web3.py, decide, build, sign.

The counterpart of `head_to_signed`. It asks the node for everything it needs, one call after
another over a kept-alive connection, as web3.py does by itself; fees, gas, chain id and nonce come
from `build_transaction` and `get_transaction_count`.
"""

from __future__ import annotations

from importlib.resources import files
from json import loads
from typing import Any

from eth_account import Account
from web3 import HTTPProvider, Web3

from clients.keys import MemberKeys
from fedtrade.chain.deployment import ChainDeployment
from fedtrade.devnet.artifacts import PERIPHERY, fetch, package_folder
from fedtrade.market.tick_math import amounts_for_liquidity

SLIPPAGE = 0.003
UINT128_MAX = 2**128 - 1


def _view(name: str, *outputs: str) -> dict[str, Any]:
    return {
        "type": "function",
        "name": name,
        "stateMutability": "view",
        "inputs": [],
        "outputs": [{"name": "", "type": kind} for kind in outputs],
    }


POOL_ABI = [
    _view("slot0", "uint160", "int24", "uint16", "uint16", "uint16", "uint8", "bool"),
    _view("liquidity", "uint128"),
]


class PlainLoop:
    """A loop over heads that withdraws its position once the price has left its range."""

    def __init__(self, chain: ChainDeployment, keys: MemberKeys) -> None:
        self._w3 = Web3(HTTPProvider(chain.rpc_url))
        self._account: Any = Account.from_key(keys._signing.secret)
        self._pool = self._contract(chain.pool, POOL_ABI)
        self._manager = self._contract(
            chain.position_manager, _packaged("NonfungiblePositionManager.sol")
        )
        self._feed = self._contract(chain.price_feed, _own("LocalPriceFeed"))
        self._registry = self._contract(chain.registry, _own("ModelRegistry"))
        self._tokens = [
            self._contract(token.address, _own("DevToken")) for token in (chain.base, chain.quote)
        ]

    def _contract(self, address: str, abi: Any) -> Any:
        return self._w3.eth.contract(Web3.to_checksum_address(address), abi=abi)

    def on_head(self) -> bytes:
        """The signed bytes of a withdrawal, or nothing where the position is in range."""
        me = self._account.address
        head = self._w3.eth.get_block("latest")
        sqrt_price, tick, *_ = self._pool.functions.slot0().call()
        self._pool.functions.liquidity().call()
        self._feed.functions.latestRoundData().call()
        self._registry.functions.live().call()
        for token in self._tokens:
            token.functions.balanceOf(me).call()
        if not self._manager.functions.balanceOf(me).call():
            return b""
        token_id = self._manager.functions.tokenOfOwnerByIndex(me, 0).call()
        position = self._manager.functions.positions(token_id).call()
        lower, upper, liquidity = position[5:8]
        if lower <= tick < upper:
            return b""
        amounts = amounts_for_liquidity(sqrt_price, lower, upper, liquidity, False)
        least = [int(a * (1 - SLIPPAGE)) for a in amounts]
        deadline = head["timestamp"] + 600
        encode = self._manager.encode_abi
        calls = [
            encode("decreaseLiquidity", [(token_id, liquidity, *least, deadline)]),
            encode("collect", [(token_id, me, UINT128_MAX, UINT128_MAX)]),
            encode("burn", [token_id]),
        ]
        nonce = self._w3.eth.get_transaction_count(me)
        built = self._manager.functions.multicall(calls).build_transaction(
            {"from": me, "nonce": nonce}
        )
        return bytes(self._account.sign_transaction(built).raw_transaction)


def _packaged(member: str) -> Any:
    """The ABI of a published contract, from the same pinned packages as the local chains."""
    folder = package_folder(fetch().folder, PERIPHERY) / "artifacts/contracts" / member
    return loads((folder / f"{folder.stem}.json").read_text())["abi"]


def _own(name: str) -> Any:
    return loads((files("fedtrade.chain") / "abi" / f"{name}.json").read_text())["abi"]
