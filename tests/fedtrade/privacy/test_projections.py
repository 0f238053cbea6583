"""The looked-up projections are those of the ternary matrix that the key stream spells out."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from fedtrade.privacy.projections import ROWS, project, stream


def matrix(key, length):
    """R written out: shape (ROWS, length), from the definition."""
    groups = -(-length // 8)
    drawn = np.frombuffer(stream(key).update(bytes(2 * ROWS * groups)), np.uint8)
    bits = np.unpackbits(drawn.reshape(groups, ROWS, 2), axis=2, bitorder="little")
    entries = bits.reshape(groups, ROWS, 2, 8).astype(np.int64).sum(axis=2) - 1
    return entries.transpose(1, 0, 2).reshape(ROWS, -1)[:, :length]


@given(st.integers(1, 40), st.binary(min_size=32, max_size=32), st.integers(0, 2**32 - 1))
def test_a_projection_is_the_product_with_its_matrix(length, key, seed):
    values = np.random.default_rng(seed).integers(0, 2**64, length, dtype=np.uint64)
    expected = matrix(key, length).view(np.uint64) @ values
    assert (project(values, key) == expected).all()


def test_it_does_not_depend_on_how_the_vector_is_cut_into_chunks():
    """Longer than one chunk of tables, with a ragged end."""
    values = np.random.default_rng(0).integers(0, 2**64, 2 * 8 * 512 + 3, dtype=np.uint64)
    expected = matrix(b"k" * 32, len(values)).view(np.uint64) @ values
    assert (project(values, b"k" * 32) == expected).all()


def test_entries_are_zero_half_the_time_and_fair():
    entries = matrix(b"k" * 32, 4000)
    assert set(np.unique(entries)) == {-1, 0, 1}
    counts = [np.count_nonzero(entries == v) / entries.size for v in (-1, 0, 1)]
    assert np.allclose(counts, [0.25, 0.5, 0.25], atol=0.004)  # 6 deviations
