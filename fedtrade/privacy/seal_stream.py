"""SEAL's binary stream, as TenSEAL 0.3.18 (SEAL 4.3) reads and writes it: bytes to arrays and back.

TenSEAL's `sealapi` shows no coefficients and makes no object from coefficients; its objects only
load from and save to a stream. So the layout is our interface to it, the version is pinned, and a
golden file in the tests says when it moves. Everything is little-endian.

    header      magic 0xA15E, header size 16, version major and minor, compression (0 none, 2
                Zstandard), two reserved bytes, size of header and content          (16 bytes)
    ciphertext  parms_id (4 words), is NTT form (1 byte), polynomials, N, primes (3 words), scale
                (double 1.0), correction factor (word 1), array
    plaintext   parms_id, coefficients (word), scale (double 1.0), array
    array       header of its own, count (word), words

SEAL compresses what it saves, and reads what is not compressed. The parms_id is a hash of the
parameters; it is zero in a plaintext of coefficients and not zero in one of NTT form.
"""

from __future__ import annotations

import struct

import numpy as np
import zstandard
from numpy.typing import NDArray

from fedtrade.errors import Fault

Words = NDArray[np.uint64]

MAGIC = 0xA15E
VERSION = (4, 3)
_HEADER = struct.Struct("<HBBBBHQ")
_CIPHERTEXT = struct.Struct("<32sBQQQdQ")
_PLAINTEXT = struct.Struct("<32sQd")
_COUNT = struct.Struct("<Q")
_STORED, _ZSTANDARD = 0, 2


class StreamMoved(Fault):
    """SEAL's stream is not laid out as we know it: another version of TenSEAL is installed."""

    def __init__(self, problem: str) -> None:
        super().__init__(f"SEAL's stream: {problem}. Install the pinned version of tenseal")
        self.problem = problem


def _framed(content: bytes) -> bytes:
    return _HEADER.pack(MAGIC, _HEADER.size, *VERSION, _STORED, 0, _HEADER.size + len(content)) + (
        content
    )


def _array(words: Words) -> bytes:
    return _framed(_COUNT.pack(words.size) + words.astype("<u8", copy=False).tobytes())


def content_of(stream: bytes, size_max: int) -> bytes:
    """What follows a header, at most `size_max` bytes once unpacked. Raises StreamMoved."""
    if len(stream) < _HEADER.size:
        raise StreamMoved(f"{len(stream)} bytes are no stream")
    magic, header, major, minor, compression, _, size = _HEADER.unpack_from(stream)
    if (magic, header, (major, minor)) != (MAGIC, _HEADER.size, VERSION):
        raise StreamMoved(f"magic {magic:#x}, header {header}, version {major}.{minor}")
    if size != len(stream) or compression not in (_STORED, _ZSTANDARD):
        raise StreamMoved(f"{len(stream)} bytes for {size}, compression {compression}")
    packed = stream[header:]
    if compression == _STORED:
        return packed
    try:
        # the size that a frame declares would go before our limit
        if zstandard.frame_content_size(packed) > size_max:
            raise StreamMoved(f"it unpacks to more than {size_max} bytes")
        return zstandard.ZstdDecompressor().decompress(packed, max_output_size=size_max)
    except zstandard.ZstdError as error:
        raise StreamMoved(f"cannot be unpacked ({error})") from None


def _words(array: bytes, count: int) -> Words:
    content = content_of(array, _COUNT.size + 8 * count)
    if len(content) != _COUNT.size + 8 * count or _COUNT.unpack_from(content) != (count,):
        raise StreamMoved(f"an array has {len(content)} bytes, not {count} words")
    return np.frombuffer(content, dtype="<u8", offset=_COUNT.size)


def ciphertext(polynomials: Words, parms_id: bytes) -> bytes:
    """A SEAL ciphertext from its coefficients, shape (k, primes, N), 2 ≤ k ≤ 16."""
    k, primes, degree = polynomials.shape
    return _framed(
        _CIPHERTEXT.pack(parms_id, False, k, degree, primes, 1.0, 1) + _array(polynomials)
    )


def plaintext(transform: Words, parms_id: bytes) -> bytes:
    """A SEAL plaintext (or secret key) in NTT form, shape (primes, N)."""
    return _framed(_PLAINTEXT.pack(parms_id, transform.size, 1.0) + _array(transform))


def read_plaintext(stream: bytes, degree: int) -> Words:
    """Coefficients of a saved plaintext, padded with zeros to (N,). Raises StreamMoved."""
    content = content_of(stream, _PLAINTEXT.size + _HEADER.size + _COUNT.size + 8 * degree)
    if len(content) < _PLAINTEXT.size:
        raise StreamMoved(f"a plaintext has {len(content)} bytes")
    parms_id, count, scale = _PLAINTEXT.unpack_from(content)
    if parms_id != bytes(32) or count > degree or scale != 1.0:
        raise StreamMoved(f"a plaintext says {count} coefficients, scale {scale}")
    padded = np.zeros(degree, dtype=np.uint64)
    padded[:count] = _words(content[_PLAINTEXT.size :], count)
    return padded
