"""Publication on a real registry: the live hash is the artifact's, and only by a quorum."""

from dataclasses import dataclass

import pytest
from eth_utils.address import to_checksum_address

from clients.floor import Floor
from clients.homechain import check_terms, final_manifests
from clients.keys import MemberKeys
from consortium.rehearsal import (
    SMALL,
    Consortium,
    Party,
    RandomPositions,
    make_terms,
    small_base,
)
from fedtrade.chain.contracts import (
    COORDINATOR,
    HELPER,
    MEMBER,
    ContractRefused,
    Membership,
    ModelRegistry,
)
from fedtrade.chain.conversation import ask
from fedtrade.protocol import WrongBinding, publication_digest
from server.keys import CoordinatorKeys
from server.publish import Publisher

pytestmark = pytest.mark.chain


@dataclass
class OnChain:
    post: object
    final: object


@pytest.fixture
def setting(chain, tmp_path):
    """Five admitted members, a coordinator with a role, and an open release on the home chain."""
    membership = Membership(chain.deployment.membership)
    keys = CoordinatorKeys.ephemeral()
    members = [MemberKeys.ephemeral() for _ in range(5)]
    chain.devnet.fund(chain.deployment.name, keys.address, native_wei=10**20)
    for k, roles in [*((m, MEMBER | HELPER) for m in members), (keys, COORDINATOR)]:
        x25519 = k.x25519_public if isinstance(k, MemberKeys) else bytes(32)
        chain.devnet.govern(
            chain.deployment.name, membership.admit(k.address, k.address, x25519, roles)
        )
    ids = [ask(chain.rpc, membership.id_of_signer(m.address)) for m in members]
    base = small_base()
    parties = [
        Party(seat, f"m{seat}", k, RandomPositions(40, 6, seat), tmp_path / str(seat))
        for seat, k in zip(ids, members, strict=True)
    ]
    terms = make_terms(
        parties,
        SMALL,
        base,
        keys.address,
        release=1,
        chain_id=chain.deployment.chain_id,
        registry=chain.deployment.model_registry,
    )
    publisher = Publisher(chain.deployment, chain.rpc, keys)
    publisher.open_release(terms)
    notices = OnChain(
        publisher.post_manifest,
        final_manifests(chain.rpc, chain.deployment.model_registry, "latest"),
    )
    consortium = Consortium(
        parties,
        terms,
        base,
        notices,
        keys.sign_digest,
        tmp_path / "shared",
        Floor(epsilon_limit=20.0),
    )
    yield chain, consortium, publisher
    consortium.close()


def test_from_rounds_to_the_live_hash(setting):
    chain, consortium, publisher = setting
    terms, registry = consortium.terms, chain.deployment.model_registry
    for _ in range(2):
        consortium.release.run_round(consortium.direct())
    manifest = ask(chain.rpc, ModelRegistry(registry).manifest_of(1, 2))
    assert any(manifest)
    finished = consortium.release.finish()
    args = (1, 1, finished.artifact_sha256, "file:x", finished.epsilon_micro)
    ours = publication_digest(
        chain.deployment.chain_id,
        registry,
        1,
        1,
        bytes.fromhex(finished.artifact_sha256),
        "file:x",
        finished.epsilon_micro,
    )
    assert ours == ask(chain.rpc, ModelRegistry(registry).digest(*args))
    signed = {
        m.seat.signer: m.endorse(
            finished.transcript, 1, "file:x", {chain.deployment.chain_id: registry}
        )[chain.deployment.chain_id]
        for m in consortium.members()
    }
    few = dict(list(signed.items())[:3])
    with pytest.raises(ContractRefused):  # three of five are below two thirds
        publisher.publish(terms, finished, 1, "file:x", few)
    assert publisher.live().version == 0
    publisher.publish(terms, finished, 1, "file:x", signed)
    assert publisher.live().version == 0  # the activation delay: time to look
    chain.anvil.mine(chain.anvil.latest().timestamp_s + 31)
    live = publisher.live()
    assert (live.version, live.sha256) == (1, finished.artifact_sha256)


def test_the_chain_takes_one_manifest_a_round(setting):
    _, consortium, publisher = setting
    consortium.release.run_round(consortium.direct())
    with pytest.raises(ContractRefused):
        publisher.post_manifest(1, 1, b"x" * 32)


def test_terms_that_the_chain_does_not_confirm_are_refused(setting):
    """A swapped key, another policy, another base: each is found by the member's own node."""
    chain, consortium, _ = setting
    membership, terms = chain.deployment.membership, consortium.terms
    check_terms(chain.rpc, membership, terms)
    helper = terms.helpers[2].model_copy(update={"x25519": b"k" * 32})
    swapped = [*terms.helpers[:2], helper, *terms.helpers[3:]]
    for update, found in (
        ({"helpers": tuple(swapped)}, "policy hash"),
        ({"base_sha256": "0" * 64}, "policy hash"),
        ({"positions": (41, *terms.positions[1:])}, "policy hash"),
    ):
        with pytest.raises(WrongBinding, match=found):
            check_terms(chain.rpc, membership, terms.model_copy(update=update))


def test_a_key_that_was_changed_after_the_release_was_opened_is_found(setting):
    chain, consortium, _ = setting
    seat = consortium.terms.members[0]
    call = Membership(chain.deployment.membership).update(
        seat.id, to_checksum_address(seat.signer), b"n" * 32, MEMBER | HELPER
    )
    chain.devnet.govern(chain.deployment.name, call)
    with pytest.raises(WrongBinding, match="encryption key"):
        check_terms(chain.rpc, chain.deployment.membership, consortium.terms)


def test_a_manifest_that_was_not_posted_gets_no_answer(setting):
    _, consortium, _ = setting
    release = consortium.release
    release._post = lambda *_: None
    from server.rounds import RoundAbandoned

    with pytest.raises(RoundAbandoned, match="did not answer"):
        release.run_round(consortium.direct())
