"""Settings: read strictly, paths beside the file, limits inside their hard bounds."""

from __future__ import annotations

import re
from pathlib import Path
from typing import get_args

import pytest
from pydantic import BaseModel

from clients.floor import Floor
from clients.settings import (
    MEMBER_TEMPLATE,
    ExecutionSettings,
    HelperPolicy,
    MemberSettings,
)
from fedtrade.chain.deployment import ChainDeployment, ConsortiumAt, Deployment, TokenAt
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
    consortium = ConsortiumAt(
        membership=address(1), parameter_store=address(11), model_registry=address(2),
        timelock=address(12), governor=address(13),
    )  # fmt: skip
    chain = ChainDeployment(
        name="aster", chain_id=1, rpc_url="http://x", ws_url="ws://x", registry=address(2),
        parameters=address(11), consortium=consortium, price_feed=address(3), feed_decimals=8,
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
    fees = settings.fee_settings(13)
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
        settings.fee_settings(13)

    with pytest.raises(Refusal, match=said):
        read()


def test_a_missing_file_is_said(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="cannot read"):
        ExecutionSettings.load(tmp_path / "none")


MEMBER = """
folder = "run"
keys = "."
positions = "positions.csv"
until = 2025-06-12T00:00:00Z
[seats]
member = 3
helper = 3
[coordinator]
address = "ADDRESS"
url = "https://127.0.0.1:9443"
ca_file = "ca.crt"
[home_chain]
rpc_url = "http://127.0.0.1:8545"
chain_id = 31101
membership = "ADDRESS"
registry = "ADDRESS"
[floor]
epsilon_limit = 4.0
""".replace("ADDRESS", "0x" + "ab" * 20)


def member_file(tmp_path: Path, text: str = MEMBER) -> Path:
    path = tmp_path / "member.toml"
    path.write_text(text)
    return path


def test_a_members_file_gives_seats_floor_and_absolute_paths(tmp_path: Path) -> None:
    settings = MemberSettings.load(member_file(tmp_path))
    assert settings.seats.roles == {"member": 3, "helper": 3}
    assert settings.ledger == tmp_path / "run" / "ledger.jsonl"
    assert settings.coordinator.ca_file == tmp_path / "ca.crt"
    assert settings.until is not None
    assert settings.until.timestamp() == 1_749_686_400
    assert (settings.floor.epsilon_limit, settings.floor.corrupt_min) == (4.0, 1)
    assert settings.helper.cohort_min == 3


@pytest.mark.parametrize(
    ("before", "after", "said"),
    [
        ("epsilon_limit", "epsilon_limt", "floor.epsilon_limt"),
        ("epsilon_limit = 4.0", "epsilon_limit = 21.0", "floor.epsilon_limit"),
        ("epsilon_limit = 4.0", "epsilon_limit = nan", "floor.epsilon_limit"),
        ("member = 3\nhelper = 3\n", "", "seats"),
        ("member = 3", "member = -1", "seats.member"),
        ('positions = "positions.csv"\n', "", "positions"),
        ("2025-06-12T00:00:00Z", "2025-06-12T00:00:00", "until"),
        ("https://127", "http://127", "coordinator.url"),
        (":9443", ":9443/path", "coordinator.url"),
        ("127.0.0.1:9443", "user@host", "coordinator.url"),
        ('ca_file = "ca.crt"\n', "", "coordinator.ca_file"),
        ("[home_chain]", 'approved_terms = ["x"]\n[home_chain]', "coordinator.approved_terms"),
        ('folder = "run"', f'folder = "run"\napproved_terms = ["{"0" * 64}"]', "approved_terms"),
        ("chain_id = 31101", "chain_id = 0", "home_chain.chain_id"),
        ("[floor]", "[helper]\ncohort_min = 2\n[floor]", "helper.cohort_min"),
    ],
)
def test_what_is_wrong_in_a_members_file_is_named(
    tmp_path: Path, before: str, after: str, said: str
) -> None:
    assert before in MEMBER
    with pytest.raises(BadInput, match=said):
        MemberSettings.load(member_file(tmp_path, MEMBER.replace(before, after, 1)))


def test_a_helper_needs_no_positions_and_a_consortium_no_chain(tmp_path: Path) -> None:
    text = MEMBER.replace('positions = "positions.csv"\n', "").replace("member = 3\n", "")
    chain = text[text.index("[home_chain]") : text.index("[floor]")]
    text = f'approved_terms = ["{"0" * 64}"]\n' + text.replace(chain, "")
    settings = MemberSettings.load(member_file(tmp_path, text))
    assert settings.seats.roles == {"helper": 3}
    assert settings.home_chain is None


def test_the_template_is_good_once_it_is_filled_in(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match=r"coordinator\.address"):
        MemberSettings.load(member_file(tmp_path, MEMBER_TEMPLATE))
    filled = MEMBER_TEMPLATE.replace("<40 hex digits>", "ab" * 20).replace(
        "<host>:<port>", "host.example:9443"
    )
    settings = MemberSettings.load(member_file(tmp_path, filled))
    assert settings.floor == Floor()
    assert settings.helper == HelperPolicy()
    chainless = filled[: filled.index("\n[home_chain]")] + filled[filled.index("\n[floor]") :]
    for line in ("# until", "# approved_terms", "# helper", "# [supernode]", "# address", "# node"):
        assert line in chainless
        chainless = chainless.replace(line, line[2:])
    everything = chainless.replace("<64 hex digits>", "0" * 64)
    full = MemberSettings.load(member_file(tmp_path, everything))
    assert full.supernode is not None
    assert full.approved_terms == ("0" * 64,)


def test_the_template_names_every_field() -> None:
    def names(kind: type[BaseModel]) -> set[str]:
        found = set(kind.model_fields)
        for field in kind.model_fields.values():
            for part in (field.annotation, *get_args(field.annotation)):
                if isinstance(part, type) and issubclass(part, BaseModel):
                    found |= names(part)
        return found

    for name in names(MemberSettings):
        assert re.search(rf"(^|# |\[){name}( =|\])", MEMBER_TEMPLATE, re.M), name
