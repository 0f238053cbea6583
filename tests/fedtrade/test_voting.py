"""Governance from the command line, on a real chain: from a proposal to parameters that changed."""

import io
import json
import logging
import re
import subprocess
import sys
from contextlib import redirect_stderr, redirect_stdout

import pytest

from clients.cli import main as member_main
from clients.keys import MemberKeys
from fedtrade.chain.contracts import COORDINATOR, HELPER, MEMBER, Membership, ModelRegistry
from fedtrade.chain.conversation import ask
from fedtrade.chain.governing import Ballot, Change, Governance, NotNow, NoVote, WouldFail
from fedtrade.chain.parameter_store import ParameterStore
from fedtrade.devnet.accounts import GUARDIAN, NOISE_TRADER, STEWARD
from fedtrade.devnet.deploy import Genesis, Unlocked
from fedtrade.errors import BadInput, Refusal
from fedtrade.governed import JointlyAbsurd, OutOfBounds, UnknownParameter
from fedtrade.venues import governance as gov
from fedtrade.venues.codec import Call
from fedtrade.venues.governance import Proposal, ProposalState, Support
from server.cli import main as coordinator_main
from server.keys import CoordinatorKeys

pytestmark = pytest.mark.chain
FIFTH_S = Genesis().voting_s // 5


def command(main, *words):
    """Run a command in this process, as its entry point would."""
    out, err = io.StringIO(), io.StringIO()
    argv, handlers = sys.argv, logging.root.handlers[:]
    sys.argv, code = ["x", *map(str, words)], 0
    try:
        with redirect_stdout(out), redirect_stderr(err):
            main()
    except SystemExit as left:
        code = left.code or 0
    finally:
        sys.argv, logging.root.handlers[:] = argv, handlers
    return subprocess.CompletedProcess(words, code, out.getvalue(), err.getvalue())


class Assembly:
    """Five members with keys and gas, a coordinator without a vote, and the home chain's governor."""

    def __init__(self, chain, folder):
        self.chain, self.folder = chain, folder
        self.members = [MemberKeys.create(folder / f"m{i}") for i in range(5)]
        self.coordinator = CoordinatorKeys.create(folder / "c")
        self.file = folder / "deployment.json"
        chain.devnet.deployment.save(self.file)
        seats = Membership(chain.deployment.membership)
        for keys in self.members:
            roles = MEMBER | HELPER
            self.decided(seats.admit(keys.address, keys.address, keys.x25519_public, roles))
        other = self.coordinator.address
        self.decided(seats.admit(other, other, bytes(32), COORDINATOR))
        for keys in (*self.members[:4], self.coordinator):  # the fifth has no gas
            chain.devnet.fund(chain.deployment.name, keys.address, native_wei=10**20)
        self.later(1)
        self.governance = Governance(chain.deployment, chain.rpc)
        self.steward = Unlocked(chain.rpc, STEWARD)
        self.guardian = Unlocked(chain.rpc, GUARDIAN)
        self.outsider = Unlocked(chain.rpc, NOISE_TRADER)

    def decided(self, call):
        self.chain.devnet.govern(self.chain.deployment.name, call)

    def later(self, seconds):
        self.chain.anvil.mine(self.chain.anvil.latest().timestamp_s + seconds)

    def gov(self, who, *words):
        """`gov …` of member number `who`, or of the coordinator."""
        main = coordinator_main if who == "c" else member_main
        keys = self.folder / (who if who == "c" else f"m{who}")
        return self.run(main, "gov", *words, "--keys", keys)

    def run(self, main, *words):
        return command(main, *words, "--deployment", self.file)

    def good(self, *words):
        done = self.gov(*words)
        assert done.returncode == 0, done.stderr
        return done.stdout

    def refused(self, *words):
        """The sentence of a refusal; it cost no gas."""
        before = self.chain.anvil.latest()
        done = self.gov(*words)
        assert done.returncode == 2, (done.stdout, done.stderr)
        assert "Traceback" not in done.stderr
        assert done.stderr.count("\n") == 1
        assert self.chain.anvil.latest() == before
        return done.stderr

    def propose(self, who, *words):
        """The id of what is proposed."""
        told = self.good(who, "propose", *words)
        return re.search(r"^proposal (0x[0-9a-f]{64})", told, re.M)[1]

    @property
    def parameters(self):
        store = ParameterStore(self.chain.deployment.parameters)
        return ask(self.chain.rpc, store.parameters()).governed

    def passed(self, change, why="because"):
        """A proposal of this that three members have passed."""
        g, first = self.governance, member(self.members[0])
        drafted = g.draft(change, why)
        g.propose(drafted, first)
        self.later(FIFTH_S + 1)
        for keys in self.members[:3]:
            g.vote(g.find(f"{drafted.id:064x}"), Support.FOR, member(keys))
        self.later(Genesis().voting_s + FIFTH_S)
        return f"{drafted.id:064x}"


def member(keys):
    from clients.keys import VotingKey

    return VotingKey(keys)


@pytest.fixture
def assembly(chain, tmp_path):
    return Assembly(chain, tmp_path)


def test_from_a_proposal_to_changed_parameters(assembly):
    a = assembly
    assert a.parameters.epsilon_release_micro == 8_000_000
    told = a.good(0, "propose", "--set", "epsilonReleaseMicro=4_000_000", "--set", "cohortMin=5",
                  "--why", "Half of it is enough since June")  # fmt: skip
    assert "epsilonReleaseMicro: 8,000,000 → 4,000,000 millionths (tighter)" in told
    assert "cohortMin: 4 → 5 members (tighter)" in told
    assert "Voting begins after 2025-" in told
    number = re.search(r"^proposal (0x[0-9a-f]{64})", told, re.M)[1]
    short = number[:10]

    assert "is pending, so it cannot be voted on. Voting begins after" in a.refused(
        1, "vote", short, "for"
    )
    a.later(FIFTH_S + 1)
    a.good(0, "vote", short, "for", "--why", "it is mine")
    done = a.run(member_main, "vote", short, "against", "--keys", a.folder / "m1")
    assert done.returncode == 0, done.stderr
    assert "it has voted already" in a.refused(0, "vote", short, "against")
    assert "had no vote when voting began" in a.refused("c", "vote", short, "for")

    # The fifth has no gas: it signs, and the coordinator, who has no vote, hands in.
    ballot = a.folder / "ballot.json"
    a.good(4, "sign-vote", short, "for", "--out", ballot)
    assert "block" in a.good("c", "vote", "--signed", ballot)
    assert "it has voted already" in a.refused("c", "vote", "--signed", ballot)
    printed = json.loads(a.good(3, "sign-vote", short, "abstain"))
    assert printed["voter"] == a.members[3].address

    shown = a.run(member_main, "gov", "show", short).stdout
    assert "2 for, 1 against, 0 abstaining; the quorum is 3" in shown
    assert "why       Half of it is enough since June" in shown
    assert "cannot be queued. Voting ends after" in a.refused(0, "queue", short)
    a.good(2, "vote", short, "abstain")  # the quorum: those against do not count
    a.later(Genesis().voting_s + FIFTH_S)
    assert "is succeeded, so it cannot be executed. Queue it until" in a.refused(
        "c", "execute", short
    )
    assert "Execute it from" in a.good("c", "queue", short)
    assert "is queued, so it cannot be executed. Execute it from" in a.refused(
        "c", "execute", short
    )
    assert a.parameters.epsilon_release_micro == 8_000_000
    a.later(FIFTH_S)
    a.good("c", "execute", short)
    assert (a.parameters.epsilon_release_micro, a.parameters.cohort_min) == (4_000_000, 5)
    assert "cannot be executed. It has come to its end" in a.refused("c", "execute", short)
    listed = a.run(coordinator_main, "gov", "show").stdout
    assert short in listed
    assert "executed" in listed


def test_a_forged_or_misdirected_ballot_is_refused(assembly):
    a = assembly
    number = a.propose(0, "--set", "cohortMin=5", "--why", "more")
    a.later(FIFTH_S + 1)
    g = a.governance
    ballot = g.sign_vote(g.find(number), Support.FOR, member(a.members[1]))
    path = a.folder / "b.json"

    def handed_in(**changes):
        path.write_text(ballot.model_copy(update=changes).model_dump_json())
        return a.refused("c", "vote", "--signed", path)

    assert "signature is not" in handed_in(support=0)
    assert "signature is not" in handed_in(voter=a.members[2].address)
    assert "had no vote" in handed_in(voter=a.coordinator.address)
    assert "for governor" in handed_in(chain_id=1)
    assert "there is no such proposal" in handed_in(proposal="0x" + "ab" * 32)
    path.write_text("{}")
    assert "not as `sign-vote` writes it" in a.refused("c", "vote", "--signed", path)
    assert "cannot be read" in a.refused("c", "vote", "--signed", a.folder / "none")
    assert g.find(number).in_favour == 0
    assert Ballot.parse(ballot.model_dump_json().encode()) == ballot


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (("--set", "corrupt=3"), "break rule 1, CommitteeStands"),
        (
            ("--set", "oracleAgeMaxS=7200", "--set", "oracleDeviationMaxBps=200"),
            "OldPriceMayDiffer",
        ),
        (("--set", "cohortMin=2"), "cohortMin cannot be 2. Give a whole number in 3..256"),
        (("--set", "cohort=5"), "There is no governed parameter 'cohort'"),
        (("--set", "cohortMin"), "it is not NAME=VALUE"),
        (("--set", "cohortMin=-1"), "it is not NAME=VALUE"),
        ((), "it changes nothing"),
        (("--expel", "99"), "there is no seat 99"),
        (("--revoke", "7"), "there is no version 7"),
        (("--unpause",), "fail at: let everything go on"),
        (("--steward", "0x12"), "is no address"),
        (("--admit", "0x12,0x13,0x00"), "3 parts"),
        (("--admit", GUARDIAN + "," + GUARDIAN + ",00,king"), "no role 'king'"),
        (("--admit", GUARDIAN + "," + GUARDIAN + ",00,helper"), "needs an X25519 key"),
        (("--update", f"x,{GUARDIAN},00,member"), "does not begin with a seat's id"),
        (("--call", "0x12:zz"), "no calldata"),
    ],
)
def test_what_the_rules_forbid_is_refused_before_gas(assembly, words, sentence):
    assert sentence in assembly.refused(0, "propose", *words, "--why", "x")


def test_only_whoever_holds_a_vote_proposes(assembly):
    a = assembly
    words = ("--set", "cohortMin=5", "--why", "x")
    assert "proposing needs one" in a.refused("c", "propose", *words)
    drafted = a.governance.draft(Change(parameters={"cohortMin": 5}), "x")
    with pytest.raises(NoVote):
        a.governance.propose(drafted, a.outsider)
    call = drafted.propose(a.governance.at.governor)  # past our own check: the contract's
    with pytest.raises(Refusal, match="has 0 votes and 1 is needed"):
        a.chain.devnet.transact(a.chain.deployment.name, NOISE_TRADER, call)
    assert a.governance.proposals() == []


def test_the_same_is_proposed_once_and_a_dry_run_sends_nothing(assembly):
    a, words = assembly, ("--set", "cohortMin=5", "--why", "x")
    told = a.good(0, "propose", *words, "--dry-run")
    assert "Nothing was sent" in told
    assert a.governance.proposals() == []
    a.propose(0, *words)
    assert "the same was proposed before" in a.refused(1, "propose", *words)
    a.propose(1, "--set", "cohortMin=5", "--why", "in other words")
    assert len(a.governance.proposals()) == 2


def test_a_proposal_is_named_by_enough_digits(assembly):
    a = assembly
    number = a.propose(0, "--set", "cohortMin=5", "--why", "x")
    assert a.governance.find(number).id == int(number, 16)
    assert a.governance.find(number[2:9]).id == int(number, 16)
    for word in (number[:5], "zz", "", "0x" + "0" * 64):
        with pytest.raises(BadInput, match="The newest are: " + number[:10]):
            a.governance.find(word)


def test_the_guardian_cancels_and_others_do_not(assembly):
    a = assembly
    number = a.passed(Change(parameters={"cohortMin": 5}))
    g = a.governance
    g.queue(g.find(number), a.outsider)
    for who in (a.outsider, a.steward, member(a.members[0])):
        with pytest.raises(Refusal, match="may not cancel it"):
            g.cancel(g.find(number), who)
    g.cancel(g.find(number), a.guardian)
    assert g.find(number).state is ProposalState.CANCELED
    a.later(FIFTH_S)
    with pytest.raises(NotNow, match="is canceled"):
        g.execute(g.find(number), a.outsider)
    with pytest.raises(NotNow, match="is canceled"):
        g.cancel(g.find(number), a.guardian)
    assert a.parameters.cohort_min == 4


def test_a_guardian_can_be_replaced_against_its_will(assembly):
    a, g = assembly, assembly.governance
    number = a.passed(Change(governor_guardian=NOISE_TRADER))
    with pytest.raises(Refusal, match="a guardian cannot cancel the proposal"):
        g.cancel(g.find(number), a.guardian)
    g.queue(g.find(number), a.outsider)
    a.later(FIFTH_S)
    g.execute(g.find(number), a.outsider)
    other = a.passed(Change(guardian=NOISE_TRADER), "everywhere")
    with pytest.raises(Refusal, match="may not cancel it"):
        g.cancel(g.find(other), a.guardian)
    g.queue(g.find(other), a.outsider)
    a.later(FIFTH_S)
    g.execute(g.find(other), a.outsider)
    pause = ParameterStore(g.at.parameter_store).pause()
    a.chain.devnet.transact(a.chain.deployment.name, NOISE_TRADER, pause)
    assert "let everything go on" in g.in_words(g.draft(Change(unpause=True), "on").calls)


def test_a_proposal_lapses(assembly):
    a, g = assembly, assembly.governance
    number = a.passed(Change(parameters={"cohortMin": 5}))
    a.later(15 * 86_400)
    assert g.find(number).state is ProposalState.EXPIRED
    with pytest.raises(NotNow, match=r"is expired, so it cannot be queued\. Propose it again"):
        g.queue(g.find(number), a.outsider)


def test_seats_models_and_offices_in_one_proposal(assembly):
    a, g = assembly, assembly.governance
    new = MemberKeys.ephemeral()
    told = a.good(0, "propose", "--why", "A new one comes, an old one goes",
                  "--admit", f"{new.address},{new.address},{new.x25519_public.hex()},member+helper",
                  "--update", f"2,{NOISE_TRADER},{'7' * 64},helper", "--expel", "1",
                  "--steward", NOISE_TRADER)  # fmt: skip
    for words in (
        f"admit {new.address} as member and helper",
        f"seat 2: helper, signing with {NOISE_TRADER}",
        "expel seat 1",
        f"ParameterStore: the steward becomes {NOISE_TRADER.lower()}",
    ):
        assert words in told
    number = re.search(r"^proposal (0x[0-9a-f]{64})", told, re.M)[1]
    a.later(FIFTH_S + 1)
    for keys in a.members[:3]:
        g.vote(g.find(number), Support.FOR, member(keys))
    a.later(Genesis().voting_s + FIFTH_S)
    g.queue(g.find(number), a.outsider)
    a.later(FIFTH_S)
    g.execute(g.find(number), a.outsider)
    seats = Membership(g.at.membership)
    assert ask(a.chain.rpc, seats.id_of_signer(new.address)) == 7
    assert ask(a.chain.rpc, seats.member_count()) == 4  # one came, one went, one only helps now


def test_what_a_proposal_does_is_read_from_its_calls(assembly):
    """A description that says something else helps nobody."""
    a, g = assembly, assembly.governance
    calls = (
        Call(g.at.membership, b"\xde\xad\xbe\xef" + bytes(32)),
        Call(NOISE_TRADER, gov.SET_GUARDIAN.encode(NOISE_TRADER)),
        Call(g.at.parameter_store, ParameterStore(g.at.parameter_store).unpause().data[:3]),
        Call(g.at.parameter_store, ParameterStore("").set({"cohortMin": 5}).data[:-40]),
        Call(g.at.parameter_store, ParameterStore("").set({"cohortMin": 5}).data + bytes(32)),
        Call(g.at.timelock, gov.UPDATE_DELAY.encode(61), 10**18),
    )
    proposal = Proposal(calls, "cohortMin: 4 → 5 members (tighter)\x1b[2J")
    g.propose(proposal, member(a.members[0]))
    words = g.in_words(g.find(f"{proposal.id:064x}").proposed.proposal.calls)
    assert [word.startswith("UNKNOWN call") for word in words] == [True] * 5 + [False]
    assert "of Membership with 36 bytes: find out" in words[0]
    assert words[5] == "what was passed waits for 61 s, with 1 of the native token"
    shown = a.run(member_main, "gov", "show", f"{proposal.id:064x}").stdout
    assert "\x1b" not in shown
    assert "\x1b" not in a.run(member_main, "gov", "show").stdout


def test_a_description_that_is_no_text_hides_nothing(assembly):
    a, g = assembly, assembly.governance
    call = Call(g.at.membership, Membership("").expel(1).data)
    good = Proposal((call,), "sixteen bytes...")
    data = good.propose(g.at.governor).data.replace(b"sixteen bytes...", b"\xff\xfe" + b"x" * 14)
    name = a.chain.deployment.name
    a.chain.devnet.fund(name, a.members[0].address, native_wei=10**20)
    a.chain.anvil.impersonate(a.members[0].address)
    a.chain.devnet.transact(name, a.members[0].address, Call(g.at.governor, data))
    for description in ("", "[red]x[/red]\n\n"):
        g.propose(Proposal((call,), description), member(a.members[0]))
    assert len(g.proposals()) == 3
    shown = a.run(member_main, "gov", "show")
    assert shown.returncode == 0, shown.stderr
    assert "[red]" in shown.stdout
    first = g.proposals()[0]
    a.later(FIFTH_S + 1)
    for keys in a.members[:3]:
        g.vote(g.find(f"{first.id:064x}"), Support.FOR, member(keys))
    a.later(Genesis().voting_s + FIFTH_S)
    g.queue(g.find(f"{first.id:064x}"), a.outsider)
    assert g.find(f"{first.id:064x}").state is ProposalState.QUEUED


def test_parameters_are_shown_with_what_the_steward_moved(assembly):
    a = assembly
    told = a.run(member_main, "gov", "parameters").stdout
    assert "epsilonReleaseMicro" in told
    assert "8,000,000" in told
    assert "steward" not in told
    one = a.run(member_main, "gov", "parameters", "epsilonReleaseMicro").stdout
    assert "rule 5    epsilonReleaseMicro <= epsilonTotalMicro" in one
    store = ParameterStore(a.chain.deployment.parameters)
    name = a.chain.deployment.name
    a.chain.devnet.transact(name, STEWARD, store.steer({"epsilonReleaseMicro": 7_500_000}))
    told = a.run(coordinator_main, "gov", "parameters").stdout
    assert "7,500,000 *" in told
    assert "* by the steward, until 2025-" in told
    a.chain.devnet.transact(name, GUARDIAN, store.pause())
    assert "PAUSED" in a.run(member_main, "gov", "parameters").stdout


def test_refusals_are_typed(assembly):
    g = assembly.governance
    for changes, error in (
        ({"corrupt": 3}, JointlyAbsurd),
        ({"cohortMin": 1}, OutOfBounds),
        ({"none": 1}, UnknownParameter),
    ):
        with pytest.raises(error):
            g.draft(Change(parameters=changes), "x")
    with pytest.raises(WouldFail):
        g.draft(Change(expel=(99,)), "x")
    with pytest.raises(BadInput, match="--why"):
        g.draft(Change(parameters={"cohortMin": 5}), "  ")
    assert ask(assembly.chain.rpc, ModelRegistry(g.at.model_registry).latest_version()) == 0


def test_nothing_was_proposed_yet(assembly):
    assert "Nothing was proposed yet" in assembly.run(member_main, "gov", "show").stdout
    assert "none was made yet" in assembly.refused(0, "vote", "0x1234", "for")
    assert "proposal or choice is missing" in assembly.refused(0, "vote", "0x1234")


def test_help_teaches_and_loads_nothing_heavy():
    for main in (coordinator_main, member_main):
        for words in ((), ("propose",), ("vote",), ("sign-vote",), ("queue",), ("show",)):
            assert command(main, "gov", *words, "--help").returncode == 0
    assert command(coordinator_main, "deploy", "--help").returncode == 0
    code = (
        "import sys, server.cli, clients.cli; "
        "heavy = {'torch', 'flwr', 'numpy', 'aiohttp', 'pydantic'} & set(sys.modules); "
        "assert not heavy, heavy"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
