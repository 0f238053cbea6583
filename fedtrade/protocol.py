"""What member, coordinator and helper say to each other, and in what order.

A round is one aggregated DP-SGD step (DP-FedSGD). Its conversation:

    coordinator -> member    Announcement   the model of this round
    member      -> coordinator  Upload      a masked sum of clipped gradients, and sealed mask seeds
    coordinator -> helper    Intake         the signed statements and this helper's boxes
    helper      -> coordinator  Ready       which uploads it can unmask, with evidence against others
    coordinator -> helper    Inspection     (norm check on) the masked vectors and who is present
    helper      -> coordinator  Check       (norm check on) its share of every vector's check words
    coordinator -> helper    (buckets on) the manifest without its beacon
    helper      -> coordinator  Draw        its nonce, to which its readiness committed
    coordinator              Manifest       cohort and responders, once a round, before any unmasking
      agreement by chain:        posted on the home chain, one manifest a round
      agreement by certificate:  shown to the helpers; each signs one a round (Approval)
    coordinator -> helper    Question       the manifest, with its certificate and the checks
    helper      -> coordinator  Answer      its share of the masks, with noise and a share of zero

In lane C (`aggregation = "bfv"`) an upload is a ciphertext under the committee's collective key, a
helper's part of it is the ciphertext's second half, and an answer is a partial decryption; the key
is made before the release (KeyCommit, KeyReveal, KeyRehearsal). Everything else is the same.

`ORDER` is the table of what may happen when; `server.rounds` walks it and nothing else decides.

Every message is frozen, has one canonical encoding (msgpack in field order; `decode` refuses any
other bytes that would read the same) and is signed by its author over EIP-712 typed data
(https://eips.ethereum.org/EIPS/eip-712), bound to the home chain, the registry, the release and the
round. There is deliberately no message that asks for a seed, a key or a share of one member, and no
message in which a member can be both present and absent.
"""

from __future__ import annotations

import hashlib
import math
import weakref
from collections.abc import Callable
from typing import Annotated, Any, ClassVar, Final, Literal, TypeVar

import msgspec
from pydantic import Field, ValidationError

from fedtrade.errors import Refusal
from fedtrade.parameters import SCALE, Parsed, PrivacyParameters, sha256_json
from fedtrade.typed_data import MESSAGE_TYPE, kind_hash, typed_digest, word
from fedtrade.typed_data import publication_digest as publication_digest
from fedtrade.typed_data import recover as recover

MESSAGE_BYTES_MAX = 64 * 2**20
"""No message is larger; longer input is refused before it is parsed."""
TRANSCRIPT_BYTES_MAX = 2**30
"""But one: a whole transcript, which is sent once a release."""

Action = Literal[
    "join", "upload", "endorse",
    "deal", "reveal", "rehearse", "serve", "ready", "check", "draw", "approve", "answer",
]  # fmt: skip
"""What a coordinator may ask of a seat; each has one body and one reply."""
MEMBER_ACTIONS: Final[tuple[Action, ...]] = ("join", "upload", "endorse")
HELPER_ACTIONS: Final[tuple[Action, ...]] = (
    "deal", "reveal", "rehearse", "serve", "ready", "check", "draw", "approve", "answer",
)  # fmt: skip

Bytes32 = Annotated[bytes, Field(min_length=32, max_length=32)]
Signature = Annotated[bytes, Field(min_length=65, max_length=65)]
Vector = Annotated[bytes, Field(min_length=4, max_length=MESSAGE_BYTES_MAX)]
Count = Annotated[int, Field(ge=0, lt=2**63)]
RoundNumber = Annotated[int, Field(ge=0, lt=2**32)]
"""Rounds count from 1; 0 is what comes before them, the dealing of a collective key."""
Address = Annotated[str, Field(pattern=r"^0x[0-9a-f]{40}$")]
Hex32 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
Hex32OrEmpty = Annotated[str, Field(pattern=r"^([0-9a-f]{64})?$")]


class Malformed(Refusal):
    """Bytes that are not the one canonical encoding of the message that they claim to be."""

    def __init__(self, kind: str, problem: str) -> None:
        super().__init__(f"{kind} message: {problem}. Drop it; ask its author for a new one")
        self.kind = kind
        self.problem = problem


class WrongAuthor(Refusal):
    """A signature that is not the expected author's over exactly this content."""

    def __init__(self, kind: str, expected: str, found: str) -> None:
        super().__init__(
            f"{kind}: signed by {found}, but only {expected} may sign it. Drop the message"
        )
        self.kind = kind
        self.expected = expected
        self.found = found


class WrongBinding(Refusal):
    """A message for another release, round, model or set of terms than the one at hand."""

    def __init__(self, kind: str, field: str, expected: object, found: object) -> None:
        super().__init__(
            f"{kind}: {field} is {found}, but this round has {expected}. "
            "It was made for another round or altered; drop it"
        )
        self.kind = kind
        self.field = field
        self.expected = expected
        self.found = found


class Seat(Parsed):
    """A party as the Membership contract has it."""

    id: Count
    signer: Address
    x25519: Bytes32


class ReleaseTerms(Parsed):
    """What a release fixes before its first round; its digest stands on-chain as the policy hash."""

    release: Count
    chain_id: Count
    """The home chain, on which manifests become final."""
    registry: Address
    coordinator: Address
    parameters: PrivacyParameters
    members: Annotated[tuple[Seat, ...], Field(min_length=3, max_length=256)]
    positions: Annotated[tuple[Annotated[int, Field(ge=1, le=10**7)], ...], Field(min_length=3)]
    """Each member's count of positions. Public: adjacency is zero-out, so it reveals nothing."""
    helpers: Annotated[tuple[Seat, ...], Field(min_length=3, max_length=9)]
    base_sha256: Hex32
    """The artifact that the release starts from."""
    key_sha256: Hex32OrEmpty = ""
    """Lane C: the record of the ceremony that made the collective key; empty in lane B."""
    dimension: Annotated[int, Field(ge=1, le=10**7)]
    """Parameters of the model, the length of every vector."""

    def model_post_init(self, _context: Any) -> None:
        if len(self.positions) != len(self.members):
            raise ValueError("positions: give one count for each member")
        for name, seats in (("members", self.members), ("helpers", self.helpers)):
            if len({s.id for s in seats}) != len(seats):
                raise ValueError(f"{name}: a seat is listed twice")
            if len({s.signer for s in seats}) != len(seats):
                raise ValueError(f"{name}: two seats share a signer")
        if len({s.x25519 for s in self.helpers}) != len(self.helpers):
            raise ValueError("helpers: two seats share an encryption key")
        if len(self.helpers) != self.parameters.helpers:
            raise ValueError("helpers: the list does not match parameters.helpers")
        if len(self.members) < self.parameters.cohort_min:
            raise ValueError("members: fewer than parameters.cohort_min")
        norm = self.parameters.norm_units
        if norm is not None and norm < 2 + math.isqrt(self.dimension):
            raise ValueError(
                "parameters.update_norm_max: rounding alone could pass it; raise it to at least "
                f"{(3 + math.isqrt(self.dimension)) / SCALE:g}"
            )
        if self.key_sha256 and self.parameters.aggregation != "bfv":
            raise ValueError("key_sha256: lane B has no collective key")

    @property
    def digest(self) -> bytes:
        """The policy hash: sha256 over the canonical JSON of all terms (bytes as hex)."""
        known = _DIGESTS.get(id(self))
        if known is None or known[0]() is not self:
            if len(_DIGESTS) >= _DIGESTS_MAX:
                _DIGESTS.clear()
            known = _DIGESTS[id(self)] = (weakref.ref(self), _terms_digest(self))
        return known[1]

    @property
    def responders_min(self) -> int:
        """Fewest helpers that may answer a manifest.

        c + 1 remove all masks; 2c + 1 own every product of shares that a norm check needs; and where
        buckets are drawn, any two sets of responders must share an honest helper, which shows its
        nonce once.
        """
        p = self.parameters
        needed = p.corrupt + 1
        if p.update_norm_max is not None:
            needed = max(needed, 2 * p.corrupt + 1)
        if p.bucket_min is not None:
            needed = max(needed, self.certificate_min)
        return needed

    def member(self, seat_id: int) -> Seat:
        return _seat(self.members, seat_id, "member")

    def helper(self, seat_id: int) -> Seat:
        return _seat(self.helpers, seat_id, "helper")

    def member_batch_max(self) -> int:
        """Most positions one member may add up in a round without any risk of wrapping the ring."""
        return self.parameters.batch_max // len(self.members)

    @property
    def certificate_min(self) -> int:
        """Helpers whose signatures make a manifest final: ⌈(m + c + 1)/2⌉.

        Two such sets share at least c + 1 helpers, so an honest one, and it signs one a round.
        """
        p = self.parameters
        return (p.helpers + p.corrupt + 2) // 2


_DIGESTS_MAX: Final = 256
_DIGESTS: dict[int, tuple[weakref.ref[ReleaseTerms], bytes]] = {}
"""By identity, beside the (frozen) object and not in it: a copy with other fields must not keep the
old digest. Every message is checked against one, and hashing all seats takes longer than that."""


def _terms_digest(terms: ReleaseTerms) -> bytes:
    data = terms.model_dump()
    for seats in (data["members"], data["helpers"]):
        for seat in seats:
            seat["x25519"] = seat["x25519"].hex()
    return bytes.fromhex(sha256_json(data))


def _seat(seats: tuple[Seat, ...], seat_id: int, role: str) -> Seat:
    if 0 < seat_id <= len(seats) and seats[seat_id - 1].id == seat_id:
        return seats[seat_id - 1]  # most lists have no gap
    for seat in seats:
        if seat.id == seat_id:
            return seat
    raise WrongBinding("release", f"{role} seat", sorted(s.id for s in seats), seat_id)


class Message(Parsed):
    """A signed message of one round."""

    kind: ClassVar[str]
    release: Count
    round: RoundNumber
    terms: Bytes32
    model: Bytes32
    """sha256 of the round's parameters (float32, little-endian)."""

    not_content: ClassVar[set[str]] = {"signature"}

    def content(self) -> bytes:
        """sha256 over the canonical encoding of all fields but the signature."""
        data = self.model_dump(exclude=self.not_content)
        return hashlib.sha256(msgspec.msgpack.encode(data)).digest()


class Announcement(Message):
    """The coordinator opens a round and hands out its model."""

    kind: ClassVar[str] = "Announcement"
    not_content: ClassVar[set[str]] = {"signature", "vector"}
    vector: Vector
    """What `model` is the hash of: `check` compares the two, so it need not be hashed again."""
    signature: Signature


class Statement(Message):
    """What a member signs: hashes of all that it uploads, so that a helper needs only its own part."""

    kind: ClassVar[str] = "Upload"
    member: Count
    masked_sha256: Bytes32
    boxes_sha256: tuple[Bytes32, ...]
    commitments: tuple[Bytes32, ...]
    """One hash of each mask seed, in the order of `masking.subsets`; none in lane C."""
    ledger: Bytes32
    """Head of the member's ledger once this round stands on it: committed with the manifest, so
    that a ledger restored from an older copy is found out."""
    signature: Signature


class Upload(Parsed):
    """A member's one message of a round."""

    statement: Statement
    masked: Vector
    """Lane B: the masked vector. Lane C: the first half of the ciphertext."""
    boxes: tuple[Annotated[bytes, Field(max_length=MESSAGE_BYTES_MAX)], ...]
    """Lane B: one sealed box of seeds a helper. Lane C: the second half, the same for all."""

    def box(self, index: int) -> bytes:
        """What helper number `index` gets."""
        return self.boxes[index if len(self.boxes) > 1 else 0]


class SealedUpload(Parsed):
    """What one helper gets of an upload."""

    statement: Statement
    box: Annotated[bytes, Field(max_length=MESSAGE_BYTES_MAX)]


class Masked(Parsed):
    """An upload without its boxes: what was signed, and the masked vector."""

    statement: Statement
    masked: Vector


class Intake(Message):
    """The coordinator hands a helper its boxes of one round."""

    kind: ClassVar[str] = "Intake"
    uploads: tuple[SealedUpload, ...]
    signature: Signature


class Complaint(Parsed):
    """A helper's evidence against an upload.

    `box_key` opens the box with the bad seed for everybody (it is the key of that one box only);
    it is empty where the box could not be opened at all.
    """

    member: Count
    statement: Bytes32
    box_key: Annotated[bytes, Field(max_length=32)]


class Ready(Message):
    """A helper can unmask these uploads, and not those."""

    kind: ClassVar[str] = "Ready"
    helper: Count
    accepted: tuple[Bytes32, ...]
    """Content hashes of the statements that this helper can unmask."""
    complaints: tuple[Complaint, ...]
    nonce_sha256: Bytes32
    """Commits to what this helper adds to the draw of the round's random buckets."""
    signature: Signature


class Inspection(Message):
    """The coordinator asks the helpers that are present to check the norm of every vector."""

    kind: ClassVar[str] = "Inspection"
    responders: tuple[Count, ...]
    uploads: tuple[Bytes32, ...]
    """Content hashes of the statements, ascending by member."""
    vectors: tuple[Vector, ...]
    signature: Signature


class Check(Message):
    """A helper's share of the check words of every vector; all shares add up to zero if it holds."""

    kind: ClassVar[str] = "Check"
    helper: Count
    responders: tuple[Count, ...]
    uploads: tuple[Bytes32, ...]
    words: tuple[Vector, ...]
    signature: Signature


class Manifest(Message):
    """What the round binds itself to before anything is unmasked. It becomes final once a round."""

    kind: ClassVar[str] = "Manifest"
    cohort: tuple[Count, ...]
    uploads: tuple[Bytes32, ...]
    """Content hashes of the cohort's statements, in the order of `cohort`."""
    responders: tuple[Count, ...]
    readies: tuple[Bytes32, ...]
    """Content hashes of the responders' Ready messages, in the order of `responders`."""
    beacon: Bytes32
    """sha256 over the responders' nonces: what draws the buckets. Zeros where there are none."""
    weights: tuple[Annotated[int, Field(ge=1, le=16)], ...] = ()
    """Lane C: one whole number for each of the cohort; empty where all weigh 1."""
    signature: Signature


class Draw(Message):
    """A helper's nonce, shown once the round is fixed but for its buckets (buckets on)."""

    kind: ClassVar[str] = "Draw"
    helper: Count
    draft: Bytes32
    """The manifest with an empty beacon; a helper shows its nonce for one a round."""
    nonce: Bytes32
    signature: Signature


class Approval(Message):
    """A helper's one signature of a round: this manifest and no other (agreement by certificate)."""

    kind: ClassVar[str] = "Approval"
    helper: Count
    manifest: Bytes32
    signature: Signature


class Question(Parsed):
    """What a responder is asked to answer: the manifest and what it needs to judge it."""

    manifest: Manifest
    readies: tuple[Ready, ...]
    """Of the responders, in their order."""
    draws: tuple[Draw, ...] = ()
    """Of the responders, in their order: they prove the beacon."""
    checks: tuple[Check, ...] = ()
    approvals: tuple[Approval, ...] = ()


class Answer(Message):
    """A responder's share of the unmasking."""

    kind: ClassVar[str] = "Answer"
    helper: Count
    manifest: Bytes32
    share: Vector
    signature: Signature


class KeyCommit(Message):
    """A helper binds itself to its part of the collective key before it has seen another's."""

    kind: ClassVar[str] = "KeyCommit"
    helper: Count
    part: Bytes32
    signature: Signature


class KeyReveal(Message):
    """A helper's part of the collective key, and a sealed share of its secret for every helper."""

    kind: ClassVar[str] = "KeyReveal"
    helper: Count
    commits: Bytes32
    """sha256 over the commitments that it was revealed under: there is one list of them."""
    part: Vector
    boxes: tuple[Annotated[bytes, Field(max_length=MESSAGE_BYTES_MAX)], ...]
    signature: Signature


class KeyRehearsal(Message):
    """A helper's partial decryptions of a ciphertext that everybody knows the plaintext of."""

    kind: ClassVar[str] = "KeyRehearsal"
    helper: Count
    reveals: Bytes32
    """sha256 over all reveals: what the rehearsed key is made of."""
    partials: tuple[Vector, ...]
    """One for each rehearsed set of helpers that this one is in, in their order."""
    signature: Signature


class KeyRecord(Parsed):
    """The whole ceremony: its sha256 stands in the terms."""

    commits: tuple[KeyCommit, ...]
    reveals: tuple[KeyReveal, ...]
    rehearsals: tuple[KeyRehearsal, ...]


class Briefing(Parsed):
    """What a member or helper is handed when a release begins; it believes none of it unchecked."""

    terms: ReleaseTerms
    base: Annotated[bytes, Field(max_length=MESSAGE_BYTES_MAX)]
    key: KeyRecord | None = None


class Endorsement(Parsed):
    """The closed release, for its members to recompute, judge and sign."""

    transcript: Annotated[bytes, Field(max_length=TRANSCRIPT_BYTES_MAX)]
    version: Count
    uri: Annotated[str, Field(max_length=1024)]
    registries: Annotated[dict[Count, Address], Field(max_length=64)]
    """Chain id -> registry."""


State = Literal[
    "collecting", "intake", "checking", "drawing", "committed", "summed", "abandoned"
]  # fmt: skip
Step = Literal[
    "upload", "close", "ready", "inspect", "check", "draft", "draw", "commit", "approve", "answer",
    "sum", "abandon",
]  # fmt: skip

ORDER: dict[State, dict[Step, State]] = {
    "collecting": {"upload": "collecting", "close": "intake", "abandon": "abandoned"},
    "intake": {
        "ready": "intake",
        "inspect": "checking",
        "draft": "drawing",
        "commit": "committed",
        "abandon": "abandoned",
    },
    "checking": {
        "check": "checking",
        "draft": "drawing",
        "commit": "committed",
        "abandon": "abandoned",
    },
    "drawing": {"draw": "drawing", "commit": "committed", "abandon": "abandoned"},
    "committed": {
        "approve": "committed",
        "answer": "committed",
        "sum": "summed",
        "abandon": "abandoned",
    },
    "summed": {},
    "abandoned": {},
}
"""What may happen in which state of a round. There is no way back and no second commit."""


M = TypeVar("M", bound=Parsed)
S = TypeVar("S", bound="Message")

Sign = Callable[[bytes], bytes]
"""Signs a 32-byte digest: r ‖ s ‖ v. All of a key that this package ever sees."""

UNSIGNED = bytes(65)
"""The place of a signature that is still to be made."""
_SIGNATURE_HEAD: Final = b"\xa9signature\xc4\x41"


def encode(message: Parsed) -> bytes:
    """The one canonical encoding of a message."""
    return msgspec.msgpack.encode(message.model_dump())


def decode(kind: type[M], data: bytes) -> M:
    """Parse a message, refusing anything but its canonical encoding. Raises Malformed."""
    most = TRANSCRIPT_BYTES_MAX if kind is Endorsement else MESSAGE_BYTES_MAX
    if len(data) > most:
        raise Malformed(kind.__name__, f"{len(data)} bytes is over {most}")
    try:
        fields = msgspec.msgpack.decode(data)
    except (msgspec.MsgspecError, ValueError, TypeError, RecursionError) as error:
        raise Malformed(kind.__name__, f"not msgpack ({error})") from None
    try:
        message = kind.model_validate(fields)
    except ValidationError as error:
        first = error.errors(include_input=False, include_url=False)[0]
        where = ".".join(str(p) for p in first["loc"]) or "message"
        raise Malformed(kind.__name__, f"{where}: {first['msg']}") from None
    if encode(message) != data:
        raise Malformed(kind.__name__, "not the canonical encoding")
    return message


def content_in(data: bytes) -> bytes:
    """`content()` of an encoded message of under 16 fields, the signature last: not encoded again."""
    fields, found, rest = data[: -len(UNSIGNED)].rpartition(_SIGNATURE_HEAD)
    if not found or rest:
        raise ValueError("the last field is not a signature")
    return sha256(bytes((data[0] - 1,)) + fields[1:])  # a map: how many fields, then the fields


def sha256(data: bytes) -> bytes:
    return hashlib.sha256(data).digest()


def signing_digest(terms: ReleaseTerms, message: Message, content: bytes | None = None) -> bytes:
    """What the author of a round's message signs (32 bytes). `content`: its hash, where known."""
    struct = (
        MESSAGE_TYPE
        + kind_hash(message.kind)
        + word(message.release)
        + word(message.round)
        + (content or message.content())
    )
    return typed_digest(b"fedtrade", terms.chain_id, terms.registry, struct)


def sign_message(terms: ReleaseTerms, message: S, sign: Sign) -> S:
    """The message with its author's signature in place of the empty one."""
    return message.model_copy(update={"signature": sign(signing_digest(terms, message))})


def check(
    terms: ReleaseTerms,
    message: Message,
    author: str,
    round_number: int,
    content: bytes | None = None,
) -> bytes:
    """Refuse a message that its author did not sign for exactly this release and round.

    Gives the content hash (`content`, where it is known already). Raises WrongBinding or WrongAuthor.
    """
    if message.release != terms.release:
        raise WrongBinding(message.kind, "release", terms.release, message.release)
    if message.round != round_number:
        raise WrongBinding(message.kind, "round", round_number, message.round)
    if message.terms != terms.digest:
        raise WrongBinding(message.kind, "terms", terms.digest.hex(), message.terms.hex())
    signature: bytes = getattr(message, "signature")  # noqa: B009 - every message has one
    content = content or message.content()
    signer = recover(signing_digest(terms, message, content), signature)
    if signer != author:
        raise WrongAuthor(message.kind, author, signer)
    if isinstance(message, Announcement) and message.model != sha256(message.vector):
        raise WrongBinding(message.kind, "model", message.model.hex(), "another")
    return content
