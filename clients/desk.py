"""What sits at one machine of the consortium: a member, a helper, or both; and what it may be asked.

`Desk.act` is the only way in from any transport: an action of `protocol.Action` and a body of bytes,
a reply of bytes or a FedtradeError. Whatever transport carries it, the same checks run behind it.

A desk that is opened from its owner's settings joins a release when it is briefed: it checks what it
was handed against its own node of the home chain (or against the policy hashes that its owner has
approved) and keeps the briefing, so that after a restart it is seated again at once.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final, Protocol, Self, TypeVar

import msgspec

from clients.budget import Budget
from clients.helper import FinalManifest, Helper
from clients.homechain import (
    check_terms,
    closed_rounds,
    final_manifests,
    parameters_in_force,
)
from clients.keys import MemberKeys
from clients.settings import MemberSettings
from fedtrade.artifact import load
from fedtrade.chain.parameter_store import InForce
from fedtrade.chain.quorum import reader
from fedtrade.channel import Role
from fedtrade.errors import FedtradeError, Refusal
from fedtrade.privacy.aggregation import spend_of
from fedtrade.protocol import (
    Action,
    Briefing,
    Endorsement,
    ReleaseTerms,
    WrongBinding,
    decode,
    encode,
)

if TYPE_CHECKING:  # a helper needs neither torch nor polars, and nobody TenSEAL but lane C
    from clients.dealer import Dealer
    from clients.member import Member
    from clients.positions import PrivatePositions

P = TypeVar("P")

BRIEFING_FILE: Final = "briefing.bin"


class NotSeated(Refusal):
    """A question for a role that this desk does not have, or has not been briefed for."""

    def __init__(self, role: str) -> None:
        super().__init__(f"there is no {role} of a release at this desk; brief it, or ask another")
        self.role = role


class Unapproved(Refusal):
    """Terms that neither the home chain nor the owner's own file confirms."""

    def __init__(self, policy_hash: str) -> None:
        super().__init__(
            f"terms {policy_hash} are not among approved_terms in this party's own file. Read them; "
            "if you agree, add the hash"
        )
        self.policy_hash = policy_hash


class Opener(Protocol):
    """Makes the parties of a desk from what a briefing says, after checking it."""

    def member(self, briefing: Briefing) -> Member: ...

    def helper(self, briefing: Briefing) -> Helper: ...

    def dealer(self, terms: ReleaseTerms) -> Dealer: ...


class Desk:
    """A member, a helper, or both, and what they may be asked."""

    def __init__(
        self,
        roles: Mapping[Role, int],
        opener: Opener | None = None,
        member: Member | None = None,
        helper: Helper | None = None,
    ) -> None:
        self.roles = dict(roles)
        self.member = member
        self.helper = helper
        self._opener = opener
        self._dealer: Dealer | None = None
        self._acts: dict[Action, Callable[[bytes], bytes]] = {
            "join": self._join,
            "serve": self._serve,
            "deal": self._deal,
            "reveal": lambda body: self._of(self._dealer, "dealer").reveal(body),
            "rehearse": lambda body: self._of(self._dealer, "dealer").rehearse(body),
            "upload": lambda body: self._of(self.member, "member").upload(body),
            "endorse": self._endorse,
            "ready": lambda body: self._of(self.helper, "helper").ready(body),
            "check": lambda body: self._of(self.helper, "helper").check(body),
            "draw": lambda body: self._of(self.helper, "helper").draw(body),
            "approve": lambda body: self._of(self.helper, "helper").approve(body),
            "answer": lambda body: self._of(self.helper, "helper").answer(body),
        }

    @classmethod
    def open(cls, settings: MemberSettings) -> Desk:
        """The desk of a settings file; seated again where it was when it stopped."""
        opener = FromFiles(settings)
        desk = cls(settings.seats.roles, opener)
        briefing = opener.last_briefing()
        if briefing is not None:
            if "member" in desk.roles:
                desk.member = opener.member(briefing)
            if "helper" in desk.roles:
                desk.helper = opener.helper(briefing)
        return desk

    def act(self, action: Action, body: bytes) -> bytes:
        """Do what is asked, or raise a FedtradeError. One question at a time."""
        if action not in self._acts:
            raise NotSeated(f"party that can {action!r}")
        return self._acts[action](body)

    def _of(self, party: P | None, role: str) -> P:
        if party is None:
            raise NotSeated(role)
        return party

    def _join(self, body: bytes) -> bytes:
        briefing = decode(Briefing, body)
        if self.member is None or self.member.terms != briefing.terms:
            opener = self._of(self._opener, "member")
            if self.member is not None:
                self.member.budget.close()
                self.member = None
            self.member = opener.member(briefing)
        return briefing.terms.digest

    def _serve(self, body: bytes) -> bytes:
        briefing = decode(Briefing, body)
        if self.helper is None or self.helper.terms != briefing.terms:
            opener = self._of(self._opener, "helper")
            if self.helper is not None:
                self.helper.close()
                self.helper = None
            self.helper = opener.helper(briefing)
        return briefing.terms.digest

    def _deal(self, body: bytes) -> bytes:
        terms = decode(ReleaseTerms, body)
        self._dealer = self._of(self._opener, "helper").dealer(terms)
        return self._dealer.commit()

    def _endorse(self, body: bytes) -> bytes:
        asked = decode(Endorsement, body)
        member = self._of(self.member, "member")
        return msgspec.msgpack.encode(
            member.endorse(asked.transcript, asked.version, asked.uri, asked.registries)
        )

    def close(self) -> None:
        """Give ledger and log free for another process."""
        if self.member is not None:
            self.member.budget.close()
        if self.helper is not None:
            self.helper.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class FromFiles:
    """Opens a party from its owner's settings, keys, positions and ledger."""

    def __init__(self, settings: MemberSettings) -> None:
        self._settings = settings
        self._keys = MemberKeys.load(settings.keys)
        self._path = settings.folder / BRIEFING_FILE
        self._positions: PrivatePositions | None = None

    def last_briefing(self) -> Briefing | None:
        """What was kept of the last release that this party joined."""
        return decode(Briefing, self._path.read_bytes()) if self._path.exists() else None

    def member(self, briefing: Briefing) -> Member:
        """This party as a member of a release. Raises Refusal where it does not agree."""
        settings, terms = self._settings, briefing.terms
        seat = settings.seats.member
        if seat is None:
            raise NotSeated("member")
        from clients.member import Member

        closed = self._check(terms)
        base = load(briefing.base, terms.base_sha256)
        budget = Budget(settings.ledger, settings.floor.epsilon_limit, settings.floor.delta_max)
        try:
            budget.presume(terms.release, closed, spend_of(terms, 1))
            member = Member(
                seat,
                self._keys,
                self._read_positions(),
                budget,
                settings.floor,
                terms,
                base,
                briefing.key,
                self._in_force(),
            )
        except FedtradeError:
            budget.close()
            raise
        self._keep(briefing)
        return member

    def helper(self, briefing: Briefing) -> Helper:
        """This party as a helper of a release. Raises Refusal where it does not agree."""
        settings, terms = self._settings, briefing.terms
        seat = settings.seats.helper
        if seat is None:
            raise NotSeated("helper")
        self._check(terms)
        helper = Helper(
            seat,
            self._keys,
            terms,
            settings.folder,
            self._final(),
            settings.helper.cohort_min,
            briefing.key,
            self._in_force(),
        )
        self._keep(briefing)
        return helper

    def dealer(self, terms: ReleaseTerms) -> Dealer:
        """This party's hand in making the collective key of lane C."""
        seat = self._settings.seats.helper
        if seat is None:
            raise NotSeated("helper")
        from clients.dealer import Dealer

        self._check_coordinator(terms)
        return Dealer(terms, seat, self._keys)

    def _check(self, terms: ReleaseTerms) -> list[int]:
        """Refuse terms that nobody but the coordinator vouches for; gives the closed rounds."""
        home = self._settings.home_chain
        self._check_coordinator(terms)
        if home is None:
            if terms.digest.hex() not in self._settings.approved_terms:
                raise Unapproved(terms.digest.hex())
            return []
        if (terms.chain_id, terms.registry) != (home.chain_id, home.registry):
            raise WrongBinding("release", "registry", home.registry, terms.registry)
        with reader(home.rpc_urls, home.chain_id) as rpc:
            check_terms(rpc, home.membership, terms)
            return closed_rounds(rpc, terms)

    def _check_coordinator(self, terms: ReleaseTerms) -> None:
        wanted = self._settings.coordinator.address
        if terms.coordinator != wanted:
            raise WrongBinding("release", "coordinator", wanted, terms.coordinator)

    def _final(self) -> FinalManifest:
        home = self._settings.home_chain
        if home is None:
            return lambda release, round_number: None
        rpc = reader(home.rpc_urls, home.chain_id)
        return final_manifests(rpc, home.registry, home.final_block)

    def _in_force(self) -> Callable[[], InForce] | None:
        home = self._settings.home_chain
        if home is None:
            return None
        rpc = reader(home.rpc_urls, home.chain_id)
        return parameters_in_force(rpc, home.registry, home.final_block)

    def _read_positions(self) -> PrivatePositions:
        from clients.positions import PrivatePositions
        from fedtrade.learning.tables import candles, markets

        if self._positions is None:
            assert self._settings.positions is not None  # MemberSettings
            until = self._settings.until or datetime.now(UTC)
            known = {market: candles(*market) for market in markets()}
            self._positions = PrivatePositions.load(
                self._settings.positions, known, int(until.timestamp())
            )
        return self._positions

    def _keep(self, briefing: Briefing) -> None:
        draft = self._path.with_suffix(".draft")
        draft.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        with draft.open("wb") as file:
            file.write(encode(briefing))
            file.flush()
            os.fsync(file.fileno())
        os.replace(draft, self._path)
