"""Our bytes against Hyperlane's real contracts, and what those refuse."""

import pytest
from eth_abi.abi import decode
from eth_account import Account

from fedtrade.chain.contracts import LiveModel, explain
from fedtrade.chain.conversation import ask, read
from fedtrade.chain.mirrors import RegistryBeacon, RegistryMirror, Snapshot
from fedtrade.chain.rpc import NodeRefused
from fedtrade.devnet.accounts import GOVERNOR, NOISE_TRADER
from fedtrade.devnet.deploy import send
from fedtrade.venues.codec import Call, Function
from fedtrade.venues.hyperlane import (
    ANNOUNCE,
    ANNOUNCED,
    COUNT,
    DELIVERED,
    DISPATCH,
    INSERTED,
    PROCESS,
    ROOT,
    Checkpoint,
    MerkleTree,
    Message,
    announcement_digest,
    metadata,
    word_of,
)

pytestmark = pytest.mark.chain

KEYS = sorted((Account.from_key(bytes([n]) * 32) for n in range(1, 4)),
              key=lambda key: int(key.address, 16))  # fmt: skip
OUTSIDER = Account.from_key(bytes([9]) * 32)
DISPATCH_CALL = Function("dispatch(uint32,bytes32,bytes)")
QUOTE_DISPATCH = Function("quoteDispatch(uint32,bytes32,bytes)", "(uint256)")


@pytest.fixture(scope="module")
def linked(devnet):
    """Home, one other chain, and what connects them; validators are keys of this test."""
    deployment = devnet.link([key.address for key in KEYS], 2)
    return deployment, devnet


@pytest.fixture
def ends(linked):
    deployment, devnet = linked
    before = [(c.name, devnet.anvil(c.name).snapshot()) for c in deployment.chains]
    yield Ends(deployment, devnet)
    for name, snapshot in before:
        devnet.anvil(name).revert(snapshot)


class Ends:
    """Both ends, and a messenger that does by hand what validators and relayer do."""

    def __init__(self, deployment, devnet):
        self.home = deployment.chain("aster")
        self.away = deployment.chain("birch")
        self.home_rpc, self.away_rpc = devnet.rpc("aster"), devnet.rpc("birch")
        self.beacon = RegistryBeacon(self.home.messages.beacon)
        self.mirror = RegistryMirror(self.away.messages.mirror)
        self.devnet = devnet

    def post(self):
        """One post to the other chain; gives (message, its checkpoint)."""
        domain = self.away.messages.domain
        fee = ask(self.home_rpc, self.beacon.quote([domain]))
        assert fee > 0  # the paymaster's, really paid
        return self.taken(send(self.home_rpc, GOVERNOR, self.beacon.post([domain], fee)))

    def dispatch(self, body, recipient=None, sender=NOISE_TRADER):
        """Any message of anybody."""
        to = word_of(recipient or self.away.messages.mirror)
        arguments = (self.away.messages.domain, to, body)
        asked = self.home_rpc.eth_call(
            self.home.messages.mailbox, QUOTE_DISPATCH.encode(*arguments)
        )
        (fee,) = QUOTE_DISPATCH.decode(asked)
        data = DISPATCH_CALL.encode(*arguments)
        call = Call(self.home.messages.mailbox, data, fee)
        return self.taken(send(self.home_rpc, sender, call))

    def taken(self, receipt):
        self.gas = int(receipt["gasUsed"], 16)
        found = {log["topics"][0]: log for log in receipt["logs"]}
        _, (content,) = DISPATCH.decode(found[DISPATCH.topic])
        _, (message_id, index) = INSERTED.decode(found[INSERTED.topic])
        message = Message.decode(content)
        assert message.id == message_id
        (root,) = ask(self.home_rpc, read([(self.hook, ROOT, ())], "latest"))[0]
        checkpoint = Checkpoint(message.origin, word_of(self.hook), root, index, message_id)
        return message, checkpoint

    @property
    def hook(self):
        return self.home.messages.merkle_tree_hook

    def process(self, message, proof):
        """Deliver; a refusal comes as ContractRefused or NodeRefused."""
        call = Call(self.away.messages.mailbox, PROCESS.encode(proof, message.encoded))
        try:
            self.away_rpc.call(
                "eth_call",
                {"from": NOISE_TRADER, "to": call.to, "data": "0x" + call.data.hex()},
                "latest",
            )
        except NodeRefused as refused:
            raise explain(refused) from None
        receipt = send(self.away_rpc, NOISE_TRADER, call)
        self.gas = int(receipt["gasUsed"], 16)
        return receipt


def signatures(checkpoint, *keys):
    return [bytes(key.unsafe_sign_hash(checkpoint.digest).signature) for key in keys]


def refused(ends, message, proof, reason):
    with pytest.raises(Exception, match=reason) as error:
        ends.process(message, proof)
    assert type(error.value).__name__ in ("NodeRefused", "ContractRefused")


def test_a_message_goes_through_and_is_what_the_registry_says(ends):
    message, checkpoint = ends.post()
    said = Snapshot.decode(message.body)
    assert message.sender == word_of(ends.home.messages.beacon)
    assert said.sequence == 1
    ends.process(message, metadata(checkpoint, signatures(checkpoint, *KEYS[:2])))
    state = ask(ends.away_rpc, ends.mirror.state())
    assert (state.sequence, state.sent_at_s) == (1, said.sent_at_s)
    shown = ask(ends.away_rpc, ends.mirror.parameters())
    assert shown.values == said.governed
    assert ask(ends.away_rpc, ends.mirror.live()) == LiveModel(0, "00" * 32, 0, 0)
    (delivered,) = ask(
        ends.away_rpc, read([(ends.away.messages.mailbox, DELIVERED, (message.id,))], "latest")
    )[0]
    assert delivered


def test_our_tree_is_the_contracts(ends):
    tree = MerkleTree()
    (count,) = ask(ends.home_rpc, read([(ends.hook, COUNT, ())], "latest"))[0]
    assert count == 0
    for number in range(1, 14):
        message, checkpoint = ends.dispatch(bytes([number]) * number)
        tree.insert(message.id)
        assert tree.root == checkpoint.root
        assert tree.count - 1 == checkpoint.index


@pytest.mark.parametrize("pair", [(0, 1), (0, 2), (1, 2)])
def test_any_two_of_three_suffice(ends, pair):
    message, checkpoint = ends.post()
    ends.process(message, metadata(checkpoint, signatures(checkpoint, *(KEYS[i] for i in pair))))
    assert ask(ends.away_rpc, ends.mirror.state()).sequence == 1


def test_forged_proofs_are_refused(ends):
    message, checkpoint = ends.post()
    first, second = signatures(checkpoint, *KEYS[:2])
    flipped = bytes([second[0], *second[1:40], second[40] ^ 1, *second[41:]])
    (stranger,) = signatures(checkpoint, OUTSIDER)
    other = Checkpoint(
        checkpoint.domain, checkpoint.hook, b"\5" * 32, checkpoint.index, checkpoint.message_id
    )
    elsewhere = Checkpoint(
        7, checkpoint.hook, checkpoint.root, checkpoint.index, checkpoint.message_id
    )
    refused(ends, message, metadata(checkpoint, [first, flipped]), "threshold|signature")
    refused(ends, message, metadata(checkpoint, [first, stranger]), "threshold")
    refused(ends, message, metadata(checkpoint, [first, first]), "threshold")  # one counts once
    refused(ends, message, metadata(checkpoint, [second, first]), "threshold")  # out of order
    refused(ends, message, metadata(checkpoint, [first]), "refused")
    refused(ends, message, b"", "refused")
    refused(ends, message, metadata(other, [first, second]), "threshold")  # another root
    refused(ends, message, metadata(elsewhere, signatures(elsewhere, *KEYS[:2])), "threshold")
    altered = Message(
        message.nonce, message.origin, message.sender, message.destination, message.recipient,
        message.body[:-1] + b"\1",
    )  # fmt: skip
    refused(ends, altered, metadata(checkpoint, [first, second]), "threshold")
    assert ask(ends.away_rpc, ends.mirror.state()).sequence == 0
    ends.process(message, metadata(checkpoint, [first, second]))


def test_replayed_and_reordered_messages_are_refused(ends):
    older, older_checkpoint = ends.post()
    newer, newer_checkpoint = ends.post()
    newer_proof = metadata(newer_checkpoint, signatures(newer_checkpoint, *KEYS[:2]))
    older_proof = metadata(older_checkpoint, signatures(older_checkpoint, *KEYS[:2]))
    ends.process(newer, newer_proof)
    refused(ends, newer, newer_proof, "already delivered")
    refused(ends, older, older_proof, "message 1 is not above 2")
    assert ask(ends.away_rpc, ends.mirror.state()).sequence == 2


def test_somebody_elses_message_is_refused(ends):
    """Proved by the validators, from the right chain, and not from the beacon."""
    message, checkpoint = ends.dispatch(ends.post()[0].body)
    proof = metadata(checkpoint, signatures(checkpoint, *KEYS[:2]))
    refused(ends, message, proof, "is not the mirror's beacon")
    from_elsewhere = Message(
        message.nonce, 77, word_of(ends.home.messages.beacon), message.destination,
        message.recipient, message.body,
    )  # fmt: skip
    lied = Checkpoint(77, checkpoint.hook, checkpoint.root, checkpoint.index, from_elsewhere.id)
    refused(ends, from_elsewhere, metadata(lied, signatures(lied, *KEYS[:2])), "beacon")


def test_a_threshold_of_liars_cannot_be_told_from_the_truth(ends):
    """The assumption, shown: two of three may forge, within the rules that mirror keeps itself."""
    message, checkpoint = ends.post()
    said = Snapshot.decode(message.body)
    invented = Snapshot(
        said.sequence, said.sent_at_s, said.models, said.governed, said.interim, 0, True, 99
    )
    forged = Message(message.nonce, message.origin, message.sender, message.destination,
                     message.recipient, invented.encode())  # fmt: skip
    lie = Checkpoint(
        checkpoint.domain, checkpoint.hook, checkpoint.root, checkpoint.index, forged.id
    )
    ends.process(forged, metadata(lie, signatures(lie, *KEYS[:2])))
    assert ask(ends.away_rpc, ends.mirror.parameters()).paused  # nobody paused at home
    absurd = Snapshot(
        said.sequence + 1, said.sent_at_s, said.models, (0,) * 28, said.interim, 0, False, 100
    )
    forged = Message(message.nonce, message.origin, message.sender, message.destination,
                     message.recipient, absurd.encode())  # fmt: skip
    lie = Checkpoint(
        checkpoint.domain, checkpoint.hook, checkpoint.root, checkpoint.index, forged.id
    )
    refused(ends, forged, metadata(lie, signatures(lie, *KEYS[:2])), "ParameterRules")


def test_an_announcement_is_taken_from_anybody_once(ends):
    at, key, place = ends.home.messages, KEYS[0], "file:///somewhere"
    digest = announcement_digest(at.domain, at.mailbox, place)
    signature = bytes(key.unsafe_sign_hash(digest).signature)
    call = Call(at.validator_announce, ANNOUNCE.encode(key.address, place, signature))
    send(ends.home_rpc, NOISE_TRADER, call)
    asked = ends.home_rpc.eth_call(at.validator_announce, ANNOUNCED.encode([key.address]))
    assert decode(["string[][]"], asked) == (((place,),),)


def test_the_beacon_pays_back_what_is_too_much(ends):
    domain = ends.away.messages.domain
    fee = ask(ends.home_rpc, ends.beacon.quote([domain]))
    send(ends.home_rpc, GOVERNOR, ends.beacon.post([domain], 10 * fee))
    assert int(ends.home_rpc.call("eth_getBalance", ends.beacon.address, "latest"), 16) == 0


def test_gas_is_what_the_readme_says(ends):
    """Not exact: a bound that notices if a post or a delivery becomes several times dearer."""
    message, checkpoint = ends.post()
    assert ends.gas < 400_000
    ends.process(message, metadata(checkpoint, signatures(checkpoint, *KEYS[:2])))
    assert ends.gas < 900_000
    message, checkpoint = ends.post()
    ends.process(message, metadata(checkpoint, signatures(checkpoint, *KEYS[:2])))
    assert ends.gas < 400_000
