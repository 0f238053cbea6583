"""SEAL's stream is where we think it is: a golden file, round trips, and refusals."""

import hashlib
import json
from importlib.metadata import version
from pathlib import Path

import numpy as np
import pytest
import tenseal.sealapi as seal
from hypothesis import given
from hypothesis import strategies as st

from fedtrade.privacy import seal_stream, threshold
from fedtrade.privacy.lattice import DEGREE
from fedtrade.privacy.seal_stream import StreamMoved

GOLDEN = json.loads((Path(__file__).parent / "seal_stream.json").read_text())
MOVED = "SEAL's stream has moved: read its new layout before you change the golden file"


def counting():
    return np.arange(2 * 2 * DEGREE, dtype=np.uint64).reshape(2, 2, DEGREE)


def test_the_layout_is_the_one_of_the_pinned_version():
    s = threshold._seal()
    assert version("tenseal") == "0.3.18", MOVED
    saved = threshold._save(seal.Plaintext("1x^3 + 2"))
    assert saved[:6].hex() == GOLDEN["header"], MOVED
    assert seal_stream.content_of(saved, 1000).hex() == GOLDEN["plaintext"], MOVED
    assert s.parms_id.hex() == GOLDEN["parms_id"], MOVED
    key = b"".join(word.to_bytes(8, "little") for word in s.context.key_parms_id())
    assert key.hex() == GOLDEN["key_parms_id"], MOVED


def test_a_ciphertext_goes_through_seal_unchanged():
    s = threshold._seal()
    ours = seal_stream.ciphertext(counting(), s.parms_id)
    loaded = threshold._load(seal.Ciphertext(), s.context, ours)
    assert (loaded.size(), loaded.poly_modulus_degree(), loaded.is_ntt_form()) == (2, DEGREE, False)
    theirs = seal_stream.content_of(threshold._save(loaded), 10**6)
    assert theirs[:121].hex() == GOLDEN["ciphertext_head"], MOVED
    assert hashlib.sha256(theirs).hexdigest() == GOLDEN["ciphertext_sha256"], MOVED
    array = counting().astype("<u8").tobytes()
    assert theirs.endswith(array)


@given(st.lists(st.integers(0, 2**57 - 1), max_size=6))
def test_a_plaintext_is_read_as_seal_has_it(values):
    text = " + ".join(f"{v:x}x^{i}" for i, v in reversed(list(enumerate(values))) if v and i)
    text = " + ".join(filter(None, [text, f"{values[0]:x}" if values and values[0] else ""]))
    saved = threshold._save(seal.Plaintext(text or "0"))
    read = seal_stream.read_plaintext(saved, 16)
    assert read.tolist() == values + [0] * (16 - len(values))


def test_another_version_or_a_torn_stream_is_a_fault():
    saved = threshold._save(seal.Plaintext("1x^3 + 2"))
    altered = [saved[:10], saved[:-1], saved + b"\0", b""]
    for place in (0, 2, 3, 4, 5, 8, 20, 30):
        flipped = bytearray(saved)
        flipped[place] ^= 0x40
        altered.append(bytes(flipped))
    for bad in altered:
        with pytest.raises(StreamMoved, match="pinned version"):
            seal_stream.read_plaintext(bad, 16)
    with pytest.raises(StreamMoved):
        seal_stream.read_plaintext(saved, 3)  # four coefficients are more than were asked for


@given(st.binary(max_size=200))
def test_junk_is_never_read(junk):
    head = bytes.fromhex(GOLDEN["header"])
    for bad in (junk, head + junk):
        with pytest.raises(StreamMoved):
            seal_stream.read_plaintext(bad, 16)


def test_what_unpacks_to_more_than_it_should_is_not_unpacked():
    saved = threshold._save(seal.Plaintext("1x^3 + 2"))
    with pytest.raises(StreamMoved):
        seal_stream.content_of(saved, 20)
