"""A coordinator that holds its own key, may build any message, and asks as a deployment would.

Every question goes through the members' own Flower app, so that what comes back is what a coordinator
really sees: the body of a reply, or the name of a refusal and nothing else. Each refusal must also
stand in the log of the party that refused, with what is wrong and what to do.
"""

import itertools
import logging
from dataclasses import dataclass
from functools import cache

import numpy as np
from flwr.app import ConfigRecord, Message, RecordDict
from scipy.stats import chisquare

from clients.app import make_app
from clients.floor import Floor
from clients.helper import Helper
from clients.keys import MemberKeys
from consortium import rehearsal
from consortium.grid import LocalGrid
from consortium.rehearsal import SMALL, Board, Consortium, Party, RandomPositions, small_base
from fedtrade.privacy import masking
from fedtrade.privacy.aggregation import ring_of
from fedtrade.privacy.agreement import NO_BEACON, draft_of
from fedtrade.protocol import (
    Approval,
    Intake,
    Question,
    decode,
    encode,
    sha256,
    sign_message,
)
from server.rounds import Round

THREE = SMALL.model_copy(update={"helpers": 3, "corrupt": 1, "cohort_min": 4})
FIVE = SMALL
"""Five helpers, two of them bad."""

LANES = {
    "mask": THREE,
    "five": FIVE,
    "certificate": THREE.model_copy(update={"agreement": "certificate"}),
    "norm": THREE.model_copy(update={"update_norm_max": 8.0}),
    "buckets": THREE.model_copy(update={"bucket_min": 3, "cohort_min": 6}),
    "local": THREE.model_copy(update={"local_steps": 2}),
    "bfv": THREE.model_copy(update={"aggregation": "bfv", "weight_max": 2}),
    "bfv-certificate": THREE.model_copy(
        update={"aggregation": "bfv", "agreement": "certificate", "noise_multiplier": 1.0}
    ),
}
"""Every way in which a release may be run."""


@cache
def person(index):
    """One member's keys: the same for all tests of this process."""
    return MemberKeys.ephemeral()


COORDINATOR = MemberKeys.ephemeral()
_CEREMONIES = {}


def ceremony(terms, parties):
    """(terms with the key, record) of lane C, made once for a draft: it is the slowest part."""
    if terms.digest not in _CEREMONIES:
        _CEREMONIES[terms.digest] = rehearsal.make_key(terms, parties)
    return _CEREMONIES[terms.digest]


def key_record(terms):
    """The record of the ceremony that made these terms' key, or None."""
    made = _CEREMONIES.get(terms.model_copy(update={"key_sha256": ""}).digest)
    return None if made is None else made[1]


def gather(folder, parameters=THREE, members=6, board=None, base=None, release=1, count=40):
    """A consortium whose keys are known, and its board."""
    base = base or small_base()
    parties = [
        Party(
            seat=i + 1,
            name=f"member-{i + 1}",
            keys=person(i),
            positions=RandomPositions(count, 6, seed=i),
            folder=folder / f"member-{i + 1}",
        )
        for i in range(members)
    ]
    terms = rehearsal.make_terms(parties, parameters, base, COORDINATOR.address, release)
    key = None
    if parameters.aggregation == "bfv":
        terms, key = ceremony(terms, parties)
    board = board or Board()
    consortium = Consortium(
        parties,
        terms,
        base,
        board,
        COORDINATOR.sign_digest,
        folder / "coordinator",
        Floor(epsilon_limit=20.0),
        key,
    )
    return consortium, board


@dataclass
class Refused:
    """What a coordinator learns from a refusal: its name."""

    name: str
    logged: str


class _Heard(logging.Handler):
    def __init__(self):
        super().__init__(logging.WARNING)
        self.lines = []

    def emit(self, record):
        self.lines.append(record.getMessage())


class Adversary:
    """The coordinator. `number` is the round that it attacks."""

    def __init__(self, folder, lane="mask", members=6, number=1, release=1, **more):
        self.lane, self.folder, self.number = lane, folder, number
        self.p = LANES[lane]
        self.consortium, self.board = gather(folder, self.p, members, release=release, **more)
        self.terms = self.consortium.terms
        self.desks = self.consortium.desks
        self.helpers = {s: d.helper for s, d in self.desks.items() if d.helper}
        self.trajectory = self.consortium.release.trajectory
        self.heard = _Heard()
        logging.getLogger("fedtrade.member").addHandler(self.heard)
        # node 2 holds seat 1; a desk may be replaced (a helper that starts again)
        app = make_app(lambda context: self.desks[context.node_id - 1])
        self.grid = LocalGrid(app, nodes=members)
        self.round = Round(self.terms, number, self.trajectory.model)

    def close(self):
        logging.getLogger("fedtrade.member").removeHandler(self.heard)
        self.grid.close()
        self.consortium.close()

    def sign(self, message, keys=COORDINATOR):
        return sign_message(self.terms, message, keys.sign_digest)

    def ask(self, action, seat, message):
        """The body of the reply, or Refused."""
        body = message if isinstance(message, bytes) else encode(message)
        content = RecordDict({"fedtrade": ConfigRecord({"body": body})})
        question = Message(content, dst_node_id=seat + 1, message_type=f"query.{action}")
        before = len(self.heard.lines)
        (reply,) = self.grid.send_and_receive([question], timeout=60)
        record = reply.content.config_records["fedtrade"]
        if "body" in record:
            return record["body"]
        (logged,) = self.heard.lines[before:]
        assert len(logged) > 20
        return Refused(record["refused"].decode(), logged)

    def refused(self, action, seat, message):
        """The name of the refusal. A reply with a body is a failed test."""
        reply = self.ask(action, seat, message)
        assert isinstance(reply, Refused), f"{action} was answered"
        return reply.name

    # a round, as far as the attack needs it

    def announcement(self, vector=None):
        vector = self.trajectory.vector_bytes if vector is None else vector
        current = self.round if sha256(vector) == self.round.model else None
        current = current or Round(self.terms, self.number, sha256(vector))
        return current.announce(vector, COORDINATOR.sign_digest)

    def collect(self, alter=None):
        """All uploads; `alter(seat, bytes)` stands for a modified member."""
        announcement = self.announcement()
        for seat in self.desks:
            data = self.ask("upload", seat, announcement)
            data = alter(seat, data) if alter else data
            self.round.upload(data)
        closed = self.round.close(COORDINATOR.sign_digest)
        self.intakes = {seat: decode(Intake, data) for seat, data in closed.items()}
        return self

    def make_ready(self):
        for seat in self.helpers:
            self.round.ready(self.ask("ready", seat, self.intakes[seat]))
        if self.p.update_norm_max is not None:
            for seat, panel in self.round.inspect(COORDINATOR.sign_digest).items():
                self.round.check(self.ask("check", seat, panel))
        if self.p.bucket_min is not None:
            drafted = self.round.draft(COORDINATOR.sign_digest)
            for seat in drafted.manifest.responders:
                self.round.draw(self.ask("draw", seat, drafted))
        self.manifest = self.round.commit(COORDINATOR.sign_digest)
        return self

    def question(self, sign_with=COORDINATOR, readies=None, checks=None, approvals=(), **change):
        """A question about a manifest with some fields changed, signed, with all that proves it."""
        responders = change.get("responders", self.manifest.responders)
        if readies is None:
            readies = tuple(self.round.readies[h] for h in responders if h in self.round.readies)
            change = {"readies": tuple(r.content() for r in readies), **change}
        manifest = self.sign(self.manifest.model_copy(update=change), sign_with)
        if checks is None:
            checks = tuple(self.round.checks[h] for h in responders if h in self.round.checks)
        return Question(
            manifest=manifest,
            readies=tuple(readies),
            draws=tuple(self.round.draws[h] for h in responders if h in self.round.draws),
            checks=checks,
            approvals=tuple(approvals),
        )

    def subset(self, *seats):
        """The fields of a manifest over these members only."""
        place = {member: i for i, member in enumerate(self.manifest.cohort)}
        return {
            "cohort": tuple(seats),
            "uploads": tuple(self.manifest.uploads[place[s]] for s in seats),
        }

    def finalise(self, question):
        """Do what makes a manifest final: post it, or gather all the approvals that can be had.

        Gives the question to ask with, or the name of the first refusal of an approval.
        """
        manifest = question.manifest
        if self.p.agreement == "chain":
            self.board.manifests[(manifest.release, manifest.round)] = manifest.content()
            return question
        approvals = []
        for seat in self.helpers:
            reply = self.ask("approve", seat, question)
            if isinstance(reply, Refused):
                return reply.name
            approvals.append(decode(Approval, reply))
        return question.model_copy(update={"approvals": tuple(approvals)})

    def outcome(self, question, seat=1):
        """The name of what stops this question, or the bytes of an answer.

        With buckets on, another manifest than the one they were drawn for needs draws of its own; the
        old ones are tried as well, and must not do.
        """
        refused = self._draw_again(question, seat)
        final = self.finalise(question)
        if isinstance(final, str):
            return refused or final
        reply = self.ask("answer", seat, final)
        if refused is not None:
            assert isinstance(reply, Refused), "answered under draws for another manifest"
            return refused
        return reply.name if isinstance(reply, Refused) else reply

    def _draw_again(self, question, seat):
        """The name of what stops a draw for a changed manifest; None where it is not changed."""
        drafted = self.round.drafted
        if drafted is None or draft_of(question.manifest) == draft_of(drafted):
            return None
        manifest = self.sign(question.manifest.model_copy(update={"beacon": NO_BEACON}))
        asked = question.model_copy(update={"manifest": manifest, "draws": ()})
        return self.refused("draw", seat, asked)

    def restart(self, seat):
        """The helper's process is killed and started again on its own folder."""
        before = self.helpers[seat]
        before.close()
        again = Helper(
            seat,
            before._keys,
            self.terms,
            self.folder / f"member-{seat}",
            self.board.final,
            3,
            key_record(self.terms),
        )
        self.helpers[seat] = self.desks[seat].helper = again
        return again


def resigned(adversary, kind, seat, data, **change):
    """A message of a seat that its owner has altered and signed again: a bad member or helper."""
    message = decode(kind, data).model_copy(update=change)
    return encode(sign_message(adversary.terms, message, person(seat - 1).sign_digest))


def seeds_held(adversary, seats):
    """member -> subset -> seed, of all that these helpers hold between them."""
    p = adversary.p
    found = {}
    for seat in seats:
        helper = adversary.helpers[seat]
        mine = masking.seeds_of(helper.index, p.helpers, p.corrupt)
        for member, seeds in helper._open.seeds.values():
            found.setdefault(member, {}).update(zip(mine, seeds, strict=True))
    return found


def stripped(adversary, member, seats):
    """A member's masked vector without every mask that these helpers can take away."""
    d, ring = adversary.terms.dimension, ring_of(adversary.terms)
    masked = adversary.round.uploads[member].masked
    vector = np.frombuffer(masked, ring.newbyteorder("<"), count=d).copy()
    context = masking.member_context(adversary.round.context, member)
    prg = masking.Prg(d, ring)
    for seed in seeds_held(adversary, seats)[member].values():
        vector -= prg(seed, context)
    return vector


def byte_p_value(vectors):
    """Chi-square of the bytes of some vectors against the uniform: the p-value."""
    data = np.concatenate([np.frombuffer(v.tobytes(), np.uint8) for v in vectors])
    return chisquare(np.bincount(data, minlength=256)).pvalue


def crafted(arrays, seed, slope=1000.0, saturation=11.0):
    """A model of two dense layers under which a position's rows are huge and nearly opposite.

    The Gram sum of its gradient's norm cancels in float64, and its gradient does not.
    """
    rng = np.random.default_rng(seed)
    made = {name: np.zeros_like(array) for name, array in arrays.items()}
    made |= {name: array for name, array in arrays.items() if name.startswith("fixed.")}
    made["dense0.weight"] = rng.standard_normal(arrays["dense0.weight"].shape).astype(np.float32)
    made["dense0.bias"] += np.float32(saturation)
    row = 0.1 * rng.standard_normal(arrays["dense1.weight"].shape[1]).astype(np.float32)
    made["dense1.weight"][0], made["dense1.weight"][1] = row, row[::-1]
    head = slope / (4 * np.exp(-2 * saturation))
    made["head.weight"][0, 0], made["head.weight"][0, 1] = head, -head
    return made


def splits(honest):
    """Every way in which honest helpers may be shown manifest A, manifest B, or none."""
    return itertools.product("AB-", repeat=honest)
