"""The registry's logs as the real contract writes them."""

import pytest

from fedtrade.chain.contracts import Membership, ModelRegistry
from fedtrade.chain.conversation import ask
from fedtrade.devnet.accounts import GUARDIAN, OPERATOR
from fedtrade.market.events import ModelPublished, ModelRevoked
from fedtrade.venues import model_registry


def test_other_logs_are_no_events():
    log = {"blockNumber": "0x1", "topics": ["0x" + "00" * 32], "data": "0x"}
    assert model_registry.decode(log) is None


@pytest.mark.chain
def test_publication_and_revocation(chain):
    name, known = chain.deployment.name, chain.deployment
    from eth_account import Account  # the only signer in these tests; keys live in clients/

    member = Account.create()
    registry, sha256 = ModelRegistry(known.model_registry), "ab" * 32
    send = chain.devnet.transact
    seats, decided = Membership(known.membership), chain.devnet.govern
    decided(name, seats.admit(member.address, member.address, b"\0" * 32, 1))
    decided(name, seats.admit(OPERATOR, OPERATOR, b"\0" * 32, 4))
    send(name, OPERATOR, registry.open_release(1, b"\1" * 32, "00" * 32, 5, [1], []))
    digest = ask(chain.rpc, registry.digest(1, 3, sha256, "file:a", 2_000_000))
    signature = bytes(member.unsafe_sign_hash(digest).signature)
    receipt = send(
        name,
        OPERATOR,
        registry.publish(1, 3, sha256, "file:a", 2_000_000, {member.address: signature}),
    )
    (published,) = filter(None, map(model_registry.decode, receipt["logs"]))
    assert isinstance(published, ModelPublished)
    assert (published.version, published.sha256, published.epsilon_micro) == (3, sha256, 2_000_000)
    assert ask(chain.rpc, registry.live()).version == 0
    chain.anvil.mine(published.live_from_s)
    live = ask(chain.rpc, registry.live())
    assert (live.version, live.sha256, live.live_from_s) == (3, sha256, published.live_from_s)
    (revoked,) = map(model_registry.decode, send(name, GUARDIAN, registry.revoke(3))["logs"])
    assert revoked == ModelRevoked(revoked.block, 3)
    assert ask(chain.rpc, registry.model(3)).revoked
    assert ask(chain.rpc, registry.live()).version == 0
