"""Seeded mutation of bytes: what a broken or hostile sender makes of a good message."""

import random

INTERESTING = (
    b"",
    b"\x00",
    b"\xff" * 8,
    b"\xc0",  # msgpack nil
    b"\xc1",  # never used in msgpack
    b"\xdd\xff\xff\xff\xff",  # an array of 2^32 - 1
    b"\xdf\xff\xff\xff\xff",  # a map of as many
    b"\xc6\xff\xff\xff\xff",  # bytes of as many
    b"\xcb\x7f\xf8\x00\x00\x00\x00\x00\x00",  # NaN
    b"\xcf" + b"\xff" * 8,
    b"-1",
    b"1e999",
    b"NaN",
    b"null",
    b"[]",
    b"{}",
    b'"',
    b"\\ud800",
    b"9" * 40,
    b"\n",
)


class Mutator:
    """Mutants of some good inputs, from one seed: the same in every run."""

    def __init__(self, seeds, seed):
        self.seeds = list(seeds)
        self._random = random.Random(seed)

    def __call__(self):
        r = self._random
        data = bytearray(r.choice(self.seeds))
        for _ in range(r.choice((1, 1, 1, 2, 4, 16))):
            self._change(data)
        return bytes(data)

    def _change(self, data):
        r = self._random
        at = r.randrange(len(data) + 1)
        kind = r.randrange(8)
        if kind == 0 and data:
            data[at % len(data)] ^= 1 << r.randrange(8)
        elif kind == 1 and data:
            data[at % len(data)] = r.randrange(256)
        elif kind == 2:
            data[at:at] = r.choice(INTERESTING)
        elif kind == 3:
            width = r.choice((1, 2, 8, 64))
            data[at : at + width] = r.randbytes(width)
        elif kind == 4:
            del data[at : at + r.choice((1, 2, 8, 64, 1000))]
        elif kind == 5:
            del data[at:]
        elif kind == 6:
            other = r.choice(self.seeds)
            start = r.randrange(len(other) + 1)
            data[at : at + 32] = other[start : start + r.choice((4, 32, 200))]
        else:
            data[at:at] = data[at : at + r.choice((1, 8, 64))]
