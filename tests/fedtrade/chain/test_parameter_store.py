"""The parameter store through its bindings: written against the ABI, tried on a chain."""

import json
from importlib.resources import files

import pytest
from eth_abi.abi import encode

from fedtrade.chain import parameter_store
from fedtrade.chain.contracts import ContractRefused, ModelRegistry
from fedtrade.chain.conversation import ask
from fedtrade.chain.parameter_store import ParameterStore
from fedtrade.devnet.accounts import ARBITRAGEUR, GOVERNOR, NOISE_TRADER
from fedtrade.governed import Governed, OutOfBounds
from fedtrade.steering import INTERIM_S, StepTooFar
from fedtrade.venues.codec import Function

GUARDIAN, STEWARD = ARBITRAGEUR, NOISE_TRADER


def test_every_binding_is_in_the_abi():
    text = (files("fedtrade.chain") / "abi" / "ParameterStore.json").read_text()
    compiled = {}
    for entry in json.loads(text)["abi"]:
        if entry["type"] == "function":
            inputs = ",".join(part["type"] for part in entry["inputs"])
            outputs = ",".join(part["type"] for part in entry["outputs"])
            compiled[f"{entry['name']}({inputs})"] = f"({outputs})"
    bound = [value for value in vars(parameter_store).values() if isinstance(value, Function)]
    assert len(bound) == 11
    for function in bound:
        assert function.returns == compiled[function.signature], function.signature


@pytest.mark.chain
class TestOnChain:
    @pytest.fixture
    def store(self, chain):
        """The home chain's store, with a guardian and a steward."""
        registry = ModelRegistry(chain.deployment.model_registry)
        store = ParameterStore(ask(chain.rpc, registry.parameter_store()))
        name = chain.deployment.name
        chain.devnet.transact(name, GOVERNOR, store.set_guardian(GUARDIAN))
        chain.devnet.transact(name, GOVERNOR, store.set_steward(STEWARD))
        return store

    @pytest.fixture
    def act(self, chain):
        return lambda sender, call: chain.devnet.transact(chain.deployment.name, sender, call)

    def test_each_office(self, chain, store, act):
        act(GOVERNOR, store.set({"gasPriceMaxGwei": 600, "quorumBps": 6_000}))
        act(STEWARD, store.steer({"gasPriceMaxGwei": 700}))
        act(GUARDIAN, store.tighten({"slippageMaxBps": 40}))
        found = ask(chain.rpc, store.parameters())
        assert found.governed.gas_price_max_gwei == 700
        assert found.governed.quorum_bps == 6_000
        assert found.governed.slippage_max_bps == 40
        assert found.as_of_s == chain.anvil.latest().timestamp_s
        act(GUARDIAN, store.veto())
        act(GUARDIAN, store.pause())
        found = ask(chain.rpc, store.parameters())
        assert (found.governed.gas_price_max_gwei, found.paused) == (600, True)
        act(GOVERNOR, store.unpause())
        assert not ask(chain.rpc, store.parameters()).paused

    def test_what_is_foreseen_is_what_happens(self, chain, store, act):
        changes = {"oracleAgeMaxS": 4_200, "gasPriceMaxGwei": 400}
        before = ask(chain.rpc, store.standing())
        assert before.interim is None
        act(STEWARD, store.steer(changes))
        now_s = chain.anvil.latest().timestamp_s
        assert ask(chain.rpc, store.standing()) == before.after_steer(changes, now_s)
        chain.anvil.mine(now_s + INTERIM_S)
        after = ask(chain.rpc, store.standing())
        assert after.governed == before.governed
        assert after.interim is None

    def test_a_refusal_is_foreseen_and_explained(self, chain, store, act):
        standing = ask(chain.rpc, store.standing())
        with pytest.raises(StepTooFar):
            standing.after_steer({"gasPriceMaxGwei": 2_000}, 1_750_000_000)
        with pytest.raises(ContractRefused, match="from 500 to 2000 at once") as refused:
            act(STEWARD, store.steer({"gasPriceMaxGwei": 2_000}))
        assert refused.value.error == "ParameterStore_StepTooFar"
        with pytest.raises(ContractRefused, match="joint rule 9"):
            act(GOVERNOR, store.set({"oracleDeviationMaxBps": 100}))
        with pytest.raises(ContractRefused, match="whatever the votes"):
            act(GOVERNOR, store.set({"quorumBps": 5_000}))

    def test_the_registry_obeys(self, chain, store, act):
        registry = ModelRegistry(chain.deployment.model_registry)
        assert ask(chain.rpc, registry.earliest_opening_s()) == 0
        act(GOVERNOR, store.set({"epsilonTotalMicro": 9_000_000}))
        assert ask(chain.rpc, registry.epsilon_micro()) == (0, 9_000_000)


def test_values_that_no_store_can_hold_are_refused():
    """A node that lies, or a contract that is none of ours."""
    conversation = ParameterStore("0x" + "11" * 20).parameters()
    next(conversation)
    values = list(Governed().values)
    values[10] = 100  # a quorum of one in a hundred
    answer = encode(["uint64[28]", "bool", "uint64"], [values, False, 0])
    with pytest.raises(OutOfBounds, match="quorumBps cannot be 100"):
        conversation.send(["0x" + answer.hex()])
