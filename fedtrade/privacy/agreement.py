"""What makes a manifest one that may be answered: its form, its buckets, its checks, its certificate.

Helpers, the coordinator and every verifier judge a manifest with these functions. A manifest is
*final* when it stands on the home chain, or, where the release says so, when enough helpers have
signed it; a helper signs one a round, so two different manifests of a round cannot both be final
while no more than c helpers are bad.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from fedtrade.errors import Refusal
from fedtrade.privacy import norm
from fedtrade.privacy.aggregation import buckets_of, norm_plan
from fedtrade.protocol import (
    Approval,
    Check,
    Draw,
    Malformed,
    Manifest,
    Question,
    Ready,
    ReleaseTerms,
    WrongBinding,
    check,
    sha256,
)


class NormExceeded(Refusal):
    """An update whose hidden norm is not within the bound, or whose proof of it is false."""

    def __init__(self, member: int) -> None:
        super().__init__(
            f"member {member}: its hidden norm is not shown to be within the bound. "
            "Leave it out of the cohort"
        )
        self.member = member


class NotCertified(Refusal):
    """A manifest without the signatures that would make it final."""

    def __init__(self, found: int, needed: int) -> None:
        super().__init__(
            f"the manifest carries {found} valid signatures of helpers and needs {needed}. "
            "Gather them, or start a new round"
        )
        self.found = found
        self.needed = needed


NO_BEACON = bytes(32)


def nonce_sha256(nonce: bytes) -> bytes:
    """How readiness commits to a nonce."""
    return sha256(b"fedtrade nonce|" + nonce)


def beacon_of(draws: Sequence[Draw]) -> bytes:
    """What draws the buckets: sha256 over the responders' nonces, in the order of their seats.

    Nonces are committed to before the cohort is fixed and shown after it, so neither the coordinator
    nor a bad helper can choose a partition; who does not like one can only end the round.
    """
    return sha256(b"fedtrade beacon|" + b"".join(draw.nonce for draw in draws))


def draft_of(manifest: Manifest) -> bytes:
    """What a nonce is shown for: the manifest's content but for its beacon."""
    return manifest.model_copy(update={"beacon": NO_BEACON}).content()


def check_draws(terms: ReleaseTerms, question: Question) -> None:
    """Refuse a manifest whose buckets were not drawn by its responders. Raises Refusal."""
    manifest, draws = question.manifest, question.draws
    if terms.parameters.bucket_min is None:
        if draws or manifest.beacon != NO_BEACON:
            raise Malformed("Manifest", "a beacon where there are no buckets")
        return
    if tuple(d.helper for d in draws) != manifest.responders:
        raise Malformed("Draw", f"nonces do not match the responders {manifest.responders}")
    for draw, ready in zip(draws, question.readies, strict=True):
        check(terms, draw, terms.helper(draw.helper).signer, manifest.round)
        if draw.draft != draft_of(manifest):
            raise WrongBinding("Draw", "draft", draft_of(manifest).hex(), draw.draft.hex())
        if nonce_sha256(draw.nonce) != ready.nonce_sha256:
            raise Malformed("Draw", f"helper {draw.helper}: not the nonce that it committed to")
    if beacon_of(draws) != manifest.beacon:
        raise WrongBinding("Manifest", "beacon", beacon_of(draws).hex(), manifest.beacon.hex())


def check_form(terms: ReleaseTerms, manifest: Manifest, cohort_min: int) -> None:
    """Refuse a manifest whose cohort, groups, weights or responders are not in order.

    `cohort_min` is the least number of members in any sum that would be unmasked.
    """
    p, cohort = terms.parameters, manifest.cohort
    if list(cohort) != sorted(set(cohort)):
        raise Malformed("Manifest", "the cohort is not in ascending order, or lists a member twice")
    for member in cohort:
        terms.member(member)
    if len(manifest.uploads) != len(cohort):
        raise Malformed("Manifest", "cohort and uploads differ in length")
    for group in buckets_of(terms, manifest) if cohort else ((),):
        if len(group) < cohort_min:
            raise Malformed(
                "Manifest", f"a sum of {len(group)} members is below the minimum of {cohort_min}"
            )
    responders = manifest.responders
    if list(responders) != sorted(set(responders)):
        raise Malformed("Manifest", "the responders are not distinct helpers in order")
    for helper in responders:
        terms.helper(helper)
    if len(responders) < terms.responders_min:
        raise Malformed(
            "Manifest", f"{len(responders)} responders, {terms.responders_min} are needed"
        )
    if manifest.weights and (
        len(manifest.weights) != len(cohort) or max(manifest.weights) > p.weight_max
    ):
        raise Malformed("Manifest", f"weights are not one of 1..{p.weight_max} for each member")


def check_readies(terms: ReleaseTerms, manifest: Manifest, readies: Sequence[Ready]) -> None:
    """Refuse a manifest whose responders were not ready for its cohort. Raises Refusal."""
    if tuple(r.helper for r in readies) != manifest.responders:
        raise Malformed("Ready", f"readiness does not match the responders {manifest.responders}")
    for ready in readies:
        check(terms, ready, terms.helper(ready.helper).signer, manifest.round)
        if not set(manifest.uploads) <= set(ready.accepted):
            raise Malformed("Ready", f"helper {ready.helper} did not accept the whole cohort")
    if tuple(r.content() for r in readies) != manifest.readies:
        raise WrongBinding("Manifest", "readies", "those shown", "others")


def passing(
    terms: ReleaseTerms, checks: Mapping[int, Check], uploads: Sequence[bytes]
) -> dict[bytes, bool]:
    """Statement hash -> whether its check words of all helpers add up to what they must."""
    verdicts = {}
    for place, content in enumerate(uploads):
        total = np.zeros(norm.WORDS, np.uint64)
        for given in checks.values():
            words = given.words[place]
            if len(words) != 8 * norm.WORDS:
                raise Malformed("Check", f"{len(words)} bytes of check words")
            total += np.frombuffer(words, "<u8")
        verdicts[content] = norm.verdict(total)
    return verdicts


def check_norms(terms: ReleaseTerms, manifest: Manifest, checks: Sequence[Check]) -> None:
    """Refuse a cohort with a member whose hidden norm was not shown to be within the bound.

    Raises Malformed, WrongAuthor, WrongBinding or NormExceeded. Does nothing where norms are not
    checked.
    """
    if norm_plan(terms) is None:
        return
    if tuple(c.helper for c in checks) != manifest.responders:
        raise Malformed("Check", f"check words do not match the responders {manifest.responders}")
    for given in checks:
        check(terms, given, terms.helper(given.helper).signer, manifest.round)
        if given.responders != manifest.responders or given.uploads != checks[0].uploads:
            raise Malformed("Check", f"helper {given.helper} checked another panel")
        if given.model != manifest.model or len(given.words) != len(given.uploads):
            raise Malformed("Check", f"helper {given.helper}: words of another round")
    verdicts = passing(terms, {c.helper: c for c in checks}, checks[0].uploads)
    for member, content in zip(manifest.cohort, manifest.uploads, strict=True):
        if not verdicts.get(content, False):
            raise NormExceeded(member)


def check_certificate(
    terms: ReleaseTerms, manifest: Manifest, approvals: Sequence[Approval]
) -> None:
    """Refuse a manifest that too few helpers have signed. Raises NotCertified, WrongAuthor."""
    content = manifest.content()
    signed = set()
    for approval in approvals:
        check(terms, approval, terms.helper(approval.helper).signer, manifest.round)
        if approval.manifest == content:
            signed.add(approval.helper)
    if len(signed) < terms.certificate_min:
        raise NotCertified(len(signed), terms.certificate_min)
