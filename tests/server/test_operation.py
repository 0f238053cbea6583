"""From settings to a published release, over plain calls: resumes, late parties, forged signatures."""

import json

import msgspec
import pytest

from clients.dealer import Dealer
from clients.homechain import check_terms, final_manifests
from clients.keys import MemberKeys
from consortium.rehearsal import SMALL, Board, Consortium, Party, RandomPositions, small_base
from fedtrade.chain.contracts import (
    COORDINATOR,
    HELPER,
    MEMBER,
    ContractRefused,
    Membership,
    ModelRegistry,
)
from fedtrade.chain.conversation import ask
from fedtrade.chain.parameter_store import EverythingPaused, ParameterStore
from fedtrade.errors import BadInput, Refusal
from fedtrade.governed import LooserThanGoverned
from fedtrade.privacy.transcript import verify, verify_file
from fedtrade.protocol import Briefing, decode, encode, sha256
from server.keymaking import CeremonyIncomplete
from server.keys import CoordinatorKeys
from server.opening import with_key
from server.operation import Operation, RoundsFail, TooFewJoined, TooFewSigned, timeouts_s
from server.settings import CoordinatorSettings

MEMBERS = 5
KEYS = [MemberKeys.ephemeral() for _ in range(MEMBERS)]
PARAMETERS = SMALL.model_copy(update={"agreement": "certificate", "rounds": 4})
GOVERNED = {"sampling_rate": 0.05, "epsilon_cap": 8.0}
"""What local chains' parameters allow."""
BASE = small_base()


def silent(*_):
    pass


def settings_in(folder, parameters=PARAMETERS):
    seats = [
        {"id": i + 1, "signer": k.address.lower(), "x25519": k.x25519_public.hex()}
        for i, k in enumerate(KEYS)
    ]
    folder.mkdir(parents=True, exist_ok=True)
    if not (folder / "coordinator.key").exists():
        CoordinatorKeys.create(folder)
        (folder / "base.safetensors").write_bytes(BASE)
    return CoordinatorSettings.model_validate(
        {
            "folder": folder / "releases",
            "keys": folder,
            "tls": folder,
            "channel": {"port": 0},
            "release": {
                "number": 1,
                "version": 1,
                "base": folder / "base.safetensors",
                "members": [{**seat, "positions": 40} for seat in seats],
                "helpers": seats[: parameters.helpers],
                "round_timeout_s": 5.0,
                "parameters": parameters.model_dump(),
            },
        }
    )


@pytest.fixture
def consortium(tmp_path):
    """Everybody's desks, for the terms that these settings make."""
    with Operation(settings_in(tmp_path / "coordinator"), silent) as operation:
        terms = operation.terms
    parties = [
        Party(i + 1, f"member-{i + 1}", k, RandomPositions(40, 6, seed=i), tmp_path / f"{i + 1}")
        for i, k in enumerate(KEYS)
    ]
    made = Consortium(parties, terms, BASE, Board(), lambda digest: bytes(65), tmp_path / "unused")
    yield made
    made.close()


def operation(tmp_path, report=silent):
    return Operation(settings_in(tmp_path / "coordinator"), report)


def test_a_release_from_settings_to_signatures(tmp_path, consortium):
    told = []
    with operation(tmp_path, lambda *news: told.append(news)) as running:
        finished = running.drive(consortium.direct())
    folder = tmp_path / "coordinator" / "releases" / "release-1"
    assert verify_file(folder / "transcript.bin").artifact_sha256 == finished.artifact_sha256
    assert (folder / "artifact.safetensors").read_bytes() == finished.artifact
    signed = json.loads((folder / "endorsements.json").read_text())
    assert set(signed["0"]) == {k.address.lower() for k in KEYS}
    assert ("members and helpers join", 10, 10) in told
    assert ("rounds (4 with a sum)", 4, 4) in told


def test_a_coordinator_that_is_killed_goes_on_and_ends_in_the_same_hash(tmp_path, consortium):
    class Killed(BaseException):
        pass

    direct, asked = consortium.direct(), []

    def dies(action, bodies):
        asked.append(action)
        if len(asked) == dies.after:
            raise Killed
        return direct(action, bodies)

    for after in (1, 4, 8, 11):  # joining, in rounds, endorsing
        dies.after, asked[:] = after, []
        with operation(tmp_path) as running, pytest.raises(Killed):
            running.drive(dies)
    with operation(tmp_path) as running:
        finished = running.drive(direct)
    proved = verify(finished.transcript)
    assert (proved.steps, proved.rounds_spent) == (4, 4)
    with operation(tmp_path) as running:
        assert running.drive(direct) == finished  # once more changes nothing


def test_a_forged_endorsement_is_dropped_alone(tmp_path, consortium):
    direct = consortium.direct()

    def exchange(action, bodies):
        replies = dict(direct(action, bodies))
        if action == "endorse":
            replies[1] = replies[2]  # somebody else's
            replies[3] = b"not msgpack"
            replies[4] = msgspec.msgpack.encode({0: b"short"})
        return replies

    with operation(tmp_path) as running, pytest.raises(TooFewSigned, match="2 members have signed"):
        running.drive(exchange)
    with operation(tmp_path) as running:
        assert verify(running.drive(direct).transcript).steps == 4


def test_a_false_word_of_joining_does_not_count(tmp_path, consortium):
    direct = consortium.direct()

    def exchange(action, bodies):
        if action == "join":
            return {
                seat: bytes(32) if seat < 3 else reply
                for seat, reply in direct(action, bodies).items()
            }
        return direct(action, bodies)

    with operation(tmp_path) as running, pytest.raises(TooFewJoined, match="3 members have joined"):
        running.drive(exchange)


def test_whoever_comes_late_is_briefed_before_the_next_round(tmp_path, consortium):
    direct, there, briefed = consortium.direct(), {1, 2, 3, 4}, []

    def exchange(action, bodies):
        if action in ("join", "serve"):
            briefed.append((action, sorted(bodies)))
            assert decode(Briefing, next(iter(bodies.values()))).terms == consortium.terms
        if action == "ready":
            there.add(5)  # from the first round on
        return direct(action, {seat: body for seat, body in bodies.items() if seat in there})

    with operation(tmp_path) as running:
        finished = running.drive(exchange, heard=lambda role: set(there))
    assert briefed[0] == ("serve", [1, 2, 3, 4, 5])
    assert ("join", [5]) in briefed[2:]
    assert briefed.count(("join", [5])) == 1
    assert verify(finished.transcript).steps == 4


def test_round_after_round_without_a_sum_calls_the_operator(tmp_path, consortium):
    direct = consortium.direct(lose=lambda action, seat: action == "upload" and seat > 3)
    with operation(tmp_path) as running, pytest.raises(RoundsFail, match="3 rounds in a row"):
        running.drive(direct)
    with operation(tmp_path) as running:  # one round is left of four
        finished = running.drive(consortium.direct())
    proved = verify(finished.transcript)
    assert (proved.steps, proved.rounds_spent) == (1, 4)


def lane_c(tmp_path):
    chosen = PARAMETERS.model_copy(update={"aggregation": "bfv", "helpers": 3, "corrupt": 1})
    return settings_in(tmp_path / "coordinator", chosen)


def test_lane_c_needs_every_helper_before_anything_else(tmp_path):
    asked = []

    def exchange(action, bodies):
        asked.append((action, sorted(bodies)))
        return {1: b"", 2: b""}

    with Operation(lane_c(tmp_path), silent) as running:
        assert running.terms.key_sha256 == ""
        with pytest.raises(CeremonyIncomplete, match=r"helpers \[3\] did not answer at .deal."):
            running.drive(exchange)
    assert asked == [("deal", [1, 2, 3])]


def test_lane_c_makes_its_key_once_and_keeps_it(tmp_path):
    with Operation(lane_c(tmp_path), silent) as running:
        draft = running.terms
    dealers = {seat.id: Dealer(draft, seat.id, KEYS[seat.id - 1]) for seat in draft.helpers}

    def exchange(action, bodies):
        acts = {
            "deal": lambda d, _: d.commit(),
            "reveal": Dealer.reveal,
            "rehearse": Dealer.rehearse,
        }
        return {helper: acts[action](dealers[helper], body) for helper, body in bodies.items()}

    kept = tmp_path / "key.bin"
    final, record = with_key(draft, exchange, kept)
    assert final.key_sha256 == sha256(encode(record)).hex()
    assert final.digest != draft.digest
    assert with_key(draft, None, kept) == (final, record)  # nobody is asked again
    kept.write_bytes(kept.read_bytes()[:-1] + b"x")
    with pytest.raises(Refusal):
        with_key(draft, None, kept)


def test_what_happens_once_a_release_takes_its_own_time(tmp_path):
    limits = timeouts_s(settings_in(tmp_path).release)
    assert limits["endorse"] == limits["join"] == 600.0
    assert limits["upload"] == limits["answer"] == 5.0


def test_a_base_that_is_not_there_is_one_sentence(tmp_path):
    settings = settings_in(tmp_path)
    (tmp_path / "base.safetensors").unlink()
    with pytest.raises(BadInput, match="no artifact"):
        Operation(settings, silent)


def test_terms_that_cannot_be_are_one_sentence(tmp_path):
    settings = settings_in(tmp_path)
    members = settings.release.members
    twice = (members[0], members[1], *members[1:])
    release = settings.release.model_copy(update={"members": twice})
    with pytest.raises(BadInput, match="listed twice"):
        Operation(settings.model_copy(update={"release": release}), silent)


@pytest.mark.chain
def test_a_release_on_chains_is_opened_posted_and_published_once(tmp_path, chains):
    home = chains.deployment.chain(chains.deployment.home)
    folder = tmp_path / "coordinator"
    given = settings_in(folder)
    coordinator = CoordinatorKeys.load(folder)
    chains.fund(home.name, coordinator.address, native_wei=10**20)
    membership = Membership(home.membership)
    for place, k in enumerate(KEYS):
        roles = MEMBER | (HELPER if place < PARAMETERS.helpers else 0)
        call = membership.admit(k.address, k.address, k.x25519_public, roles)
        chains.govern(home.name, call)
    call = membership.admit(coordinator.address, coordinator.address, bytes(32), COORDINATOR)
    chains.govern(home.name, call)
    rpc = chains.rpc(home.name)
    ids = [ask(rpc, Membership(home.membership).id_of_signer(k.address)) for k in KEYS]
    chains.deployment.save(tmp_path / "deployment.json")
    release = {
        **given.release.model_dump(),
        "members": [{"id": seat, "positions": 40} for seat in ids],
        "helpers": [{"id": seat} for seat in ids[: PARAMETERS.helpers]],
        "parameters": {**PARAMETERS.model_dump(), **GOVERNED, "agreement": "chain", "rounds": 3},
    }
    settings = CoordinatorSettings.model_validate(
        {**given.model_dump(), "deployment": tmp_path / "deployment.json", "release": release}
    )
    with Operation(settings, silent) as running:
        terms = running.terms
    assert [seat.signer for seat in terms.members] == [k.address.lower() for k in KEYS]
    board = Board()
    final = final_manifests(rpc, home.model_registry, "latest")
    board.final = final
    parties = [
        Party(seat, f"m{seat}", k, RandomPositions(40, 6, seed=i), tmp_path / str(seat))
        for i, (seat, k) in enumerate(zip(ids, KEYS, strict=True))
    ]
    consortium = Consortium(
        parties, terms, BASE, board, lambda digest: bytes(65), tmp_path / "unused"
    )
    direct = consortium.direct()

    class Killed(BaseException):
        pass

    def dies(action, bodies):
        if action == "answer":  # the manifest stands on the chain already
            raise Killed
        return direct(action, bodies)

    with Operation(settings, silent) as running, pytest.raises(Killed):
        running.drive(dies)
    check_terms(rpc, home.membership, terms)
    assert final(1, 1) is not None
    store = ParameterStore(home.parameters)

    def governed_meanwhile(action, bodies):
        if action == "answer" and final(1, 2) is not None:  # in the midst of the second round
            chains.govern(home.name, store.set({"epsilonReleaseMicro": 4_000_000}))
        return direct(action, bodies)

    with Operation(settings, silent) as running, pytest.raises(LooserThanGoverned) as refused:
        running.drive(governed_meanwhile)
    assert "epsilon_cap 8.0 is above 4.0" in refused.value.message
    assert final(1, 3) is None
    chains.govern(home.name, store.set({"epsilonReleaseMicro": 8_000_000}))
    chains.govern(home.name, store.pause())
    with Operation(settings, silent) as running, pytest.raises(EverythingPaused):
        running.drive(direct)
    chains.govern(home.name, store.unpause())
    with Operation(settings, silent) as running:
        finished = running.drive(direct)
    with Operation(settings, silent) as running:
        assert running.drive(direct) == finished
    consortium.close()
    assert verify(finished.transcript).steps == 3
    model = ask(rpc, ModelRegistry(home.model_registry).model(1))
    assert model.sha256 == finished.artifact_sha256
    changed = {**release, "parameters": {**release["parameters"], "clip_norm": 0.5}, "version": 2}
    other = CoordinatorSettings.model_validate({**settings.model_dump(), "release": changed})
    with Operation(other, silent) as running, pytest.raises(ContractRefused):
        running.drive(direct)
