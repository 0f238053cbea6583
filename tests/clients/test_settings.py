"""Settings: read strictly, paths beside the file, limits inside their hard bounds."""

from __future__ import annotations

from pathlib import Path

import pytest

from clients.settings import ExecutionSettings
from fedtrade.chain.deployment import ChainDeployment, Deployment, TokenAt
from fedtrade.errors import BadInput, Refusal

GOOD = """
deployment = "deployment.json"
chain = "aster"
keys = "keys"
artifact = "model.safetensors"
folder = "run"
[agent]
capital_quote = 1000.0
native_price_quote = 2700
[history]
candles = "h.parquet"
notional_scale = 0.5
[limits]
drawdown_halt_bps = 700
gas_price_max_wei = 50000000000
[fees]
confirmations = 2
"""


def address(n: int) -> str:
    return f"0x{n:040x}"


def written(tmp_path: Path, text: str = GOOD) -> Path:
    chain = ChainDeployment(
        name="aster", chain_id=1, rpc_url="http://x", ws_url="ws://x", membership=address(1),
        model_registry=address(2), price_feed=address(3), feed_decimals=8,
        base=TokenAt(address=address(5), symbol="WETH", decimals=18),
        quote=TokenAt(address=address(4), symbol="USDC", decimals=6), pool=address(6),
        fee_pips=500, tick_spacing=10, factory=address(7), position_manager=address(8),
        swap_router=address(9), quoter=address(10),
    )  # fmt: skip
    Deployment(chains=(chain,), home="aster").save(tmp_path / "deployment.json")
    path = tmp_path / "agent.toml"
    path.write_text(text)
    return path


def test_a_good_file_gives_all_that_an_agent_is_told(tmp_path: Path) -> None:
    settings = ExecutionSettings.load(written(tmp_path))
    assert settings.folder == tmp_path / "run"
    assert settings.history is not None
    assert settings.history.candles == tmp_path / "h.parquet"
    agent = settings.agent_settings()
    assert (agent.chain, agent.feed, agent.key.base_is_token0) == ("aster", address(3), False)
    assert (agent.capital_quote, agent.cooldown_s) == (1000.0, 900)
    assert agent.limits.drawdown_halt_bps == 700
    fees = settings.fee_settings()
    assert (fees.confirmations, fees.cap_wei) == (2, 50 * 10**9)


@pytest.mark.parametrize(
    ("before", "after", "said"),
    [
        ('keys = "keys"', 'keys = "keys"\nskip = true', "skip"),
        ('keys = "keys"\n', "", "keys"),
        ("capital_quote = 1000.0", "capital_quote = nan", "capital_quote"),
        ("capital_quote = 1000.0", "capital_quote = -1", "capital_quote"),
        ("capital_quote = 1000.0", 'capital_quote = "much"', "capital_quote"),
        ("drawdown_halt_bps = 700", "drawdown_halt_bps = 2001", "drawdown_halt_bps"),
        ("drawdown_halt_bps = 700", "drawdown_halt = 700", "drawdown_halt"),
        ("drawdown_halt_bps = 700", "drawdown_halt_bps = 100", "drawdown_reduce_bps"),
        ("confirmations = 2", "confirmations = 65", "confirmations"),
        ("notional_scale = 0.5", "notional_scale = 0", "notional_scale"),
        ('chain = "aster"', 'chain = "other"', "not deployed"),
        ("[agent]", "[agent", "TOML"),
    ],
)
def test_what_is_wrong_is_named(tmp_path: Path, before: str, after: str, said: str) -> None:
    assert before in GOOD
    path = written(tmp_path, GOOD.replace(before, after))

    def read() -> None:
        settings = ExecutionSettings.load(path)
        settings.agent_settings()
        settings.fee_settings()

    with pytest.raises(Refusal, match=said):
        read()


def test_a_missing_file_is_said(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="cannot read"):
        ExecutionSettings.load(tmp_path / "none")
