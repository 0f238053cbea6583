"""A helper's hand in making the collective key of lane C.

Commit, reveal, rehearse: three questions before a release is opened. Everything that a dealer brings
is expanded from its committee key and the draft of the terms, so it gives the same replies however
often it is asked or restarted, and keeps nothing: its share of the secret follows at any time from
its key and the public record.
"""

from __future__ import annotations

from typing import Any

import msgspec
import numpy as np
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305

from clients.keys import MemberKeys
from fedtrade.errors import Refusal
from fedtrade.privacy import ceremony, collective, masking, threshold
from fedtrade.privacy.lattice import Residues
from fedtrade.protocol import (
    UNSIGNED,
    KeyCommit,
    KeyRecord,
    KeyRehearsal,
    KeyReveal,
    Malformed,
    ReleaseTerms,
    WrongBinding,
    decode,
    encode,
    sign_message,
)


class ShareUnreadable(Refusal):
    """A share of the secret that does not open: its dealer made it wrongly, or it was altered."""

    def __init__(self, dealer: int) -> None:
        super().__init__(
            f"the share that helper {dealer} dealt to this one does not open. "
            "Begin the ceremony again without it"
        )
        self.dealer = dealer


class Dealer:
    """One helper in one ceremony. `terms` may be the draft or the terms with the key in them."""

    def __init__(self, terms: ReleaseTerms, seat: int, keys: MemberKeys) -> None:
        found = terms.helper(seat)
        if found.signer != keys.address.lower() or found.x25519 != keys.x25519_public:
            raise WrongBinding("release", f"keys of helper {seat}", found.signer, keys.address)
        self.terms = ceremony.draft(terms)
        self._keys = keys
        self._seat = seat
        self._index = [s.id for s in terms.helpers].index(seat)
        self._about = ceremony.context(terms)

    def commit(self) -> bytes:
        """The encoded KeyCommit."""
        part = self._dealing().reveal
        message = KeyCommit(
            **self._header(),
            part=collective.commitment_of(part, self._about, self._index),
        )
        return encode(sign_message(self.terms, message, self._keys.sign_digest))

    def reveal(self, data: bytes) -> bytes:
        """The encoded KeyReveal, once everybody has committed. `data`: all commitments, encoded."""
        commits = [decode(KeyCommit, body) for body in _bodies(data)]
        ceremony.check_commits(self.terms, commits)
        dealing = self._dealing()
        mine = collective.commitment_of(dealing.reveal, self._about, self._index)
        if commits[self._index].part != mine:
            raise WrongBinding("KeyCommit", "own commitment", mine.hex(), "another")
        boxes = tuple(
            ChaCha20Poly1305(self._box_key(other, dealt=True)).encrypt(bytes(12), share, None)
            for other, share in enumerate(dealing.shares)
        )
        message = KeyReveal(
            **self._header(),
            commits=ceremony.commits_sha256(commits),
            part=dealing.reveal,
            boxes=boxes,
        )
        return encode(sign_message(self.terms, message, self._keys.sign_digest))

    def rehearse(self, data: bytes) -> bytes:
        """The encoded KeyRehearsal. `data`: all commitments, then all reveals, encoded."""
        bodies = _bodies(data)
        m = len(self.terms.helpers)
        if len(bodies) != 2 * m:
            raise Malformed("KeyRehearsal", f"{len(bodies)} messages, not {2 * m}")
        commits = [decode(KeyCommit, body) for body in bodies[:m]]
        reveals = [decode(KeyReveal, body) for body in bodies[m:]]
        key = ceremony.check_reveals(self.terms, commits, reveals)
        share = self._key_share(reveals)
        p = self.terms.parameters
        _, encrypted = collective.rehearsal(key)
        bound = ceremony.reveals_sha256(reveals)
        nothing = np.zeros(collective.REHEARSED, np.int64)
        partials = [
            threshold.partial(
                share,
                self._index,
                subset,
                p.corrupt,
                encrypted.c1,
                self._pairs(subset, bound),
                nothing,
                self._keys.derive(b"fedtrade smudge", bound + bytes(subset)),
                bound,
            )
            for subset in collective.rehearsals(p.helpers, p.corrupt)
            if self._index in subset
        ]
        message = KeyRehearsal(**self._header(), reveals=bound, partials=tuple(partials))
        return encode(sign_message(self.terms, message, self._keys.sign_digest))

    def share(self, terms: ReleaseTerms, record: KeyRecord | None) -> tuple[bytes, Residues]:
        """(collective key, this helper's share of its secret), after checking the whole record."""
        key = ceremony.check_record(terms, record)
        assert record is not None  # check_record
        return key, self._key_share(record.reveals)

    def _header(self) -> dict[str, Any]:
        return {
            "release": self.terms.release,
            "round": ceremony.ROUND,
            "terms": self.terms.digest,
            "model": ceremony.NO_MODEL,
            "helper": self._seat,
            "signature": UNSIGNED,
        }

    def _dealing(self) -> collective.Dealing:
        p = self.terms.parameters
        seed = self._keys.derive(b"fedtrade dealing", self._about)
        return collective.deal(seed, self._about, self._index, p.helpers, p.corrupt)

    def _box_key(self, other: int, dealt: bool) -> bytes:
        """Key of the box from one helper to another; used for that one box."""
        dealer, holder = (self._index, other) if dealt else (other, self._index)
        shared = self._keys.x25519_exchange(self.terms.helpers[other].x25519)
        label = self._about + bytes([dealer, holder])
        return masking.derive(shared, b"fedtrade key share", label)

    def _key_share(self, reveals: tuple[KeyReveal, ...] | list[KeyReveal]) -> Residues:
        shares = []
        for dealer, reveal in enumerate(reveals):
            box = ChaCha20Poly1305(self._box_key(dealer, dealt=False))
            try:
                shares.append(box.decrypt(bytes(12), reveal.boxes[self._index], None))
            except InvalidTag:
                raise ShareUnreadable(reveal.helper) from None
        return collective.key_share(shares)

    def _pairs(self, responders: tuple[int, ...], label: bytes) -> dict[int, bytes]:
        return {
            other: masking.derive(
                self._keys.x25519_exchange(self.terms.helpers[other].x25519),
                b"fedtrade zero",
                label,
            )
            for other in responders
            if other != self._index
        }


def _bodies(data: bytes) -> list[bytes]:
    try:
        return msgspec.msgpack.decode(data, type=list[bytes])
    except msgspec.MsgspecError:
        raise Malformed("ceremony", "not a list of messages") from None
