"""Our contracts through their bindings: written against the ABI, tried on a chain."""

import json
from importlib.resources import files

import pytest
from eth_abi import encode
from hypothesis import given
from hypothesis import strategies as st

from fedtrade.chain import contracts
from fedtrade.chain.contracts import (
    COORDINATOR,
    HELPER,
    MEMBER,
    ContractRefused,
    Membership,
    ModelRegistry,
    explain,
    known_errors,
)
from fedtrade.chain.conversation import ask
from fedtrade.chain.rpc import NodeRefused
from fedtrade.devnet.accounts import ARBITRAGEUR, GOVERNOR, NOISE_TRADER, OPERATOR
from fedtrade.venues.codec import Function

REGISTRY = ModelRegistry("0x" + "11" * 20)


def canonical(parameter):
    """An ABI parameter's type as signatures write it."""
    kind = parameter["type"]
    if not kind.startswith("tuple"):
        return kind
    inner = ",".join(canonical(part) for part in parameter["components"])
    return f"({inner}){kind.removeprefix('tuple')}"


def compiled_functions():
    found = {}
    for name in ("Membership", "ModelRegistry"):
        text = (files("fedtrade.chain") / "abi" / f"{name}.json").read_text()
        for entry in json.loads(text)["abi"]:
            if entry["type"] == "function":
                inputs = ",".join(map(canonical, entry["inputs"]))
                outputs = ",".join(map(canonical, entry["outputs"]))
                found[f"{entry['name']}({inputs})"] = f"({outputs})"
    return found


def test_every_binding_is_in_the_abi():
    compiled = compiled_functions()
    bound = [value for value in vars(contracts).values() if isinstance(value, Function)]
    assert len(bound) > 20
    for function in bound:
        outputs = compiled[function.signature]
        if function.returns != "()":
            assert function.returns == outputs, function.signature


@given(st.dictionaries(st.integers(1, 2**160 - 1), st.binary(min_size=65, max_size=65), max_size=5))
def test_signatures_are_ordered_by_signer(signatures):
    by_address = {f"0x{signer:040X}": signature for signer, signature in signatures.items()}
    call = REGISTRY.publish(1, 2, "ab" * 32, "u", 3, by_address)
    sent = contracts.PUBLISH.decode_input(call.data)
    assert list(sent[5]) == [signatures[signer] for signer in sorted(signatures)]


def test_seats_are_sent_ascending():
    call = REGISTRY.open_release(1, b"\1" * 32, "00" * 32, 5, [3, 1, 2], [9, 4])
    assert contracts.OPEN_RELEASE.decode_input(call.data)[4:] == ((1, 2, 3), (4, 9))


@pytest.mark.parametrize("selector", sorted(known_errors()))
def test_every_known_error_is_explained(selector):
    shape = known_errors()[selector]
    zeros = {"string": "", "bytes": b"", "bytes32": b"\0" * 32, "address": "0x" + "00" * 20}
    values = [zeros.get(kind, 0) for _, kind in shape.arguments]
    data = selector + encode([kind for _, kind in shape.arguments], values)
    refused = explain(NodeRefused("eth_call", 3, "reverted", "0x" + data.hex()))
    assert isinstance(refused, ContractRefused)
    assert refused.error == shape.name
    assert "{" not in refused.message


@pytest.mark.parametrize("data", ["", "0x", "0x12345678", "0x" + "00" * 36])
def test_other_reverts_stay_what_they_are(data):
    error = NodeRefused("eth_call", 3, "execution reverted: SPL", data)
    assert explain(error) is error


def test_a_cut_error_stays_what_it_is():
    selector = next(s for s, shape in known_errors().items() if shape.arguments)
    error = NodeRefused("eth_call", 3, "reverted", "0x" + selector.hex())
    assert explain(error) is error


@pytest.mark.chain
class TestOnChain:
    @pytest.fixture
    def consortium(self, chain):
        """Three members of which one helps, and a coordinator; gives a sender by name."""
        name, seats = chain.deployment.name, Membership(chain.deployment.membership)
        roster = [
            (OPERATOR, MEMBER | HELPER, b"\1" * 32),
            (ARBITRAGEUR, MEMBER, b"\2" * 32),
            (NOISE_TRADER, COORDINATOR, b"\0" * 32),
        ]
        for account, roles, key in roster:
            chain.devnet.govern(name, seats.admit(account, account, key, roles))
        return lambda sender, call: chain.devnet.transact(name, sender, call)

    @pytest.fixture
    def decided(self, chain):
        """What members have passed."""
        return lambda call: chain.devnet.govern(chain.deployment.name, call)

    def test_seats(self, chain, consortium, decided):
        seats = Membership(chain.deployment.membership)
        first, second = ask(chain.rpc, seats.seats([1, 2]))
        assert (first.account, first.roles, first.x25519) == (OPERATOR, 3, b"\1" * 32)
        assert ask(chain.rpc, seats.seat(2)) == second
        assert ask(chain.rpc, seats.id_of_signer(ARBITRAGEUR)) == 2
        assert ask(chain.rpc, seats.id_of_signer(GOVERNOR)) == 0
        assert ask(chain.rpc, seats.member_count()) == 2
        assert ask(chain.rpc, seats.last_seat_id()) == 3
        decided(seats.update(2, ARBITRAGEUR, b"\3" * 32, MEMBER | HELPER))
        assert ask(chain.rpc, seats.seat(2)).x25519 == b"\3" * 32
        decided(seats.expel(1))
        assert ask(chain.rpc, seats.member_count()) == 1

    def test_a_release_and_its_manifests(self, chain, consortium):
        registry = ModelRegistry(chain.deployment.model_registry)
        consortium(NOISE_TRADER, registry.open_release(4, b"\7" * 32, "cd" * 32, 3, [2, 1], [1]))
        release = ask(chain.rpc, registry.release(4))
        assert (release.coordinator_id, release.policy_hash) == (3, b"\7" * 32)
        assert (release.base_sha256, release.rounds, release.state) == ("cd" * 32, 3, 1)
        assert release.signatures_needed == 2
        assert not ask(chain.rpc, registry.has_manifest(4, 1))
        assert ask(chain.rpc, registry.manifest_of(4, 1)) == b"\0" * 32
        consortium(NOISE_TRADER, registry.post_manifest(4, 1, b"\5" * 32))
        assert ask(chain.rpc, registry.has_manifest(4, 1))
        assert ask(chain.rpc, registry.manifest_of(4, 1)) == b"\5" * 32
        assert ask(chain.rpc, registry.latest_release()) == 4
        assert ask(chain.rpc, registry.latest_version()) == 0
        assert ask(chain.rpc, registry.epsilon_micro()) == (0, 20_000_000)
        consortium(NOISE_TRADER, registry.abandon_release(4))
        assert ask(chain.rpc, registry.release(4)).state == 3

    def test_refusals_are_sentences(self, chain, consortium):
        registry = ModelRegistry(chain.deployment.model_registry)
        with pytest.raises(ContractRefused, match="no seat with the coordinator role") as e:
            consortium(GOVERNOR, registry.open_release(1, b"\1" * 32, "00" * 32, 1, [1, 2], []))
        assert e.value.error == "ModelRegistry_NotCoordinator"
        assert e.value.arguments["caller"].lower() == GOVERNOR.lower()
        consortium(NOISE_TRADER, registry.open_release(1, b"\1" * 32, "00" * 32, 1, [1, 2], []))
        with pytest.raises(ContractRefused, match="1 signatures were given, 2 are needed"):
            consortium(
                NOISE_TRADER, registry.publish(1, 1, "ab" * 32, "", 1, {OPERATOR: b"\1" * 65})
            )
        with pytest.raises(ContractRefused, match="is not the owner"):
            consortium(OPERATOR, Membership(chain.deployment.membership).expel(1))
        with pytest.raises(NodeRefused) as refused:
            ask(chain.rpc, registry.model(9))
        assert explain(refused.value).error == "ModelRegistry_UnknownVersion"
