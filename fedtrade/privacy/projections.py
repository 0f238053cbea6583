"""Random ternary projections of a vector modulo 2^64, from a public key.

The matrix R has 128 rows; its entries are −1, 0, 0 or 1, each the sum of two random bits less 1. It
is never formed: eight coordinates have 256 subset sums, which are tabulated and then looked up for
each row by a byte of the key stream (Arlazarov, Dinic, Kronrod, Faradžev 1970: "four Russians").
That takes 2·256/8 additions and 32 bytes of stream a coordinate instead of 128 products.
"""

from __future__ import annotations

import numpy as np
from cryptography.hazmat.primitives.ciphers import Cipher, CipherContext, algorithms, modes
from numpy.typing import NDArray

Words = NDArray[np.uint64]
"""Integers modulo 2^64."""

ROWS = 128
"""k: projections of one vector."""

_BYTE = 8  # coordinates tabulated together
_CHUNK = 512  # such groups at a time: a table of 1 MiB


def project(values: Words, key: bytes) -> Words:
    """R·values modulo 2^64 for the ternary matrix R of a key. Shape (n,) -> (ROWS,).

    Row j's random bits are the bytes 2j and 2j + 1 of each 256 bytes of stream; a bit short of the
    last group of eight meets a zero.
    """
    groups = -(-len(values) // _BYTE)
    padded = np.zeros((groups, _BYTE), np.uint64)
    padded.reshape(-1)[: len(values)] = values
    coins = stream(key)
    table = np.zeros((_CHUNK, 256), np.uint64)
    row_starts = 256 * np.arange(_CHUNK)[:, None]
    sums = np.zeros(2 * ROWS, np.uint64)
    for start in range(0, groups, _CHUNK):
        part = padded[start : start + _CHUNK]
        size = len(part)
        for bit in range(_BYTE):
            half = 1 << bit
            np.add(table[:size, :half], part[:, bit, None], out=table[:size, half : 2 * half])
        drawn = np.frombuffer(coins.update(bytes(2 * ROWS * size)), np.uint8)
        places = drawn.reshape(size, 2 * ROWS) + row_starts[:size]
        sums += table.reshape(-1).take(places).sum(axis=0)
    projected: Words = sums.reshape(ROWS, 2).sum(axis=1) - values.sum(keepdims=True)
    return projected


def stream(key: bytes) -> CipherContext:
    """AES-256-CTR of a key that is used for nothing else."""
    return Cipher(algorithms.AES(key), modes.CTR(bytes(16))).encryptor()
