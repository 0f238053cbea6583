"""The record of a key ceremony: who said what, and the collective key that follows from it.

The mathematics is `collective`; here are its messages. The ceremony happens before a release is
opened, so it is bound to the terms without a key (`draft`), which name committee, chain and
parameters; the finished record's sha256 then stands in the terms themselves. Whoever joins checks
the whole record: commitments before reveals, proofs, signatures, and the rehearsal by which it is
known that the shares belong to the key.
"""

from __future__ import annotations

from collections.abc import Sequence

from fedtrade.errors import Refusal
from fedtrade.privacy import collective
from fedtrade.protocol import (
    KeyCommit,
    KeyRecord,
    KeyRehearsal,
    KeyReveal,
    Malformed,
    ReleaseTerms,
    WrongBinding,
    check,
    encode,
    sha256,
)

ROUND = 0
"""The ceremony comes before the first round."""
NO_MODEL = bytes(32)


class NoKey(Refusal):
    """Lane C without a record of the ceremony that made its key."""

    def __init__(self) -> None:
        super().__init__(
            "this release encrypts under a collective key and comes without the record of how it was "
            "made. Ask the coordinator for the record; join nothing without it"
        )


def draft(terms: ReleaseTerms) -> ReleaseTerms:
    """The terms as they were before there was a key."""
    return terms.model_copy(update={"key_sha256": ""})


def context(terms: ReleaseTerms) -> bytes:
    """What binds every part of the ceremony: the draft's digest."""
    return b"fedtrade ceremony|" + draft(terms).digest


def commits_sha256(commits: Sequence[KeyCommit]) -> bytes:
    """What a reveal is bound to: all commitments, in the order of the seats."""
    return sha256(b"".join(commit.content() for commit in commits))


def reveals_sha256(reveals: Sequence[KeyReveal]) -> bytes:
    """What a rehearsal is bound to: all reveals, in the order of the seats."""
    return sha256(b"".join(reveal.content() for reveal in reveals))


def check_commits(terms: ReleaseTerms, commits: Sequence[KeyCommit]) -> None:
    """Refuse commitments that are not one of every helper, signed. Raises Refusal."""
    if tuple(c.helper for c in commits) != tuple(seat.id for seat in terms.helpers):
        raise Malformed("KeyCommit", "not one commitment of every helper, in the order of seats")
    for commit in commits:
        check(draft(terms), commit, terms.helper(commit.helper).signer, ROUND)


def check_reveals(
    terms: ReleaseTerms, commits: Sequence[KeyCommit], reveals: Sequence[KeyReveal]
) -> bytes:
    """Refuse reveals that are not those committed to, with proofs; gives the collective key."""
    check_commits(terms, commits)
    if tuple(r.helper for r in reveals) != tuple(seat.id for seat in terms.helpers):
        raise Malformed("KeyReveal", "not one reveal of every helper, in the order of seats")
    about = context(terms)
    for index, (commit, reveal) in enumerate(zip(commits, reveals, strict=True)):
        check(draft(terms), reveal, terms.helper(reveal.helper).signer, ROUND)
        if reveal.commits != commits_sha256(commits):
            raise WrongBinding("KeyReveal", "commitments", "those shown", "others")
        if len(reveal.boxes) != len(terms.helpers):
            raise Malformed("KeyReveal", f"helper {reveal.helper}: not one box for every helper")
        collective.verify_reveal(reveal.part, commit.part, about, index)
    return collective.collective_key([r.part for r in reveals], about)


def check_record(terms: ReleaseTerms, record: KeyRecord | None) -> bytes:
    """The collective key of a release, after checking all of its ceremony. Raises Refusal."""
    if record is None or not terms.key_sha256:
        raise NoKey
    found = sha256(encode(record)).hex()
    if found != terms.key_sha256:
        raise WrongBinding("release", "record of the key ceremony", terms.key_sha256, found)
    key = check_reveals(terms, record.commits, record.reveals)
    check_rehearsals(terms, key, record.reveals, record.rehearsals)
    return key


def check_rehearsals(
    terms: ReleaseTerms,
    key: bytes,
    reveals: Sequence[KeyReveal],
    rehearsals: Sequence[KeyRehearsal],
) -> None:
    """Refuse a key whose shares do not decrypt what it encrypts. Raises SharesInconsistent."""
    if tuple(r.helper for r in rehearsals) != tuple(seat.id for seat in terms.helpers):
        raise Malformed("KeyRehearsal", "not one rehearsal of every helper, in the order of seats")
    p = terms.parameters
    subsets = collective.rehearsals(p.helpers, p.corrupt)
    partials: dict[tuple[int, ...], dict[int, bytes]] = {subset: {} for subset in subsets}
    for index, rehearsal in enumerate(rehearsals):
        check(draft(terms), rehearsal, terms.helper(rehearsal.helper).signer, ROUND)
        mine = [subset for subset in subsets if index in subset]
        if rehearsal.reveals != reveals_sha256(reveals) or len(rehearsal.partials) != len(mine):
            raise Malformed("KeyRehearsal", f"helper {rehearsal.helper} rehearsed another key")
        for subset, partial in zip(mine, rehearsal.partials, strict=True):
            partials[subset][index] = partial
    collective.check_consistency(key, partials, p.helpers, p.corrupt)
