"""`fedtrade-member custody`: an operator's Safe, set up with the agent's key on a real chain."""

from __future__ import annotations

import io
import sys
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from eth_account import Account

from clients import cli
from clients.custody import TEMPLATE, CustodySettings
from clients.keys import MemberKeys
from fedtrade.chain.conversation import ask, read
from fedtrade.chain.deployment import Deployment
from fedtrade.errors import BadInput
from fedtrade.venues.codec import Function, quantity
from fedtrade.venues.safe import HALTED, OWNERS, SAFE_NONCE


@dataclass(frozen=True)
class Done:
    code: int
    out: str
    err: str


def member(*words: object) -> Done:
    """Run the command in this process, as its entry point would."""
    out, err, argv, code = io.StringIO(), io.StringIO(), sys.argv, 0
    sys.argv = ["x", "custody", *map(str, words)]
    try:
        with redirect_stdout(out), redirect_stderr(err):
            cli.main()
    except SystemExit as left:
        code = int(left.code or 0)
    finally:
        sys.argv = argv
    return Done(code, out.getvalue(), err.getvalue())


def test_the_template_is_complete_and_says_what_is_to_be_filled_in(tmp_path: Path) -> None:
    printed = member("template")
    assert printed.out == TEMPLATE
    path = tmp_path / "custody.toml"
    path.write_text(printed.out)
    with pytest.raises(BadInput, match="40 hex digits"):
        CustodySettings.load(path)
    given = TEMPLATE
    for number in range(6):
        given = given.replace("<40 hex digits>", f"{number:040x}", 1)
    path.write_text(given)
    loaded = CustodySettings.load(path)
    assert loaded.keys == tmp_path / "keys"
    assert len(loaded.owners) == loaded.threshold == 2
    path.write_text(given + "slipage_max_bps = 1\n")
    with pytest.raises(BadInput, match=r"limits\.slipage_max_bps"):
        CustodySettings.load(path)


@dataclass
class Operator:
    chain: Any
    folder: Path
    keys: MemberKeys
    guardian: MemberKeys
    owners: list[str]

    def settings(self, name: str = "custody.toml", **changed: object) -> Path:
        registry = self.chain.deployment.model_registry
        parameters = Function("parameterStore()", "(address)")
        ((store,),) = ask(self.chain.rpc, read([(registry, parameters, ())], "latest"))
        fields = {
            "deployment": "deployment.json", "chain": self.chain.deployment.name, "keys": "keys",
            "out": "mine.json", "owners": self.owners, "threshold": 2,
            "guardian": self.guardian.address, "parameters": store, **changed,
        }  # fmt: skip
        limits = TEMPLATE[TEMPLATE.index("[limits]") :]
        lines = [f"{k} = {v!r}" for k, v in fields.items()]
        path = self.folder / name
        path.write_text("\n".join([*lines, limits]))
        return path

    def view(self, to: str, function: Function) -> Any:
        return ask(self.chain.rpc, read([(to, function, ())], "latest"))[0][0]


@pytest.fixture
def operator(chain: Any, tmp_path: Path) -> Operator:
    keys = MemberKeys.create(tmp_path / "keys")
    guardian = MemberKeys.create(tmp_path / "guardian")
    for one in (keys, guardian):
        chain.anvil.set_balance(one.address, 10**18)
    Deployment(chains=chain.devnet.deployment.chains, home=chain.deployment.name).save(
        tmp_path / "deployment.json"
    )
    owners = [Account.create().address for _ in range(3)]
    return Operator(chain, tmp_path, keys, guardian, owners)


@pytest.mark.chain
def test_set_up_check_and_halt(operator: Operator) -> None:
    settings = operator.settings()
    done = member("set-up", settings)
    assert done.code == 0, done.err
    deployment = Deployment.load(operator.folder / "mine.json")
    found = deployment.chain(operator.chain.deployment.name).custody
    assert found is not None
    assert found.safe in done.out
    assert [chain.custody for chain in deployment.chains].count(None) == 2
    assert sorted(operator.view(found.safe, OWNERS)) == sorted(a.lower() for a in operator.owners)
    assert operator.view(found.safe, SAFE_NONCE) == 1

    assert member("check", settings).code == 0
    spent = quantity(
        operator.chain.rpc.call("eth_getTransactionCount", operator.keys.address, "latest")
    )
    again = member("set-up", settings)
    assert again.code == 0
    assert spent == 11
    assert (
        quantity(
            operator.chain.rpc.call("eth_getTransactionCount", operator.keys.address, "latest")
        )
        == spent
    )  # everything was there

    changed = member("check", operator.settings("other.toml", threshold=1))
    assert changed.code == 4
    assert "the Safe's threshold is 2, the plan says 1" in changed.err
    assert member("halt", settings).code == 2  # the agent is not the guardian
    assert operator.view(found.breaker, HALTED) is False
    watch = operator.settings("watch.toml", keys="guardian", agent=operator.keys.address)
    assert member("check", watch).code == 0
    done = member("halt", watch)
    assert done.code == 0, done.err
    assert operator.view(found.breaker, HALTED) is True


@pytest.mark.chain
def test_mistakes_are_one_sentence(operator: Operator) -> None:
    owner = [operator.keys.address, *operator.owners]
    wrong = {
        "the agent's key is one of them": {"owners": owner},
        "not in 1..3": {"threshold": 4},
        "no custody": {"out": "deployment.json"},
        "is not deployed": {"chain": "zircon"},
    }
    for words, changed in wrong.items():
        command = "check" if "out" in changed else "set-up"
        done = member(command, operator.settings(**changed))
        assert done.code == 2, words
        assert words in done.err
        assert "Traceback" not in done.err
    assert not (operator.folder / "mine.json").exists()
    assert operator.chain.rpc.call(
        "eth_getTransactionCount", operator.keys.address, "latest") == "0x0"  # fmt: skip
