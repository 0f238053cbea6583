"""The relayer on real chains: it delivers what is signed, skips what is stuck, and cannot do harm."""

import json
from dataclasses import dataclass, field

import pytest

from clients.keys import MemberKeys
from clients.settings import HomeChainAt, ValidatorAt
from clients.validator import Validator
from fedtrade.chain.contracts import ModelRegistry
from fedtrade.chain.conversation import ask, read
from fedtrade.chain.deployment import Deployment
from fedtrade.chain.mirrors import RegistryBeacon, RegistryMirror
from fedtrade.chain.parameter_store import ParameterStore
from fedtrade.chain.rpc import Rpc
from fedtrade.devnet.accounts import GOVERNOR
from fedtrade.devnet.deploy import send
from fedtrade.errors import BadInput, Fault
from fedtrade.venues.hyperlane import (
    ANNOUNCED,
    Checkpoint,
    SignedCheckpoint,
    checkpoint_file,
    checkpoint_name,
    read_checkpoint,
)
from server.keys import CoordinatorKeys
from server.relay import Relay
from server.relay_settings import RelayFees, RelaySettings
from server.relay_status import mirror_rows

pytestmark = pytest.mark.chain

FEES = RelayFees(replace_after_s=5.0, attempts_max=2)


@dataclass
class Clock:
    now: float = 0.0

    def __call__(self):
        return self.now


@dataclass
class World:
    """Three linked chains, three validators, and relayers as many as a test wants."""

    devnet: object
    deployment: Deployment
    folder: object
    members: list
    rpc: Rpc
    clock: Clock = field(default_factory=Clock)
    opened: list = field(default_factory=list)
    final_block: str = "latest"

    @property
    def home(self):
        return self.deployment.chain("aster")

    def validators(self, *which):
        """Let these look once; gives how many checkpoints they made."""
        made = 0
        for number in which:
            at = ValidatorAt(
                merkle_tree_hook=self.home.messages.merkle_tree_hook.lower(),
                from_block=0,
                storage=self.folder / f"v{number}",
                location=f"file://{self.folder}/v{number}",
            )
            chain = HomeChainAt(
                rpc_url=self.home.rpc_url,
                chain_id=self.home.chain_id,
                final_block=self.final_block,
                membership=self.home.membership.lower(),
                registry=self.home.model_registry.lower(),
            )
            ledger = self.folder / f"v{number}.jsonl"
            with Validator(chain, at, ledger, self.members[number], self.rpc) as validator:
                validator.announce()
                made += validator.look()
        return made

    def relay(self, keys=None, **more):
        path = self.folder / "deployment.json"
        self.deployment.save(path)
        settings = RelaySettings(
            keys=self.folder,
            deployment=path,
            storages=tuple(f"file://{self.folder}/v{n}" for n in range(3)),
            final_block=self.final_block,
            poll_s=1.0,
            fees=more.pop("fees", FEES),
            **more,
        )
        keys = keys or CoordinatorKeys.ephemeral()
        for chain in self.deployment.chains:
            self.devnet.fund(chain.name, keys.address, native_wei=10**20)
        relay = Relay(settings, keys, self.clock)
        self.opened.append(relay)
        return relay

    def sequence(self, name):
        mirror = RegistryMirror(self.deployment.chain(name).messages.mirror)
        return ask(self.devnet.rpc(name), mirror.state()).sequence

    def posted(self):
        return ask(self.rpc, RegistryBeacon(self.home.messages.beacon).snapshot()).sequence - 1

    def change(self, value):
        """Governance sets a parameter: something that mirrors have to be told."""
        store = ask(self.rpc, ModelRegistry(self.home.model_registry).parameter_store())
        self.devnet.govern(self.home.name, ParameterStore(store).set({"slippageMaxBps": value}))

    def looks(self, relay, count=4):
        for _ in range(count):
            relay.look()
            self.clock.now += 1.0


@pytest.fixture(scope="module")
def linked(devnet):
    members = [MemberKeys.ephemeral() for _ in range(3)]
    return devnet, devnet.link([member.address for member in members], 2), members


@pytest.fixture
def world(linked, tmp_path):
    devnet, deployment, members = linked
    before = [(c.name, devnet.anvil(c.name).snapshot()) for c in deployment.chains]
    world = World(devnet, deployment, tmp_path, members, devnet.rpc("aster"))
    yield world
    for relay in world.opened:
        relay.close()
    for name, snapshot in before:
        devnet.anvil(name).automine(True)
        devnet.anvil(name).revert(snapshot)


def test_from_a_post_to_both_mirrors(world):
    relay = world.relay()
    world.looks(relay, 1)
    assert world.posted() == 1  # a mirror that was never told is told at once
    world.looks(relay, 1)
    assert "0 signatures and needs 2" in relay.status_line()
    world.validators(0)
    world.clock.now += 60.0
    world.looks(relay)
    assert world.sequence("birch") == 0  # one of three is not enough
    assert "1 signatures and needs 2" in relay.status_line()
    world.validators(1)
    world.clock.now += 60.0
    world.looks(relay)
    assert (world.sequence("birch"), world.sequence("cedar")) == (1, 1)
    assert world.posted() == 1  # nothing has changed since
    assert relay.status_line() == "aster: nothing to post | birch: at 1 | cedar: at 1"


def test_a_change_is_posted_at_once_and_a_heartbeat_in_its_time(world):
    world.validators(0, 1, 2)
    relay = world.relay(heartbeat_s=3_600.0)
    world.looks(relay)
    world.validators(0, 1)
    world.looks(relay)
    assert (world.posted(), world.sequence("birch")) == (1, 1)
    world.change(40)
    world.looks(relay)
    assert world.posted() == 2
    anvil = world.devnet.anvil("aster")
    anvil.mine(anvil.latest().timestamp_s + 3_500)
    world.looks(relay)
    assert world.posted() == 2
    anvil.mine(anvil.latest().timestamp_s + 200)
    world.looks(relay)
    assert world.posted() == 3


def test_announcements_are_put_on_the_chain(world):
    world.validators(0, 1, 2)
    relay = world.relay()
    world.looks(relay, 9)
    at = world.home.messages
    addresses = [member.address for member in world.members]
    ((found,),) = ask(world.rpc, read([(at.validator_announce, ANNOUNCED, (addresses,))], "latest"))
    assert found == tuple((f"file://{world.folder}/v{n}",) for n in range(3))


def test_only_the_newest_is_delivered(world):
    world.validators(0, 1)
    relay = world.relay()
    for value in (40, 41, 42):
        world.looks(relay)
        world.change(value)
    world.looks(relay)
    assert world.posted() == 4
    world.validators(0, 1)
    world.looks(relay)
    assert world.sequence("birch") == 4
    birch = world.deployment.chain("birch").messages
    logs = world.devnet.rpc("birch").call(
        "eth_getLogs", {"address": birch.mirror, "fromBlock": "0x0", "toBlock": "latest"}
    )
    mirrored = {log["topics"][1] for log in logs if len(log["topics"]) == 2}
    assert hex(4) in {hex(int(topic, 16)) for topic in mirrored}
    assert len({log["transactionHash"] for log in logs}) == 1


def test_an_older_one_goes_when_the_newest_is_not_signed_yet(world):
    world.validators(0, 1)
    relay = world.relay()
    world.looks(relay)
    world.validators(0, 1)
    world.change(40)
    relay.look()  # posts the second, delivers the first
    world.clock.now += 1
    world.looks(relay)
    assert (world.posted(), world.sequence("birch")) == (2, 1)


def test_a_killed_relayer_goes_on_from_the_chains(world):
    world.validators(0, 1)
    keys = CoordinatorKeys.ephemeral()
    first = world.relay(keys)
    world.looks(first, 1)
    first.close()
    world.validators(0, 1)
    second = world.relay(keys)
    world.looks(second)
    assert (world.posted(), world.sequence("birch"), world.sequence("cedar")) == (1, 1, 1)


def test_two_relayers_do_no_harm(world):
    world.validators(0, 1)
    one, other = world.relay(), world.relay()
    for value in (40, 41):
        world.looks(one, 1)
        world.looks(other, 1)
        world.validators(0, 1)
        world.looks(other, 2)
        world.looks(one, 2)
        assert world.sequence("birch") == world.sequence("cedar") == world.posted()
        world.change(value)


def test_who_posts_for_nothing_pays_alone(world):
    """Posts by others that say nothing new are not delivered before the heartbeat is due."""
    world.validators(0, 1)
    relay = world.relay(heartbeat_s=3_600.0)
    world.looks(relay)
    world.validators(0, 1)
    world.looks(relay)
    beacon = RegistryBeacon(world.home.messages.beacon)
    domains = [world.deployment.chain(name).messages.domain for name in ("birch", "cedar")]

    def spam():
        fee = ask(world.rpc, beacon.quote(domains))
        send(world.rpc, GOVERNOR, beacon.post(domains, fee))
        world.validators(0, 1)
        world.looks(relay)

    for _ in range(3):
        spam()
    assert (world.posted(), world.sequence("birch")) == (4, 1)
    for chain in world.deployment.chains:
        anvil = world.devnet.anvil(chain.name)
        anvil.mine(anvil.latest().timestamp_s + 3_700)
    spam()
    assert world.sequence("birch") == world.posted() == 5


def test_a_mirror_that_is_not_named_yet_is_waited_for(world):
    beacon = RegistryBeacon(world.home.messages.beacon)
    birch, cedar = (world.deployment.chain(name).messages for name in ("birch", "cedar"))
    nobody = "0x" + "00" * 20
    world.devnet.govern(world.home.name, beacon.set_mirror(birch.domain, nobody))
    world.validators(0, 1)
    relay = world.relay()
    world.looks(relay)
    world.validators(0, 1)
    world.looks(relay)
    assert (world.sequence("birch"), world.sequence("cedar")) == (0, 1)
    world.devnet.govern(world.home.name, beacon.set_mirror(cedar.domain, nobody))
    world.change(40)
    world.looks(relay)
    assert "waits for governance" in relay.status_line()
    world.devnet.govern(world.home.name, beacon.set_mirror(birch.domain, birch.mirror))
    world.looks(relay)
    world.validators(0, 1)
    world.looks(relay)
    assert world.sequence("birch") == 2


def test_a_stuck_delivery_is_replaced_and_gives_way_to_a_newer_one(world):
    world.validators(0, 1)
    relay = world.relay()
    world.looks(relay)
    world.validators(0, 1)
    birch = world.devnet.anvil("birch")
    birch.automine(False)
    world.looks(relay, 2)
    assert world.sequence("birch") == 0
    assert world.sequence("cedar") == 1  # the other chain does not wait
    world.change(40)
    world.looks(relay, 2)
    world.validators(0, 1)
    world.looks(relay, 10)  # the first is replaced, then given up; the second takes its nonce
    assert relay.mirrors[0].refusals
    birch.automine(True)
    birch.mine()
    world.looks(relay)
    assert world.sequence("birch") == world.sequence("cedar") == 2
    sender = world.opened[0].mirrors[0].sender
    nonce = birch.rpc.call("eth_getTransactionCount", sender._keys.address, "latest")
    assert int(nonce, 16) == 1  # however often it was sent, one of them was mined


def test_a_chain_that_does_not_answer_holds_nobody_up(world):
    world.validators(0, 1)
    relay = world.relay()
    birch = relay.mirrors[0]
    there, birch.rpc = birch.rpc, Rpc("http://127.0.0.1:1")
    world.looks(relay)
    world.validators(0, 1)
    world.looks(relay)
    assert (world.sequence("birch"), world.sequence("cedar")) == (0, 1)
    assert "cannot be reached" in relay.status_line()
    birch.rpc = there
    world.clock.now += 60.0  # the longest that it is left alone
    world.looks(relay)
    assert world.sequence("birch") == 1


def test_a_lying_validator_does_not_stop_the_others(world):
    """It publishes another root, signed; or garbage. Two honest ones are enough."""
    relay = world.relay()
    world.looks(relay, 1)
    world.validators(0, 1, 2)
    path = world.folder / "v0" / checkpoint_name(0)
    true = read_checkpoint(path.read_bytes()).checkpoint
    lie = Checkpoint(true.domain, true.hook, b"\5" * 32, true.index, true.message_id)
    signature = world.members[0].sign_digest(lie.digest)
    path.write_bytes(checkpoint_file(SignedCheckpoint(lie, signature)))
    (world.folder / "v1" / "announcement.json").write_text("{}")
    world.clock.now += 60.0
    world.looks(relay)
    assert world.sequence("birch") == 0
    assert "needs 2 alike" in relay.status_line()
    world.validators(1)  # announces again
    world.clock.now += 60.0
    world.looks(relay)
    assert world.sequence("birch") == world.sequence("cedar") == 1


def test_a_refused_delivery_is_tried_so_often_and_then_rests(world):
    world.validators(0, 1)
    relay = world.relay()
    world.looks(relay, 1)
    world.validators(0, 1)
    birch = relay.mirrors[0]
    birch.validators, birch.threshold = (world.members[0].address.lower(),), 1  # it will fail
    world.looks(relay, 6)
    (refusals,) = birch.refusals.values()
    assert refusals[0] == FEES.attempts_max
    assert "1 is refused" in relay.status_line()
    birch.validators, birch.threshold = (), 0  # asked anew
    world.clock.now += 600.0
    world.looks(relay)
    assert world.sequence("birch") == 1


def test_a_post_that_costs_too_much_is_not_made(world):
    relay = world.relay(fees=RelayFees(post_max_wei=1))
    world.looks(relay, 2)
    assert world.posted() == 0
    assert "a post costs" in relay.status_line()


def test_the_wrong_chain_or_mirror_stops_it(world):
    chains = {chain.name: chain for chain in world.deployment.chains}
    swapped = chains["birch"].model_copy(update={"rpc_url": chains["cedar"].rpc_url})
    world.deployment = Deployment(chains=(chains["aster"], swapped), home="aster")
    with pytest.raises(Fault, match="its node is of chain"):
        world.relay().look()
    at = chains["birch"].messages.model_copy(update={"mirror": chains["birch"].pool})
    wrong = chains["birch"].model_copy(update={"messages": at})
    world.deployment = Deployment(chains=(chains["aster"], wrong), home="aster")
    with pytest.raises(Fault, match="names another mirror"):
        world.relay().look()


def test_a_deployment_without_ends_is_refused(world):
    chains = {chain.name: chain for chain in world.deployment.chains}
    bare = {name: c.model_copy(update={"messages": None}) for name, c in chains.items()}
    world.deployment = Deployment(chains=(bare["aster"], chains["birch"]), home="aster")
    with pytest.raises(BadInput, match="no beacon"):
        world.relay()
    world.deployment = Deployment(chains=(chains["aster"], bare["birch"]), home="aster")
    with pytest.raises(BadInput, match="no chain has a mirror"):
        world.relay()


def test_status_is_asked_of_the_chains_alone(world):
    world.validators(0, 1)
    relay = world.relay()
    world.looks(relay)
    world.validators(0, 1)
    world.looks(relay)
    rows = {row[0]: row for row in mirror_rows(relay._settings, relay._keys.address)}
    assert rows["aster"][1] == "1 posted"
    assert rows["birch"][1] == "1 taken"
    assert rows["birch"][3:6] == ("no", "0", "none is live")
    gone = json.loads((world.folder / "deployment.json").read_text())
    gone["chains"][1]["rpc_url"] = "http://127.0.0.1:1"
    (world.folder / "deployment.json").write_text(json.dumps(gone))
    rows = {row[0]: row for row in mirror_rows(relay._settings, relay._keys.address)}
    assert "cannot be reached" in rows["birch"][1]
    assert rows["cedar"][1] == "1 taken"
