"""A release from its first round to its published hash, over any transport.

`Exchange` is the transport: it takes an action and a body for each seat, and gives the bodies of
those that replied in time. Flower messages are one (`server.app`), the round channel is another
(`server.channel`). What was taken is on disk before anything is built on it (`server.store`), and
every party gives the same bytes when it is asked again: a coordinator that is killed at any point
goes on at the same step, to the same model and the same ε.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from fedtrade.artifact import Artifact, sha256_of
from fedtrade.errors import Fault, Refusal
from fedtrade.privacy.aggregation import Trajectory, check_cost, epsilon_micro, norm_plan
from fedtrade.protocol import Action, Message, ReleaseTerms, Sign, encode
from server.rounds import Left, Round, RoundAbandoned, drop_alone
from server.store import TranscriptFile

Exchange = Callable[[Action, Mapping[int, bytes]], Mapping[int, bytes]]
"""(action, seat -> body) -> seat -> reply. A seat that is late or refuses is not in the reply."""

PostManifest = Callable[[int, int, bytes], None]
"""(release, round, manifest hash): returns once it stands on the home chain."""


@dataclass(frozen=True, slots=True)
class RoundReport:
    """What an operator sees of a round."""

    number: int
    cohort: tuple[int, ...]
    responders: tuple[int, ...]
    left_out: tuple[Left, ...]


@dataclass(frozen=True, slots=True)
class Finished:
    """A release that ended in an artifact, ready to be endorsed and published."""

    artifact: bytes
    artifact_sha256: str
    epsilon_micro: int
    transcript: bytes


class Release:
    """The coordinator's side of one release."""

    def __init__(
        self,
        terms: ReleaseTerms,
        base: Artifact,
        base_bytes: bytes,
        store: TranscriptFile,
        sign: Sign,
        post_manifest: PostManifest,
    ) -> None:
        check_cost(terms)
        self.terms = terms
        self.trajectory = Trajectory(terms, base)
        self._sign = sign
        self._post = post_manifest
        self._store = store
        self.spent = store.resume(terms, base_bytes, self.trajectory)
        """Rounds that ended, abandoned ones included."""

    @property
    def rounds_left(self) -> int:
        return 0 if self._store.closed else self.terms.parameters.rounds - self.spent

    def run_round(self, exchange: Exchange) -> RoundReport:
        """One round. Raises RoundAbandoned: the model stays, the round's ε is spent."""
        current = Round(self.terms, self.spent + 1, self.trajectory.model)
        try:
            self._drive(current, exchange)
        except RoundAbandoned:
            self._store.end(current.number)
            self.spent = current.number
            raise
        self._store.append(current.record())
        self.spent = current.number
        manifest = current.question().manifest
        return RoundReport(
            current.number, manifest.cohort, manifest.responders, tuple(current.left_out)
        )

    def _drive(self, current: Round, exchange: Exchange) -> None:
        """From the announcement to the optimiser's step."""
        terms = self.terms
        announcement = encode(current.announce(self.trajectory.vector_bytes, self._sign))
        members = {seat.id: announcement for seat in terms.members}
        self._stage(current, "upload", current.upload, lambda: exchange("upload", members))
        intakes = current.close(self._sign)
        self._stage(current, "ready", current.ready, lambda: exchange("ready", intakes))
        if norm_plan(terms) is not None:
            panels = current.inspect(self._sign)
            self._stage(current, "check", current.check, lambda: exchange("check", _bodies(panels)))
        if terms.parameters.bucket_min is not None:
            draft = current.draft(self._sign)
            asked = dict.fromkeys(draft.manifest.responders, encode(draft))
            self._stage(current, "draw", current.draw, lambda: exchange("draw", asked))
        manifest = current.commit(self._sign)
        if terms.parameters.agreement == "certificate":
            shown = dict.fromkeys((h.id for h in terms.helpers), encode(current.question()))
            replies = exchange("approve", shown)
            drop_alone(current.approve, replies, current.left_out, "helper")
            current.certified()
        else:
            self._post(terms.release, current.number, manifest.content())
        questions = dict.fromkeys(manifest.responders, encode(current.question()))
        drop_alone(current.answer, exchange("answer", questions), current.left_out, "helper")
        try:
            self.trajectory.step(manifest, current.sum())
        except (Refusal, Fault) as problem:  # some share or upload is garbage, and cannot be named
            raise RoundAbandoned(terms.release, current.number, problem.message) from problem

    def _stage(
        self,
        current: Round,
        stage: Action,
        take: Callable[[bytes], int],
        ask: Callable[[], Mapping[int, bytes]],
    ) -> None:
        """Ask once for what a stage needs and keep it; after a restart take what was kept."""
        kept = self._store.kept(current.number, stage)
        if kept is None:
            replies = ask()
            role = "member" if stage == "upload" else "helper"
            taken = drop_alone(take, replies, current.left_out, role)
            self._store.keep(current.number, stage, [replies[sender] for sender in taken])
        else:
            for body in kept:
                take(body)

    def finish(self) -> Finished:
        """Close the transcript and give the artifact that it proves."""
        micro = epsilon_micro(self.terms, self.spent)
        artifact = self.trajectory.artifact(micro)
        digest = sha256_of(artifact)
        return Finished(artifact, digest, micro, self._store.close(self.spent, micro, digest))


def endorsements(exchange: Exchange, terms: ReleaseTerms, body: bytes) -> Mapping[int, bytes]:
    """Ask every member to recompute the release and sign its hash; gives seat -> reply."""
    return exchange("endorse", dict.fromkeys((seat.id for seat in terms.members), body))


def _bodies(messages: Mapping[int, Message]) -> dict[int, bytes]:
    """The encoding of each message; one that goes to several seats is encoded once."""
    encoded = {id(message): encode(message) for message in messages.values()}
    return {seat: encoded[id(message)] for seat, message in messages.items()}
