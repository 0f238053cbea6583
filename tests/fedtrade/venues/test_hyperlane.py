"""Hyperlane's bytes: every message and file comes back, every altered one is refused or different."""

import json
from itertools import pairwise

import pytest
from eth_account import Account
from eth_account.messages import encode_defunct
from eth_utils.crypto import keccak as other_keccak
from hypothesis import given
from hypothesis import strategies as st

from fedtrade.typed_data import keccak, recover
from fedtrade.venues.hyperlane import (
    BODY_MAX_BYTES,
    DEPTH,
    FILE_MAX_BYTES,
    ZERO_HASHES,
    Announcement,
    BadCheckpoint,
    BadMessage,
    Checkpoint,
    MerkleTree,
    Message,
    SignedCheckpoint,
    TreeFull,
    announcement_digest,
    announcement_file,
    checkpoint_file,
    metadata,
    quorum,
    read_announcement,
    read_checkpoint,
    signed_message_hash,
    word_of,
)

words = st.binary(min_size=32, max_size=32)
uint32s = st.integers(0, 2**32 - 1)
messages = st.builds(
    Message,
    nonce=uint32s,
    origin=uint32s,
    sender=words,
    destination=uint32s,
    recipient=words,
    body=st.binary(max_size=300),
)
checkpoints = st.builds(
    Checkpoint, domain=uint32s, hook=words, root=words, index=uint32s, message_id=words
)
KEYS = [Account.from_key(bytes([n]) * 32) for n in range(1, 6)]
MAILBOX = "0x" + "ab" * 20


def signed(key, checkpoint):
    return SignedCheckpoint(checkpoint, bytes(key.unsafe_sign_hash(checkpoint.digest).signature))


def address(key):
    return key.address.lower()


# messages


@given(messages)
def test_a_message_comes_back(message):
    assert Message.decode(message.encoded) == message
    assert len(message.encoded) == 77 + len(message.body)


@given(messages, st.data())
def test_every_byte_is_in_the_id(message, data):
    place = data.draw(st.integers(1, len(message.encoded) - 1))
    altered = bytearray(message.encoded)
    altered[place] ^= data.draw(st.integers(1, 255))
    assert Message.decode(bytes(altered)).id != message.id


@given(st.binary(max_size=200))
def test_bytes_are_a_message_or_refused(content):
    try:
        assert Message.decode(content).encoded == content
    except BadMessage:
        assert len(content) < 77 or content[0] != 3


@pytest.mark.parametrize(
    "wrong",
    [
        {"nonce": 2**32},
        {"origin": -1},
        {"sender": bytes(20)},
        {"recipient": bytes(33)},
        {"body": bytes(BODY_MAX_BYTES + 1)},
    ],
)
def test_no_bytes_exist_for_a_wrong_message(wrong):
    good = {
        "nonce": 1,
        "origin": 1,
        "sender": bytes(32),
        "destination": 2,
        "recipient": bytes(32),
        "body": b"",
    }
    Message(**good)
    with pytest.raises(BadMessage):
        Message(**{**good, **wrong})


# the tree


def plain_root(leaves):
    """The root of a full tree, by hashing every level; empty halves are the zero hashes."""
    level = list(leaves)
    for depth in range(DEPTH):
        if len(level) % 2:
            level.append(ZERO_HASHES[depth])
        level = [keccak(a + b) for a, b in zip(level[::2], level[1::2], strict=True)]
    return level[0] if level else ZERO_HASHES[DEPTH]


@given(st.lists(words, max_size=40))
def test_the_tree_is_a_merkle_tree(leaves):
    tree = MerkleTree()
    assert tree.root == plain_root([])
    for number, leaf in enumerate(leaves, start=1):
        tree.insert(leaf)
        assert tree.count == number
        assert tree.root == plain_root(leaves[:number])


@given(st.lists(words, min_size=1, max_size=12), words.filter(any))
def test_a_copy_goes_its_own_way(leaves, more):
    tree = MerkleTree()
    for leaf in leaves:
        tree.insert(leaf)
    before = tree.root
    copy = tree.copy()
    assert copy.root == before
    copy.insert(more)
    assert (tree.count, tree.root) == (len(leaves), before)
    assert copy.root != before


def test_a_full_tree_takes_no_leaf():
    tree = MerkleTree()
    tree.count = 2**DEPTH - 1
    with pytest.raises(TreeFull):
        tree.insert(bytes(32))


# what is signed


@given(checkpoints)
def test_the_digest_is_that_of_a_signed_message(checkpoint):
    """Against another implementation of keccak and EIP-191."""
    domain_hash = other_keccak(
        checkpoint.domain.to_bytes(4, "big") + checkpoint.hook + b"HYPERLANE"
    )
    plain = other_keccak(
        domain_hash + checkpoint.root + checkpoint.index.to_bytes(4, "big") + checkpoint.message_id
    )
    account = Account.sign_message(encode_defunct(plain), KEYS[0].key)
    assert bytes(account.message_hash) == checkpoint.digest == signed_message_hash(plain)
    assert recover(checkpoint.digest, bytes(account.signature)) == address(KEYS[0])


@given(checkpoints, checkpoints)
def test_other_checkpoints_have_other_digests(one, other):
    assert (one == other) == (one.digest == other.digest)


@given(checkpoints)
def test_metadata_is_hook_root_index_signatures(checkpoint):
    made = metadata(checkpoint, [b"\1" * 65, b"\2" * 65])
    assert made[:32] == checkpoint.hook
    assert made[32:64] == checkpoint.root
    assert int.from_bytes(made[64:68], "big") == checkpoint.index
    assert made[68:] == b"\1" * 65 + b"\2" * 65


# files


@given(checkpoints, st.sampled_from(KEYS))
def test_a_checkpoint_file_comes_back(checkpoint, key):
    made = signed(key, checkpoint)
    content = checkpoint_file(made)
    assert len(content) <= FILE_MAX_BYTES
    assert read_checkpoint(content) == made
    assert read_checkpoint(content).signer == address(key)


def test_a_checkpoint_file_has_the_form_of_hyperlanes_own():
    made = signed(KEYS[0], Checkpoint(5, b"\x01" * 32, b"\x02" * 32, 7, b"\x03" * 32))
    content = json.loads(checkpoint_file(made))
    assert content["value"]["checkpoint"] == {
        "merkle_tree_hook_address": "0x" + "01" * 32,
        "mailbox_domain": 5,
        "root": "0x" + "02" * 32,
        "index": 7,
    }
    assert content["value"]["message_id"] == "0x" + "03" * 32
    assert content["serialized_signature"] == "0x" + made.signature.hex()
    assert int(content["signature"]["r"], 16) == int.from_bytes(made.signature[:32], "big")
    assert content["signature"]["v"] == made.signature[64]


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"[]",
        b"null",
        b"{}",
        b'{"value": 3}',
        b"\xff" * 20,
        b" " * (FILE_MAX_BYTES + 1),
        b'{"value":{"checkpoint":{},"message_id":"0x"},"signature":{},"serialized_signature":""}',
    ],
)
def test_a_file_that_is_none_is_refused(content):
    for read in (read_checkpoint, read_announcement):
        with pytest.raises(BadCheckpoint):
            read(content)


@given(st.binary(max_size=300))
def test_any_bytes_are_refused_with_our_error_only(content):
    for read in (read_checkpoint, read_announcement):
        with pytest.raises(BadCheckpoint):
            read(content)


def announced(key, location="https://a.example/b", mailbox=MAILBOX, domain=5):
    signature = key.unsafe_sign_hash(announcement_digest(domain, mailbox, location)).signature
    return Announcement(address(key), domain, mailbox, location, bytes(signature))


def test_an_announcement_comes_back_and_is_its_validators_own():
    made = announced(KEYS[0])
    assert read_announcement(announcement_file(made)) == made
    stolen = Announcement(
        address(KEYS[1]), made.domain, made.mailbox, made.location, made.signature
    )
    moved = Announcement(
        made.validator, made.domain, made.mailbox, "https://evil.example", made.signature
    )
    elsewhere = Announcement(made.validator, 6, made.mailbox, made.location, made.signature)
    for wrong in (stolen, moved, elsewhere):
        with pytest.raises(BadCheckpoint, match="not signed"):
            read_announcement(announcement_file(wrong))
    no_address = announcement_file(made).replace(b'"0x' + b"0" * 24, b'"0x' + b"0" * 23 + b"1")
    with pytest.raises(BadCheckpoint, match="no address"):
        read_announcement(no_address)


# the quorum

GOOD = Checkpoint(1, b"\x01" * 32, b"\x02" * 32, 3, b"\x04" * 32)
OTHER = Checkpoint(1, b"\x01" * 32, b"\x03" * 32, 3, b"\x04" * 32)


@given(st.lists(st.sampled_from([GOOD, OTHER, None]), min_size=5, max_size=5), st.integers(1, 5))
def test_a_quorum_is_of_one_checkpoint_in_the_modules_order(said, threshold):
    validators = [key.address for key in KEYS]
    files = {address(key): signed(key, what) for key, what in zip(KEYS, said, strict=True) if what}
    found = quorum(files, validators, threshold)
    counts = {what: said.count(what) for what in (GOOD, OTHER)}
    if found is None:
        assert max(counts.values()) < threshold
        return
    checkpoint, signatures = found
    assert counts[checkpoint] >= threshold == len(signatures)
    order = [validators.index(by(checkpoint, signature)) for signature in signatures]
    assert all(a < b for a, b in pairwise(order))


def by(checkpoint, signature):
    found = recover(checkpoint.digest, signature)
    return next(key.address for key in KEYS if address(key) == found)


def test_a_stranger_or_a_borrowed_signature_counts_for_nobody():
    validators = [key.address for key in KEYS[:3]]
    outsider = {address(KEYS[4]): signed(KEYS[4], GOOD), address(KEYS[0]): signed(KEYS[0], GOOD)}
    assert quorum(outsider, validators, 2) is None
    borrowed = {address(KEYS[0]): signed(KEYS[0], GOOD), address(KEYS[1]): signed(KEYS[0], GOOD)}
    assert quorum(borrowed, validators, 2) is None
    good = {address(KEYS[0]): signed(KEYS[0], GOOD), address(KEYS[1]): signed(KEYS[1], GOOD)}
    assert quorum(good, validators, 2) is not None


def test_an_address_is_a_word():
    assert word_of("0x" + "ab" * 20) == bytes(12) + b"\xab" * 20
