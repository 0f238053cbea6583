"""Messages: one encoding, one author, one round. The order of a round is a table."""

import pytest
from eth_account import Account
from eth_account.messages import encode_typed_data
from hypothesis import given
from hypothesis import strategies as st

from clients.keys import MemberKeys
from consortium.rehearsal import SMALL, Party, RandomPositions, make_terms, small_base
from fedtrade import protocol
from fedtrade.protocol import (
    ORDER,
    UNSIGNED,
    Announcement,
    Answer,
    Approval,
    Check,
    Draw,
    Inspection,
    Intake,
    KeyCommit,
    KeyReveal,
    Malformed,
    Manifest,
    Ready,
    Statement,
    WrongAuthor,
    WrongBinding,
    check,
    content_in,
    decode,
    encode,
    publication_digest,
    recover,
    sha256,
    sign_message,
    signing_digest,
)

KEYS = [MemberKeys.ephemeral() for _ in range(5)]
COORDINATOR = MemberKeys.ephemeral()


@pytest.fixture(scope="module")
def terms(tmp_path_factory):
    folder = tmp_path_factory.mktemp("terms")
    parties = [Party(i, "", k, RandomPositions(9, 6, i), folder) for i, k in enumerate(KEYS)]
    return make_terms(parties, SMALL, small_base(), COORDINATOR.address)


def announcement(terms, round_number=1):
    draft = Announcement(
        release=1,
        round=round_number,
        terms=terms.digest,
        model=sha256(bytes(4)),
        vector=bytes(4),
        signature=UNSIGNED,
    )
    return sign_message(terms, draft, COORDINATOR.sign_digest)


def test_a_message_survives_the_wire_and_is_its_authors(terms):
    message = decode(Announcement, encode(announcement(terms)))
    assert message == announcement(terms)
    check(terms, message, COORDINATOR.address.lower(), 1)


def test_every_flipped_bit_is_refused(terms):
    data = encode(announcement(terms))
    for at in range(len(data)):
        altered = data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :]
        with pytest.raises((Malformed, WrongAuthor, WrongBinding)):
            check(terms, decode(Announcement, altered), COORDINATOR.address.lower(), 1)


@given(st.binary(max_size=300))
def test_no_bytes_crash_the_parser(data):
    with pytest.raises(Malformed):
        decode(Statement, data)


def test_the_content_can_be_read_from_the_encoding(terms):
    approval = Approval(
        release=1, round=2, terms=terms.digest, model=bytes(32), helper=3, manifest=bytes(32),
        signature=UNSIGNED,
    )  # fmt: skip
    for message in (approval, sign_message(terms, approval, COORDINATOR.sign_digest)):
        assert content_in(encode(message)) == message.content() == approval.content()
    longer = approval.model_copy(update={"round": 2**31, "helper": 70_000})
    assert content_in(encode(longer)) == longer.content() != approval.content()
    with pytest.raises(ValueError, match="signature"):
        content_in(encode(terms))


@pytest.mark.parametrize(
    "kind",
    [Intake, Ready, Inspection, Check, Manifest, Draw, Approval, Answer, KeyCommit, KeyReveal],
)
def test_the_signature_is_the_last_field(kind):
    assert list(kind.model_fields)[-1] == "signature"
    assert len(kind.model_fields) < 16


def test_another_encoding_of_the_same_message_is_refused(terms):
    data = encode(announcement(terms))
    assert data[:1] == b"\x86"  # a map of six
    with pytest.raises(Malformed, match="canonical"):
        decode(Announcement, b"\xde\x00\x06" + data[1:])


def test_unknown_and_missing_fields_are_refused(terms):
    import msgspec

    data = msgspec.msgpack.decode(encode(announcement(terms)))
    with pytest.raises(Malformed):
        decode(Announcement, msgspec.msgpack.encode({**data, "extra": 1}))
    del data["round"]
    with pytest.raises(Malformed, match="round"):
        decode(Announcement, msgspec.msgpack.encode(data))


def test_the_wrong_author_round_release_or_terms_is_refused(terms):
    message = announcement(terms)
    with pytest.raises(WrongAuthor):
        check(terms, message, KEYS[0].address.lower(), 1)
    with pytest.raises(WrongBinding, match="round"):
        check(terms, message, COORDINATOR.address.lower(), 2)
    other = terms.model_copy(update={"release": 2})
    with pytest.raises(WrongBinding, match="release"):
        check(other, message, COORDINATOR.address.lower(), 1)


def test_the_kind_is_signed_so_one_message_cannot_pose_as_another(terms):
    as_announcement = announcement(terms)

    class Other(Announcement):
        kind = "Other"

    other = Other.model_validate(as_announcement.model_dump())
    with pytest.raises(WrongAuthor):
        check(terms, other, COORDINATOR.address.lower(), 1)


def test_our_typed_digests_are_eth_accounts(terms):
    message = announcement(terms)
    typed = {
        "domain": {
            "name": "fedtrade",
            "version": "1",
            "chainId": terms.chain_id,
            "verifyingContract": terms.registry,
        },
        "primaryType": "Message",
        "types": {
            "EIP712Domain": [
                {"name": "name", "type": "string"},
                {"name": "version", "type": "string"},
                {"name": "chainId", "type": "uint256"},
                {"name": "verifyingContract", "type": "address"},
            ],
            "Message": [
                {"name": "kind", "type": "string"},
                {"name": "release", "type": "uint64"},
                {"name": "round", "type": "uint32"},
                {"name": "content", "type": "bytes32"},
            ],
        },
        "message": {
            "kind": "Announcement",
            "release": 1,
            "round": 1,
            "content": message.content(),
        },
    }
    signable = encode_typed_data(full_message=typed)
    address = Account.recover_message(signable, signature=message.signature)
    assert address == COORDINATOR.address
    assert recover(signing_digest(terms, message), message.signature) == address.lower()


def test_a_malleable_signature_is_nobodys():
    digest = b"d" * 32
    signature = KEYS[0].sign_digest(digest)
    assert recover(digest, signature) == KEYS[0].address.lower()
    order = 0xFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFEBAAEDCE6AF48A03BBFD25E8CD0364141
    s = order - int.from_bytes(signature[32:64], "big")
    twin = signature[:32] + s.to_bytes(32, "big") + bytes([55 - signature[64]])
    assert recover(digest, twin) == "nobody"
    assert recover(digest, signature[:64] + b"\x00") == "nobody"
    assert recover(digest, bytes(65)) == "nobody"


def test_publication_digests_differ_by_chain_and_registry():
    args = (1, 2, b"s" * 32, "uri", 10)
    one = publication_digest(31101, "0x" + "11" * 20, *args)
    assert one != publication_digest(31102, "0x" + "11" * 20, *args)
    assert one != publication_digest(31101, "0x" + "12" * 20, *args)


def test_the_order_has_no_way_back_and_one_commit():
    assert ORDER["summed"] == {}
    assert ORDER["abandoned"] == {}
    commits = [s for s, steps in ORDER.items() if "commit" in steps]
    assert commits == ["intake", "checking", "drawing"]
    reachable = {"collecting"}
    for state, steps in ORDER.items():
        assert set(steps.values()) <= set(ORDER)
        reachable |= set(steps.values())
        assert "intake" not in steps.values() or state in ("collecting", "intake")
        assert "committed" not in steps.values() or "sum" in steps or "commit" in steps
    assert reachable == set(ORDER)


def test_changed_terms_have_another_digest(terms):
    before = terms.digest
    for update in ({"release": 2}, {"positions": (10, *terms.positions[1:])}, {"dimension": 3}):
        assert terms.model_copy(update=update).digest != before
    assert terms.digest == before


def test_terms_refuse_seats_that_share_a_key(terms):
    seats = list(terms.members)
    seats[1] = seats[1].model_copy(update={"signer": seats[0].signer})
    with pytest.raises(ValueError, match="share a signer"):
        protocol.ReleaseTerms.model_validate({**terms.model_dump(), "members": tuple(seats)})
    helpers = list(terms.helpers)
    helpers[1] = helpers[1].model_copy(update={"x25519": helpers[0].x25519})
    with pytest.raises(ValueError, match="encryption key"):
        protocol.ReleaseTerms.model_validate({**terms.model_dump(), "helpers": tuple(helpers)})
