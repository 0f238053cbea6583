"""A release from its first round to its published hash, over any transport.

`Exchange` is the transport: it takes an action and a body for each seat, and gives the bodies of
those that replied in time. Flower messages are one (`server.app`). The transcript is written as the
release goes, one fsynced frame a round, and is all the state there is: a coordinator that starts
again reads it and goes on at the same vector.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal

from fedtrade.artifact import Artifact, sha256_of
from fedtrade.privacy.aggregation import Trajectory, check_cost, epsilon_micro
from fedtrade.privacy.transcript import Masked, RoundRecord
from fedtrade.protocol import ReleaseTerms, Sign, encode
from server.rounds import Left, Round, drop_alone
from server.store import TranscriptFile

Action = Literal["upload", "ready", "answer", "endorse"]
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
        self.spent = 0
        """Rounds begun, abandoned ones included."""
        self._sign = sign
        self._post = post_manifest
        self._store = store
        for number in store.resume(terms, base_bytes, self.trajectory):
            self.spent = number

    @property
    def rounds_left(self) -> int:
        return self.terms.parameters.rounds - self.spent

    def run_round(self, exchange: Exchange) -> RoundReport:
        """One round. Raises RoundAbandoned: the model stays, the round's ε is spent."""
        terms, trajectory = self.terms, self.trajectory
        self.spent += 1
        self._store.begin(self.spent)
        current = Round(terms, self.spent, trajectory.model)
        announcement = encode(current.announce(trajectory.vector_bytes, self._sign))
        members = {seat.id: announcement for seat in terms.members}
        drop_alone(current.upload, exchange("upload", members), current.left_out, "member")
        intakes = {h: encode(intake) for h, intake in current.close(self._sign).items()}
        drop_alone(current.ready, exchange("ready", intakes), current.left_out, "helper")
        manifest = current.commit(self._sign)
        self._post(terms.release, current.number, manifest.content())
        questions = dict.fromkeys(manifest.responders, encode(manifest))
        drop_alone(current.answer, exchange("answer", questions), current.left_out, "helper")
        total, cohort = current.sum()
        trajectory.step(total, cohort, len(manifest.responders))
        self._store.append(
            RoundRecord(
                uploads=tuple(
                    Masked(statement=current.uploads[m].statement, masked=current.uploads[m].masked)
                    for m in cohort
                ),
                readies=tuple(current.readies[h] for h in sorted(current.readies)),
                manifest=manifest,
                answers=tuple(current.answers[h] for h in manifest.responders),
            )
        )
        return RoundReport(current.number, cohort, manifest.responders, tuple(current.left_out))

    def finish(self) -> Finished:
        """Close the transcript and give the artifact that it proves."""
        micro = epsilon_micro(self.terms, self.spent)
        artifact = self.trajectory.artifact(micro)
        digest = sha256_of(artifact)
        return Finished(artifact, digest, micro, self._store.close(self.spent, micro, digest))


def endorsements(exchange: Exchange, terms: ReleaseTerms, body: bytes) -> Mapping[int, bytes]:
    """Ask every member to recompute the release and sign its hash; gives seat -> reply."""
    return exchange("endorse", dict.fromkeys((seat.id for seat in terms.members), body))
