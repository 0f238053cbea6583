"""Seeded mutation of bytes: what a broken or hostile sender makes of a good message.

Half of the mutants are made of the bytes as they stand (flipped, cut, doubled, spliced, cut short).
Where the input has a form (msgpack, JSON, TOML), the other half are well-formed again and wrong inside:
another type in a field's place, a field too many or too few, a number at the edge of its type.
"""

import json
import random

import msgspec

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
    b"9" * 5000,  # more digits than Python turns into a number
    b"[" * 2000,
    b"\n",
)

VALUES = (
    None, True, False, 0, 1, -1, 27, 255, 2**31, 2**32, 2**53, 2**63 - 1, 2**63, 2**64 - 1, -(2**63),
    0.0, -0.0, 0.5, 1e308, -1e308, 5e-324, float("nan"), float("inf"), "", "a", "\x00", "é\u202e",
    "0x", "0x" + "f" * 64, "0x" + "0" * 40, "-1", "1" * 40, "x" * 300, "٣", "nan", "../../etc/passwd",
    [], {}, [[]], [None], {"": None}, {"a": {"b": []}}, [0] * 300,
)  # fmt: skip
"""What is put in the place of a value, whatever it was."""

RAW = (
    b"",
    b"\x00",
    bytes(32),
    b"\xff" * 32,
    bytes(31),
    bytes(33),
    bytes(65),
    b"\xff" * 65,
    bytes(4),
)
"""And where the form has bytes."""

DEEP = 60
"""Levels of a nest that is put in a value's place."""


class Form:
    """How a parser's inputs are read into a tree of lists and maps, and written again."""

    def __init__(self, read, write, values=VALUES):
        self.read, self.write, self.values = read, write, values


def _toml(value):
    """A TOML value; tables are written inline, so that any tree has a text."""
    if isinstance(value, dict):
        return "{" + ", ".join(f"{json.dumps(k)} = {_toml(v)}" for k, v in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(_toml, value)) + "]"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float) and value in (float("inf"), -float("inf")):
        return "inf" if value > 0 else "-inf"
    return json.dumps(value) if isinstance(value, str) else str(value)


def _write_toml(tree):
    return "\n".join(f"{json.dumps(k)} = {_toml(v)}" for k, v in tree.items()).encode()


def toml_form(read):
    """TOML, read by `read`; it has no null."""
    return Form(read, _write_toml, tuple(v for v in VALUES if v is not None and v != [None]))


MSGPACK = Form(msgspec.msgpack.decode, msgspec.msgpack.encode, (*VALUES, *RAW))
JSON = Form(json.loads, lambda tree: json.dumps(tree, separators=(",", ":")).encode())
"""Python's writer: it gives NaN, infinities and lone surrogates a text, as a hostile sender would."""


class Mutator:
    """Mutants of some good inputs, from one seed: the same in every run."""

    def __init__(self, seeds, seed, form=None):
        self.seeds = list(seeds)
        self._random = random.Random(seed)
        self._form = form
        self._trees = [] if form is None else [form.read(data) for data in self.seeds]

    def __call__(self):
        r = self._random
        if self._trees and r.random() < 0.5:
            return self._reform()
        data = bytearray(r.choice(self.seeds))
        for _ in range(r.choice((1, 1, 1, 2, 4, 16))):
            self._change(data)
        return bytes(data)

    def _change(self, data):
        r = self._random
        at = int(r.random() * (len(data) + 1))
        kind = int(r.random() * 8)
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

    def _reform(self):
        r = self._random
        tree = r.choice(self._trees)
        for _ in range(r.choice((1, 1, 1, 2, 3))):
            tree = self._altered(tree)
        try:
            return self._form.write(tree)
        except (OverflowError, AttributeError, RecursionError):  # no such text in this form
            return r.choice(self.seeds)

    def _altered(self, tree):
        """The tree with one place changed; what is not on the way there is shared, not copied."""
        r = self._random
        if isinstance(tree, dict) and tree and r.random() < 0.9:
            copy = dict(tree)
            key = r.choice(list(copy))
            kind = r.random()
            if kind < 0.06:
                del copy[key]
            elif kind < 0.10:
                copy[r.choice(("", "extra", "hash", "0", "é"))] = copy[key]
            elif kind < 0.13:
                copy[r.choice(list(copy))] = copy[key]
            else:
                copy[key] = self._altered(copy[key])
            return copy
        if isinstance(tree, list) and tree and r.random() < 0.9:
            copy = list(tree)
            at = r.randrange(len(copy))
            kind = r.random()
            if kind < 0.06:
                del copy[at]
            elif kind < 0.12:
                copy.insert(r.randrange(len(copy)), copy[at])
            elif kind < 0.14:
                copy += [copy[at]] * r.choice((1, 9, 300))
            else:
                copy[at] = self._altered(copy[at])
            return copy
        return self._scalar(tree)

    def _scalar(self, value):
        r = self._random
        kind = r.random()
        if kind < 0.03:
            nest = value
            for _ in range(DEEP):
                nest = [nest] if kind < 0.02 else {"a": nest}
            return nest
        if kind < 0.5:
            if isinstance(value, bool):
                return not value
            if isinstance(value, int):
                return r.choice((value + 1, value - 1, -value, value << 1, value >> 1))
            if isinstance(value, float):
                return r.choice((-value, value * 2, value / 2, value + 1))
            if isinstance(value, str | bytes) and value:
                at = r.randrange(len(value))
                cut = (value[:at], value[at:], value[:at] + value[at + 1 :], value + value)
                return r.choice((*cut, value[:at] + value[at : at + 1] + value[at:]))
        return r.choice(self._form.values)
