"""The plan of a deployment: its template works once it is filled in, and mistakes are named."""

import tomllib

import pytest
from founding import GUARDIAN, plan_text, seat, write_plan

from clients.keys import MemberKeys
from fedtrade.chain.plan import PLAN_TEMPLATE, DeploymentPlan, FoundingPlan, GovernancePlan
from fedtrade.errors import BadInput

MEMBERS = [MemberKeys.ephemeral() for _ in range(4)]
URL = "http://127.0.0.1:1"


def loaded(folder, **replaced):
    return DeploymentPlan.load(write_plan(folder, URL, MEMBERS, **replaced))


def test_the_template_is_toml_and_names_every_field():
    raw = tomllib.loads(PLAN_TEMPLATE)
    assert set(raw) | {"mirror_signatures"} == set(DeploymentPlan.model_fields)
    named = set(raw["governance"]) | {"steward"}
    assert named == set(GovernancePlan.model_fields)
    for name, value in raw["governance"].items():
        if name != "guardian":
            assert value == GovernancePlan.model_fields[name].default


def test_the_template_as_it_is_deploys_nothing(tmp_path):
    path = tmp_path / "plan.toml"
    path.write_text(PLAN_TEMPLATE)
    with pytest.raises(BadInput, match="cannot be the zero address"):
        DeploymentPlan.load(path)
    path.write_text(plan_text(URL, MEMBERS, quoter=f'"0x{"00" * 20}"'))
    with pytest.raises(BadInput, match="quoter of aster is the zero address"):
        DeploymentPlan.load(path)


def test_a_filled_in_template_is_a_plan(tmp_path):
    plan = loaded(tmp_path)
    assert [s.mask for s in plan.seats] == [3] * 4
    assert plan.governed.epsilon_release_micro == 8_000_000
    assert plan.site("aster").rpc_url == URL


@pytest.mark.parametrize(
    ("replaced", "named"),
    [
        ({"home": '"birch"'}, "home: 'birch' is not among the chains"),
        ({"quorum_bps": "3333"}, "governance.quorum_bps"),
        ({"timelock_delay_s": "59"}, "governance.timelock_delay_s"),
        ({"late_quorum_s": "432001"}, "late_quorum_s: at most voting_period_s"),
        ({"guardian": '"0x12"'}, "an address has 40 hex digits"),
        ({"guardian": f'"0x{"00" * 20}"'}, "name who may cancel and pause"),
        ({"steward": f'"{GUARDIAN}"'}, "one key must not have both offices"),
        ({"epsilonReleaseMicro": "30000000"}, "epsilonReleaseMicro cannot be 30000000"),
        ({"epsilonReleaseMicro": "20000000", "quorumBps": "5000"}, "quorumBps cannot be 5000"),
        ({"max_fee_gwei": "0"}, "max_fee_gwei"),
        ({"confirmations": "-1"}, "confirmations"),
    ],
)
def test_mistakes_are_named(tmp_path, replaced, named):
    with pytest.raises(BadInput) as refused:
        loaded(tmp_path, **replaced)
    assert named in str(refused.value)


@pytest.mark.parametrize(
    ("text", "named"),
    [
        (seat(MEMBERS[0]), "two of them have account"),
        (seat(MemberKeys.ephemeral(), '"king"'), "roles"),
        (seat(MemberKeys.ephemeral(), ""), "roles"),
        (seat(MemberKeys.ephemeral()).replace("x25519", "# x25519"), "needs an encryption key"),
        ("[x]\n", "x: Extra inputs"),
    ],
)
def test_seats_are_checked(tmp_path, text, named):
    path = tmp_path / "plan.toml"
    path.write_text(plan_text(URL, MEMBERS) + text)
    with pytest.raises(BadInput) as refused:
        DeploymentPlan.load(path)
    assert named in str(refused.value)


def test_jointly_absurd_parameters_are_refused(tmp_path):
    path = tmp_path / "plan.toml"
    text = plan_text(URL, MEMBERS)
    path.write_text(text.replace("[parameters]", "[parameters]\ncorrupt = 3", 1))
    with pytest.raises(BadInput, match="break rule 1, CommitteeStands"):
        DeploymentPlan.load(path)


def test_too_few_members_found_nothing(tmp_path):
    path = tmp_path / "plan.toml"
    path.write_text(plan_text(URL, MEMBERS[:2]))
    with pytest.raises(BadInput, match="three members at least"):
        DeploymentPlan.load(path)


def test_the_digest_is_of_what_is_deployed_and_not_of_the_way_there(tmp_path):
    digest = loaded(tmp_path).digest(b"code")
    for same in ({"rpc_url": '"http://other:1"'}, {"max_fee_gwei": "3"}, {"confirmations": "5"}):
        assert loaded(tmp_path, **same).digest(b"code") == digest
    for other in ({"quorum_bps": "6000"}, {"chain_id": "5"}, {"pool": f'"{GUARDIAN}"'}):
        assert loaded(tmp_path, **other).digest(b"code") != digest
    assert loaded(tmp_path).digest(b"other") != digest


def test_a_founding_plan_may_be_without_seats():
    plan = FoundingPlan(governance=GovernancePlan(guardian=GUARDIAN))
    assert plan.seats == ()
    assert plan.governed.quorum_bps == 6_667
