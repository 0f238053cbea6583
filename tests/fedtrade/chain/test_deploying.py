"""A consortium is founded once, whole and for good, whatever ends the process that founds it."""

import json
import os
import random
import signal
import time

import pytest
from founding import CHAIN_ID, GUARDIAN, START_S, TOKENS, VENUE, write_plan

from clients.keys import MemberKeys
from fedtrade.chain import deploying
from fedtrade.chain.deploying import Deployer, deploy
from fedtrade.chain.deployment import Deployment
from fedtrade.chain.plan import DeploymentPlan
from fedtrade.chain.steps import Attempt, Begun, Steps
from fedtrade.chain.transacting import GasTooDear, NotMined, Reverted, transact
from fedtrade.chain.verification import NotAsPlanned, verify, verify_mirror
from fedtrade.devnet.accounts import GOVERNOR
from fedtrade.devnet.anvil import Anvil
from fedtrade.devnet.artifacts import fetch
from fedtrade.errors import BadInput, FedtradeError, Refusal, Stale, Unavailable
from fedtrade.venues import governance as gov
from fedtrade.venues.codec import Call, Function, quantity
from server.keys import CoordinatorKeys

pytestmark = pytest.mark.chain

KILLS = int(os.environ.get("FEDTRADE_DEPLOY_KILLS", "4"))
"""SIGKILLs at random moments; 30 and more in a long run."""
CRASHES = int(os.environ.get("FEDTRADE_DEPLOY_CRASHES", "5"))
"""Of the places at which a process can die between two effects; 0 for every one of them."""
MEMBERS = [MemberKeys.ephemeral() for _ in range(4)]
TRANSACTIONS = 9


@pytest.fixture(scope="module")
def empty():
    with Anvil.start(fetch().anvil, CHAIN_ID, timestamp_s=START_S) as chain:
        for address in (*VENUE.values(), *TOKENS):
            chain.rpc.call("anvil_setCode", address, "0x00")
        yield chain


class Ground:
    """An empty chain, a founder with gas, and a plan."""

    def __init__(self, anvil, folder):
        self.anvil, self.folder = anvil, folder
        self.keys = CoordinatorKeys.create(folder / "keys")
        anvil.set_balance(self.keys.address, 10**20)
        self.out = folder / "deployment.json"
        self.told = []

    def plan(self, **replaced):
        return DeploymentPlan.load(write_plan(self.folder, self.anvil.url, MEMBERS, **replaced))

    def deploy(self, plan=None):
        return deploy(plan or self.plan(), self.out, self.keys, self.told.append)

    @property
    def nonce(self):
        count = self.anvil.rpc.call("eth_getTransactionCount", self.keys.address, "latest")
        return quantity(count)

    def start_over(self):
        """Forget the deployment, here and on the chain."""
        self.out.unlink(missing_ok=True)
        self.out.with_name("deployment.json.steps").unlink(missing_ok=True)
        self.anvil.revert(self.before)
        self.before = self.anvil.snapshot()


@pytest.fixture
def ground(empty, tmp_path):
    before = empty.snapshot()
    made = Ground(empty, tmp_path)
    made.before = empty.snapshot()
    yield made
    empty.automine(True)
    empty.revert(before)


def test_from_a_plan_to_a_governed_consortium(ground):
    deployed = ground.deploy()
    assert Deployment.load(ground.out) == deployed
    home = deployed.chain("aster")
    at = home.decided_here
    assert (home.registry, home.parameters) == (at.model_registry, at.parameter_store)
    assert home.from_block == 1
    assert ground.nonce == TRANSACTIONS
    assert [line.split(":")[0] for line in ground.told if "seats" in line][-1] == (
        "aster/seats 1 to 4"
    )
    # Once more: nothing is sent, and everything is looked at again.
    assert ground.deploy() == deployed
    assert ground.nonce == TRANSACTIONS


def test_the_founder_has_no_power_left(ground):
    deployed = ground.deploy()
    at, rpc = deployed.chain("aster").decided_here, ground.anvil.rpc
    expel = Call(at.membership, Function("expel(uint256)").encode(1))
    grant = Call(at.timelock, gov.GRANT_ROLE.encode(gov.ADMIN_ROLE, ground.keys.address))
    for call in (
        expel,
        grant,
        gov.schedule(at.timelock, [expel], b"\1" * 32),
        gov.execute_batch(at.timelock, [expel], b"\1" * 32),
    ):
        with pytest.raises(Refusal, match=r"is not the owner|lacks the role"):
            transact(rpc, CHAIN_ID, ground.keys, call)
    assert ground.nonce == TRANSACTIONS  # refused before gas


@pytest.mark.parametrize(
    ("changes", "found"),
    [
        ({"timelock_delay_s": 61}, "the timelock's delay: 172800, planned 61"),
        ({"voting_delay_s": 7}, "the voting delay: 86400, planned 7"),
        ({"quorum_bps": 6_000}, "the governor's quorum"),
        ({"guardian": GOVERNOR}, "the store's guardian"),
        ({"steward": GOVERNOR}, "the steward"),
    ],
)
def test_each_setting_is_read_back(ground, changes, found):
    deployed, plan = ground.deploy(), ground.plan()
    other = plan.model_copy(update={"governance": plan.governance.model_copy(update=changes)})
    at = deployed.chain("aster").decided_here
    with pytest.raises(NotAsPlanned, match=found):
        verify(ground.anvil.rpc, "aster", at, other, 1)


def test_each_seat_parameter_owner_and_role_is_read_back(ground):
    deployed, plan = ground.deploy(), ground.plan()
    at, rpc = deployed.chain("aster").decided_here, ground.anvil.rpc

    def findings(at=at, plan=plan, owned=()):
        with pytest.raises(NotAsPlanned) as refused:
            verify(rpc, "aster", at, plan, 1, owned)
        return " ".join(refused.value.findings)

    seats = (plan.seats[1], plan.seats[0], *plan.seats[2:])
    assert "seat 1 is not the one planned" in findings(
        plan=plan.model_copy(update={"seats": seats})
    )
    fewer = plan.model_copy(update={"seats": plan.seats[:3]})
    assert "4 seats, planned 3" in findings(plan=fewer)
    other = plan.model_copy(update={"parameters": {"quorumBps": 7_000}})
    assert "the parameters" in findings(plan=other)
    asked = Deployer(rpc, "aster", CHAIN_ID, ground.keys, Steps())
    foreign = asked.create("foreign", "Membership", ground.keys.address)
    assert f"{foreign} is owned by" in findings(owned=[foreign])
    # What somebody with all of the timelock's power would do, without a trace in any view:
    ground.anvil.impersonate(at.timelock)
    ground.anvil.set_balance(at.timelock, 10**18)
    for call in (
        Call(at.timelock, gov.GRANT_ROLE.encode(gov.PROPOSER_ROLE, GOVERNOR)),
        Call(at.timelock, gov.REVOKE_ROLE.encode(gov.CANCELLER_ROLE, at.governor)),
        Call(at.membership, Function("transferOwnership(address)").encode(GOVERNOR)),
    ):
        body = {"from": at.timelock, "to": call.to, "data": "0x" + call.data.hex()}
        rpc.call("eth_sendTransactionSync", body)
    found = findings()
    assert f"{GOVERNOR} is proposer of the timelock" in found
    assert f"{at.governor} is not canceller of the timelock" in found
    assert "Membership is offered to" in found


def test_who_deploys_may_hold_nothing(ground):
    for field in ("guardian", "steward"):
        with pytest.raises(BadInput, match="Deploy with another key"):
            ground.deploy(ground.plan(**{field: f'"{ground.keys.address}"'}))
    assert ground.nonce == 0
    assert not ground.out.exists()


def test_a_node_of_another_chain_is_refused(ground):
    with pytest.raises(BadInput, match="the node is of chain 31337, not 31338"):
        ground.deploy(ground.plan(chain_id="31338"))


def test_a_venue_that_is_not_there_is_refused(ground):
    missing = "0x" + "b1" * 20
    with pytest.raises(BadInput, match="there is no contract at pool 0x"):
        ground.deploy(ground.plan(pool=f'"{missing}"'))
    assert ground.nonce == 0


def test_a_deployment_that_was_begun_is_gone_on_with_as_it_was_begun(ground):
    ground.deploy()
    with pytest.raises(BadInput, match="begun with another plan"):
        ground.deploy(ground.plan(voting_period_s="86400"))
    ground.deploy(ground.plan(max_fee_gwei="7.5"))  # not what is deployed, but how it is paid
    ground.keys = CoordinatorKeys.create(ground.folder / "other")
    with pytest.raises(BadInput, match="begun with another account"):
        ground.deploy()


def test_two_cannot_deploy_at_one_time(ground):
    ground.deploy()
    begun = Begun(plan=ground.plan().digest(b""), founder=ground.keys.address)
    steps = ground.out.with_name("deployment.json.steps")
    lines = steps.read_text().splitlines()
    begun = Begun.model_validate_json(lines[0])
    with Steps.open(steps, begun), pytest.raises(Unavailable, match="another process"):
        ground.deploy()


def test_without_gas_it_stops_in_a_sentence_and_goes_on_with_gas(ground):
    ground.anvil.set_balance(ground.keys.address, 10**15)
    with pytest.raises(Refusal) as refused:
        ground.deploy()
    assert "funds" in str(refused.value).lower() or "gas" in str(refused.value).lower()
    ground.anvil.set_balance(ground.keys.address, 10**20)
    ground.deploy()
    assert ground.nonce == TRANSACTIONS


def test_dear_gas_is_waited_out(ground):
    with pytest.raises(GasTooDear, match=r"Gas costs .* and the limit is 0\.01"):
        ground.deploy(ground.plan(max_fee_gwei="0.01"))
    assert ground.nonce == 0


def test_a_nonce_that_went_elsewhere_is_replaced_by_another(ground):
    """The key was used for something else between a crash and the next start."""
    plan = ground.plan()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(deploying, "broadcast", lambda *_: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            ground.deploy(plan)
    elsewhere = Call("0x" + "11" * 20, b"")
    transact(ground.anvil.rpc, CHAIN_ID, ground.keys, elsewhere)
    deployed = ground.deploy(plan)
    assert ground.nonce == TRANSACTIONS + 1
    assert Deployment.load(ground.out) == deployed


def test_what_lies_about_is_sent_again_for_more(ground):
    """No block for a while: the same nonce, a higher price, and one of the two is mined."""
    ground.anvil.automine(False)
    asked = Deployer(
        ground.anvil.rpc, "aster", CHAIN_ID, ground.keys, steps := Steps(), wait_s=0.05
    )
    sent = []

    def counted(rpc, raw, real=deploying.broadcast):
        sent.append(raw)
        if len(sent) == 3:
            ground.anvil.automine(True)
            ground.anvil.mine()
        return real(rpc, raw)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(deploying, "broadcast", counted)
        asked.create("timelock", "ConsortiumTimelock", ground.keys.address)
    assert len(sent) == 3
    attempts = steps.attempts["aster/timelock"]
    assert len({attempt.nonce for attempt in attempts}) == 1
    assert len({attempt.transaction for attempt in attempts}) == 3
    assert ground.nonce == 1


def test_a_chain_without_blocks_is_given_up_after_a_while(ground):
    ground.anvil.automine(False)
    asked = Deployer(ground.anvil.rpc, "aster", CHAIN_ID, ground.keys, Steps(), wait_s=0.02)
    with pytest.raises(NotMined, match="Look whether the chain makes blocks"):
        asked.create("timelock", "ConsortiumTimelock", ground.keys.address)
    ground.anvil.rpc.call("anvil_dropAllTransactions")


def test_a_reverted_step_is_done_anew(ground):
    """Between trial and block somebody else acted: the step is not counted as done."""
    steps = Steps()
    asked = Deployer(ground.anvil.rpc, "aster", CHAIN_ID, ground.keys, steps)
    timelock = asked.create("timelock", "ConsortiumTimelock", ground.keys.address)
    call = Call(timelock, gov.REVOKE_ROLE.encode(gov.ADMIN_ROLE, GOVERNOR))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            deploying,
            "draft",
            lambda *a, real=deploying.draft, **k: real(*a, **k) | {"gas": 22_500},
        )
        with pytest.raises(Reverted):
            asked.call("revoke", call)
    assert "aster/revoke" not in steps.mined
    asked.call("revoke", call)
    assert steps.mined["aster/revoke"].succeeded


def test_a_block_that_goes_away_is_noticed_and_its_steps_are_sent_again(ground):
    plan = ground.plan(confirmations="2")

    def reorganised(self, blocks, real=Deployer.confirm):
        ground.anvil.reorg(3)
        ground.anvil.mine()
        ground.anvil.mine()
        real(self, blocks)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Deployer, "confirm", reorganised)
        with pytest.raises(Stale):
            ground.deploy(plan)
    assert not ground.out.exists()

    def mined(self, blocks, real=Deployer.confirm):
        for _ in range(blocks):
            ground.anvil.mine()
        real(self, blocks)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Deployer, "confirm", mined)
        ground.deploy(plan)
    assert ground.nonce == TRANSACTIONS


def hyperlane(anvil, artifacts, other):
    """Hyperlane's own contracts on a chain, as a section of the plan."""
    from fedtrade.devnet import hyperlane as lane

    return lane.deploy_hyperlane(anvil.rpc, artifacts, anvil.chain_id, [other]).model_dump()


def test_a_second_chain_follows_through_a_mirror(ground):
    artifacts = fetch()
    with Anvil.start(artifacts.anvil, CHAIN_ID + 1, timestamp_s=START_S) as second:
        for address in (*VENUE.values(), *TOKENS):
            second.rpc.call("anvil_setCode", address, "0x00")
        second.set_balance(ground.keys.address, 10**20)
        chains = []
        for chain, name, other in ((ground.anvil, "aster", 1), (second, "birch", 0)):
            site = ground.plan().chains[0].model_dump()
            site |= {"name": name, "chain_id": chain.chain_id, "rpc_url": chain.url}
            site["messages"] = hyperlane(chain, artifacts, CHAIN_ID + other)
            chains.append(site)
        raw = ground.plan().model_dump() | {"chains": chains}
        with pytest.raises(ValueError, match="birch needs a section messages"):
            DeploymentPlan.model_validate(
                raw | {"chains": [chains[0], chains[1] | {"messages": None}]}
            )
        for signatures in (2, 5):
            with pytest.raises(ValueError, match="mirror_signatures"):
                DeploymentPlan.model_validate(raw | {"mirror_signatures": signatures})
        plan = DeploymentPlan.model_validate(raw)
        assert plan.threshold == 3
        with pytest.MonkeyPatch.context() as patch:  # killed while the chains are being connected
            patch.setattr(deploying, "_end", lambda *_, **__: 1 / 0)
            with pytest.raises(ZeroDivisionError):
                ground.deploy(plan)
        deployed = ground.deploy(plan)
        home, away = deployed.chain("aster"), deployed.chain("birch")
        assert away.consortium is None
        assert away.registry == away.parameters == away.messages.mirror
        at = home.decided_here
        for address in (at.membership, at.model_registry, home.messages.beacon):
            owner = gov.OWNER.decode(ground.anvil.rpc.eth_call(address, gov.OWNER.encode()))
            assert owner == (at.timelock.lower(),)
        with pytest.raises(BadInput, match="does not decide on this chain"):
            _ = away.decided_here
        before = ground.nonce
        assert ground.deploy(plan) == deployed
        assert ground.nonce == before
        wrong = away.messages.model_copy(update={"mirror": at.timelock})
        with pytest.raises(FedtradeError):
            verify_mirror(second.rpc, ground.anvil.rpc, "birch", wrong, home.messages)
        other_home = home.messages.model_copy(update={"domain": 7})
        with pytest.raises(NotAsPlanned, match="the mirror's home"):
            verify_mirror(second.rpc, ground.anvil.rpc, "birch", away.messages, other_home)


# --- killed, and started again --------------------------------------------------------------------


def in_a_child(work):
    """Fork; give the child's id. It ends by os._exit, whatever happens."""
    pid = os.fork()
    if pid == 0:
        try:
            work()
            os._exit(0)
        except FedtradeError as error:
            os.write(2, f"{error}\n".encode())
            os._exit(error.exit_code)
        except BaseException as error:
            os.write(2, f"{type(error)} {error}\n".encode())
            os._exit(99)
    return pid


def ended(pid):
    _, status = os.waitpid(pid, 0)
    return os.waitstatus_to_exitcode(status)


def dying_at(ground, plan, place):
    """Deploy, and die of SIGKILL at the place of this number: between any two effects there is one.

    Places: before a line of the file, in its middle, after it; before a broadcast, after it.
    """
    count = 0

    def here():
        nonlocal count
        count += 1
        if count == place:
            os.kill(os.getpid(), signal.SIGKILL)

    def add(self, line, real=Steps.add):
        here()
        if self._file is not None and count + 1 == place:
            text = line.model_dump_json(exclude_none=True).encode()
            os.lseek(self._file, 0, os.SEEK_END)
            os.write(self._file, text[: len(text) // 2])
        here()
        real(self, line)
        here()

    def broadcast(rpc, raw, real=deploying.broadcast):
        here()
        reason = real(rpc, raw)
        here()
        return reason

    Steps.add, deploying.broadcast = add, broadcast
    deploy(plan, ground.out, ground.keys, lambda _: None)


def test_killed_between_any_two_effects_it_ends_in_the_same_contracts(ground):
    plan = ground.plan()
    expected = ground.deploy(plan)
    places = (1 + 2 * TRANSACTIONS) * 3 + 2 * TRANSACTIONS
    chosen = random.Random(7).sample(range(1, places + 1), CRASHES or places)
    for place in chosen:
        ground.start_over()
        assert ended(in_a_child(lambda at=place: dying_at(ground, plan, at))) == -signal.SIGKILL
        assert not ground.out.exists()
        assert ground.deploy(plan) == expected, place
        assert ground.nonce == TRANSACTIONS, place
    ground.start_over()
    assert ended(in_a_child(lambda: dying_at(ground, plan, places + 1))) == 0  # there is no other


def test_killed_at_random_moments_it_ends_in_the_same_contracts(ground):
    plan = ground.plan()
    start = time.monotonic()
    expected = ground.deploy(plan)
    whole_s = time.monotonic() - start
    draw, killed = random.Random(11), 0
    while killed < KILLS:
        ground.start_over()
        for _ in range(100):
            child = in_a_child(lambda: deploy(plan, ground.out, ground.keys, lambda _: None))
            time.sleep(draw.uniform(0, whole_s))
            os.kill(child, signal.SIGKILL)
            code = ended(child)
            assert code in (0, -signal.SIGKILL)
            killed += code != 0
            if code == 0 or killed >= KILLS:
                break
        assert ground.deploy(plan) == expected
        assert ground.nonce == TRANSACTIONS


def test_the_file_of_steps_is_read_strictly(tmp_path):
    path = tmp_path / "x.steps"
    begun = Begun(plan="0" * 64, founder=GUARDIAN)
    line = Attempt(step="a/b", nonce=0, raw="0x00", transaction="0x" + "1" * 64)
    with Steps.open(path, begun) as steps:
        steps.add(line)
    whole = path.read_bytes()
    with path.open("ab") as file:
        file.write(b'{"step":"a')  # what a killed writer leaves
    with Steps.open(path, begun) as steps:
        assert steps.attempts == {"a/b": [line]}
    assert path.read_bytes() == whole
    for bad in (b"{}\n", b'{"step":"x"}\n', whole, b"\xff\n", b"[" * 100_000 + b"\n"):
        path.write_bytes(whole + bad)
        with pytest.raises(BadInput, match=r"x\.steps:3"):
            Steps.open(path, begun)
    path.write_bytes(whole.partition(b"\n")[2])
    with pytest.raises(BadInput, match=r"x\.steps:1"):
        Steps.open(path, begun)


def test_nothing_of_the_file_is_secret(ground):
    ground.deploy()
    secret = (ground.folder / "keys" / "coordinator.key").read_text().strip()
    steps = ground.out.with_name("deployment.json.steps").read_text()
    assert secret not in steps
    assert all(json.loads(line) for line in steps.splitlines())
