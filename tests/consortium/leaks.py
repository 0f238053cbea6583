"""Notes every secret as it is made, keeps all that leaves a party, and searches one in the other."""

import os
import struct
import threading

import numpy as np

import clients.member
from clients.dealer import Dealer
from clients.helper import Helper
from clients.keys import MemberKeys
from clients.member import Member
from consortium import rehearsal

WINDOW = 32
"""Bytes of a secret vector that must not be found anywhere."""
DISTINCT_MIN = 10
"""Different bytes in a window: fewer (zeros, small integers) occur by chance."""
OWN_FILES = ("positions.csv", "keys.json")
"""Where a member itself keeps its secrets, and the only files that are not searched."""
SHOWN = b"fedtrade nonce"
"""The one derived value that a round shows, in a Draw."""


class Everything:
    """All bytes that left a party, and what must not be among them."""

    def __init__(self, on_disk=None):
        self.left = []
        self.secrets = []
        self._lock = threading.Lock()
        self._disk = on_disk
        """A process that will be killed notes both in a file, at once."""

    def out(self, data):
        self._note(b"L", data)
        self.left.append(data)

    def secret(self, data):
        assert len(data) >= 8
        self._note(b"S", data)
        self.secrets.append(data)

    def _note(self, kind, data):
        if self._disk is not None:
            with self._lock:
                os.write(self._disk, kind + struct.pack("<I", len(data)) + data)

    def take(self, data):
        """What a process that was killed had noted."""
        at = 0
        while at + 5 <= len(data):
            (length,) = struct.unpack_from("<I", data, at + 1)
            body = data[at + 5 : at + 5 + length]
            (self.left if data[at : at + 1] == b"L" else self.secrets).append(body)
            at += 5 + length

    def vector(self, array):
        raw = np.ascontiguousarray(array).tobytes()
        for at in range(0, len(raw) - WINDOW + 1, WINDOW):
            window = raw[at : at + WINDOW]
            if len(set(window)) >= DISTINCT_MIN:
                self.secret(window)

    def ring(self, units):
        """Integers as a member or helper holds them and as either ring carries them."""
        whole = np.asarray(units).astype(np.int64)
        self.vector(whole)
        self.vector(whole.astype(np.uint32))

    def number(self, value):
        self.secret(repr(value).encode())
        for form in ("<d", ">d"):
            self.secret(struct.pack(form, value))

    def key(self, raw):
        self.secret(raw)
        self.secret(raw.hex().encode())

    def folder(self, folder):
        for path in folder.rglob("*"):
            if path.is_file() and path.name not in OWN_FILES:
                self.left.append(path.name.encode())
                self.left.append(path.read_bytes())

    def found(self):
        """The secrets that are somewhere in what left."""
        joined = b"\0".join(set(self.left))
        by_start = {}
        for secret in set(self.secrets):
            by_start.setdefault(int.from_bytes(secret[:8], "little"), []).append(secret)
        starts = np.array(sorted(by_start), np.uint64)
        hits = []
        for offset in range(8):
            count = (len(joined) - offset) // 8
            words = np.frombuffer(joined, "<u8", count=count, offset=offset)
            for place in np.flatnonzero(np.isin(words, starts)):
                at = offset + 8 * int(place)
                hits += [s for s in by_start[int(words[place])] if joined.startswith(s, at)]
        return hits


def watch(patch, spy):
    """Note every secret as it is made."""

    def after(owner, name, note):
        real = getattr(owner, name)

        def watched(*arguments):
            result = real(*arguments)
            note(result, arguments)
            return result

        patch.setattr(owner, name, watched)

    after(MemberKeys, "derive", lambda made, given: None if given[1] == SHOWN else spy.secret(made))
    after(MemberKeys, "x25519_exchange", lambda shared, _: spy.secret(shared))
    after(Member, "_units", lambda units, _: spy.ring(units))
    after(Member, "_seal", lambda _, given: [spy.secret(seed) for seed in given[1]])
    after(Helper, "_noise", lambda noise, _: spy.ring(noise))
    after(Helper, "_pairs", lambda pairs, _: [spy.secret(each) for each in pairs.values()])
    after(Dealer, "_dealing", lambda dealt, _: [spy.vector(np.frombuffer(s, np.uint8))
                                               for s in dealt.shares])  # fmt: skip

    def summed(result, _):
        spy.vector(result[0])
        spy.vector(result[0].astype(np.float32))

    after(clients.member, "clipped_gradient_sum", summed)

    class Spying(rehearsal.LocalGrid):
        def _deliver(self, message):
            for said in (message, super()._deliver(message)):
                if said is not None:
                    spy.out(repr(said).encode())
                    for body in bodies(said):
                        spy.out(body)
            return said

    patch.setattr(rehearsal, "LocalGrid", Spying)


def bodies(message):
    if message.has_error():
        return [str(message.error).encode()]
    return [
        value if isinstance(value, bytes) else repr(value).encode()
        for record in message.content.config_records.values()
        for value in record.values()
    ]
