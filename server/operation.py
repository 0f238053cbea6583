"""A release from the coordinator's settings to its publication, over any transport.

`Operation.drive` is handed an `Exchange` and does the rest: brief everybody, run the rounds, close
the transcript, gather signatures, publish. Every step can be repeated: an operation that was killed
starts again from the same settings and goes on where the transcript ends.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Mapping
from typing import Final, Self

import msgspec

from fedtrade.chain.conversation import ask
from fedtrade.chain.deployment import Deployment
from fedtrade.channel import Role
from fedtrade.errors import Fault, Stale
from fedtrade.protocol import (
    HELPER_ACTIONS,
    MEMBER_ACTIONS,
    Action,
    Briefing,
    Endorsement,
    KeyRecord,
    encode,
    publication_digest,
    recover,
)
from server.keys import CoordinatorKeys
from server.opening import Chains, draw_up, read_base, with_key, write_whole
from server.release import Exchange, Finished, Release, endorsements
from server.rounds import RoundAbandoned
from server.settings import CoordinatorSettings, ReleaseSettings
from server.store import TranscriptFile

ABANDONED_MAX: Final = 3
"""Rounds in a row that may end without a sum before the operator is called."""
TRANSCRIPT_FILE: Final = "transcript.bin"
KEY_FILE: Final = "collective-key.bin"
ARTIFACT_FILE: Final = "artifact.safetensors"
SIGNATURES_FILE: Final = "endorsements.json"

Report = Callable[[str, int, int], None]
"""(what is going on, done, of how many)."""
Heard = Callable[[Role], Collection[int]]
"""Seats of a role that are there now, as far as the transport knows."""


def timeouts_s(release: ReleaseSettings) -> dict[Action, float]:
    """How long an exchange of each action waits at most: what happens once a release takes long."""
    once: tuple[Action, ...] = ("join", "serve", "deal", "reveal", "rehearse", "endorse")
    actions = (*MEMBER_ACTIONS, *HELPER_ACTIONS)
    return {
        action: release.release_timeout_s if action in once else release.round_timeout_s
        for action in actions
    }


class RoundsFail(Stale):
    """Round after round ends without a sum."""

    def __init__(self, last: RoundAbandoned) -> None:
        super().__init__(
            f"{ABANDONED_MAX} rounds in a row were abandoned. The last one: {last.message}. "
            "Then start again: the release goes on where it stopped"
        )
        self.last = last


class TooFewJoined(Stale):
    """Not enough members or helpers have joined for any round to end well."""

    def __init__(self, role: Role, joined: Collection[int], needed: int) -> None:
        super().__init__(
            f"{len(joined)} {role}s have joined and {needed} are needed. Ask the others what their "
            "logs say, then start again"
        )
        self.role = role
        self.joined = tuple(sorted(joined))
        self.needed = needed


class TooFewSigned(Stale):
    """The members' signatures are fewer than a quorum."""

    def __init__(self, signed: int, needed: int) -> None:
        super().__init__(
            f"{signed} members have signed and {needed} are needed to publish. The transcript is "
            "closed and whole; bring members up and start again"
        )
        self.signed = signed
        self.needed = needed


class Operation:
    """One release on the coordinator's machine. Use as a context manager."""

    def __init__(self, settings: CoordinatorSettings, report: Report) -> None:
        """Read keys, base and seats. In lane C the terms are complete only once `drive` is on."""
        self.settings = settings
        self._report = report
        self._keys = CoordinatorKeys.load(settings.keys)
        self._chains = (
            None
            if settings.deployment is None
            else Chains(Deployment.load(settings.deployment), self._keys)
        )
        self._base = read_base(settings.release)
        self.terms = draw_up(settings, self._keys.address, self._base, self._chains)
        self._key: KeyRecord | None = None
        self._joined: dict[Role, set[int]] = {"helper": set(), "member": set()}

    def drive(self, exchange: Exchange, heard: Heard = lambda role: ()) -> Finished:
        """Run the release to its end. Raises Stale where it can go on later, Refusal and Fault.

        `heard` lets parties join late: whoever is there and has not joined is briefed again.
        """
        if self.terms.parameters.aggregation == "bfv":
            self._report("helpers make the collective key", 0, 1)
            self.terms, self._key = with_key(
                self.terms, exchange, self.settings.release_folder / KEY_FILE
            )
        if self._chains is not None:
            self._obey()
            self._chains.open_release(self.terms)
        release = Release(
            self.terms,
            self._base.artifact,
            self._base.content,
            TranscriptFile(self.settings.release_folder / TRANSCRIPT_FILE),
            self._keys.sign_digest,
            self._post_manifest,
        )
        self._brief(exchange)
        self._rounds(release, exchange, heard)
        finished = release.finish()
        write_whole(self.settings.release_folder / ARTIFACT_FILE, finished.artifact)
        self._publish(exchange, finished)
        return finished

    def _post_manifest(self, release: int, round_number: int, manifest: bytes) -> None:
        if self._chains is None:
            raise Fault("a manifest for a chain, and there is none. Set agreement = 'certificate'")
        self._chains.post_manifest(release, round_number, manifest)

    def _brief(self, exchange: Exchange) -> None:
        """Hand terms and base model to everybody; enough must accept them."""
        terms = self.terms
        members = {seat.id for seat in terms.members}
        helpers = {seat.id for seat in terms.helpers}
        self._report("members and helpers join", 0, len(members) + len(helpers))
        self._ask_to_join(exchange, "helper", helpers)
        self._ask_to_join(exchange, "member", members)
        joined = sum(map(len, self._joined.values()))
        self._report("members and helpers join", joined, len(members) + len(helpers))
        self._need("member", terms.parameters.cohort_min)
        self._need("helper", terms.parameters.corrupt + 1)

    def _need(self, role: Role, needed: int) -> None:
        if len(self._joined[role]) < needed:
            raise TooFewJoined(role, self._joined[role], needed)

    def _ask_to_join(self, exchange: Exchange, role: Role, seats: Collection[int]) -> None:
        action: Action = "join" if role == "member" else "serve"
        body = encode(Briefing(terms=self.terms, base=self._base.content, key=self._key))
        replies = exchange(action, dict.fromkeys(seats, body))
        self._joined[role] |= {s for s, reply in replies.items() if reply == self.terms.digest}

    def _rounds(self, release: Release, exchange: Exchange, heard: Heard) -> None:
        total = self.terms.parameters.rounds
        abandoned = 0
        while release.rounds_left:
            self._report(f"rounds ({release.trajectory.steps} with a sum)", release.spent, total)
            for role, joined in self._joined.items():
                late = set(heard(role)) - joined
                if late:
                    self._ask_to_join(exchange, role, late)
            self._obey()
            try:
                release.run_round(exchange)
                abandoned = 0
            except RoundAbandoned as error:
                abandoned += 1
                if abandoned == ABANDONED_MAX:
                    raise RoundsFail(error) from error
        self._report(f"rounds ({release.trajectory.steps} with a sum)", release.spent, total)

    def _obey(self) -> None:
        """Go on only while governance allows it. Raises EverythingPaused, LooserThanGoverned."""
        if self._chains is not None:
            self._chains.in_force().require_obeyed(self.terms.parameters)

    def _publish(self, exchange: Exchange, finished: Finished) -> None:
        """Gather a quorum of endorsements and publish on every chain that has not the model yet."""
        release, terms = self.settings.release, self.terms
        chains = self._chains
        registries = (
            {terms.chain_id: terms.registry}
            if chains is None
            else {p.chain.chain_id: p.chain.model_registry.lower() for p in chains.publishers}
        )
        self._report("members recompute the release and sign", 0, 1)
        body = encode(
            Endorsement(
                transcript=finished.transcript,
                version=release.version,
                uri=release.uri,
                registries=registries,
            )
        )
        signed = self._signatures(endorsements(exchange, terms, body), finished, registries)
        by_chain = {
            str(chain_id): {signer: signature.hex() for signer, signature in found.items()}
            for chain_id, found in signed.items()
        }
        write_whole(
            self.settings.release_folder / SIGNATURES_FILE,
            json.dumps(by_chain, indent=2, sort_keys=True).encode() + b"\n",
        )
        if chains is not None:
            for publisher in chains.publishers:
                signatures = signed[publisher.chain.chain_id]
                standing = ask(chains.rpc(publisher), publisher.registry.release(terms.release))
                stands = standing.version == release.version  # published before a restart
                if not stands and len(signatures) < standing.signatures_needed:
                    raise TooFewSigned(len(signatures), standing.signatures_needed)
                publisher.publish(terms, finished, release.version, release.uri, signatures)
        elif len(signed[terms.chain_id]) * 2 <= len(terms.members):
            raise TooFewSigned(len(signed[terms.chain_id]), len(terms.members) // 2 + 1)
        self._report("members recompute the release and sign", 1, 1)

    def _signatures(
        self, replies: Mapping[int, bytes], finished: Finished, registries: Mapping[int, str]
    ) -> dict[int, dict[str, bytes]]:
        """chain id -> signer -> signature, of those that sign exactly this publication."""
        release = self.settings.release
        found: dict[int, dict[str, bytes]] = {chain_id: {} for chain_id in registries}
        for seat, reply in replies.items():
            signer = self.terms.member(seat).signer
            try:
                given = msgspec.msgpack.decode(reply, type=dict[int, bytes])
            except (msgspec.MsgspecError, ValueError):
                continue  # one bad reply is dropped alone
            for chain_id, registry in registries.items():
                digest = publication_digest(
                    chain_id,
                    registry,
                    self.terms.release,
                    release.version,
                    bytes.fromhex(finished.artifact_sha256),
                    release.uri,
                    finished.epsilon_micro,
                )
                signature = given.get(chain_id, b"")
                if len(signature) == 65 and recover(digest, signature) == signer:
                    found[chain_id][signer] = signature
        return found

    def close(self) -> None:
        if self._chains is not None:
            self._chains.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
