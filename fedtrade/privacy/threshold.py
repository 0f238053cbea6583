"""Lane C: sums under a collective BFV key whose secret nobody holds, on TenSEAL's `sealapi`.

Brakerski 2012, Fan and Vercauteren 2012, with the key of Mouchet et al., "Multiparty homomorphic
encryption from ring-learning-with-errors" (PoPETs 2021) shared so that any c + 1 helpers decrypt.
Only addition is needed, so a plaintext is packed into coefficients, two 28-bit fields in each:
p = v₀ + v₁·2^28 modulo t = 2^57, one bit of it a guard that shows a wrong decryption. With
Δ = ⌊q/t⌋, public key (b, a), secret s = Σ s_i, b = −(a·s + e):

    encrypt   c₀ = b·u + e₁ + Δ·p        c₁ = a·u + e₂        and a proof that u and e₂ are short
    partial   h_i = λ_i·s_i·c₁ + Δ·noise_i + E_i + (share of zero)
    fuse      p = ⌊t/q·(c₀ + Σ h_i)⌉  modulo t

SEAL chooses and judges the parameters and decrypts the fused sum; sampling (`short_secret.py`) and the
ring (`lattice.py`) are ours, since SEAL's encryptor does not repeat its bytes for a member that starts
again in mid-round, and it has no partial decryption. The tests let SEAL decrypt what we encrypt and
let helpers decrypt what SEAL encrypts. Integers are exact: for the same inputs and noise this lane
and the mask committee give identical sums.

**What the proof of an upload stops.** Without it a member in league with the coordinator could send
a c₁ that is no encryption's, and read the key's coefficients from the sum that the helpers decrypt;
or copy another member's upload. So helpers check every upload of a manifest themselves and add up
c₁ themselves. The proof is relaxed (`short_secret.py`): who spends 2^k hashes can pass a c₁ with
a denominator such as (1 − X)^(k+1), which ruins the round's sum and shows about k bits of the key.

**What nothing here stops.** A bad helper can add what it likes to its partial, as a bad helper of
the mask committee can to its share: the bound of `fuse` and the members' votes on the model remain.

**Smudging.** E_i is a sum of four uniforms, |E_i| ≤ 2^58. Nine of them and the encryption noise stay
below q/2t = 2^62. Shifting it by the encryption noise ε changes the joint distribution of a round
by at most ½·√I·‖ε‖₂ in total variation, I = 3.12/2^114 being its Fisher information (through
Hellinger's distance). For 100,000 parameters that is 2^-37 a round with 20 members and 5 helpers,
2^-31 with 256 members of weight 16 and 9 helpers; over T rounds it grows with √T. For one
coefficient it is 2^-45 and 2^-39. This is weaker than the 2^-128 of all the rest, but the modulus
that an upload of 18 B a parameter affords has room for no more. Pairwise shares of zero make each
partial uniform by itself, so that only the sum of all the honest smudges ever shows.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import tenseal.sealapi as seal

from fedtrade.errors import Fault, Refusal, Unavailable
from fedtrade.privacy import lattice, seal_stream, short_secret
from fedtrade.privacy.lattice import DEGREE, MODULUS, PRIMES, BadResidues, Residues, Signed

FIELD_BITS = 28
FIELD_MAX = 2 ** (FIELD_BITS - 1) - 1
"""Largest |total| of a field: totals beyond it run into their neighbour."""

PLAIN_BITS = 57
DELTA = MODULUS >> PLAIN_BITS
SMUDGE_BITS = 57
WEIGHT_MAX = 16
MEMBERS_MAX = 256
RESPONDERS_MAX = 9
"""The noise budget is counted for so many."""

PUBLIC_KEY_BYTES = 32 + 16 * DEGREE


class FieldOverflow(Refusal):
    """An integer that does not fit its field."""

    def __init__(self, largest: int) -> None:
        super().__init__(
            f"a value of {largest} does not fit a field of ±{FIELD_MAX}. Lower the scale or the clip"
        )
        self.largest = largest


class BadRequest(Refusal):
    """Weights, responders or seeds that do not belong together."""

    def __init__(self, problem: str) -> None:
        super().__init__(f"lane C: {problem}. Correct the request")
        self.problem = problem


class TooFewPartials(Refusal):
    """Fewer partial decryptions than responders, or than c + 1."""

    def __init__(self, found: int, needed: int) -> None:
        super().__init__(
            f"{found} partial decryptions, {needed} are needed. Abandon the round and begin a new one"
        )
        self.found = found
        self.needed = needed


class WrongDecryption(Fault):
    """A total outside its bound: a partial is wrong, a field has wrapped or a member sent too much."""

    def __init__(self, largest: int, bound: int) -> None:
        super().__init__(
            f"a decrypted total is {largest}, beyond the bound {bound}: a partial decryption is wrong "
            "or a member sent too much. Abandon the round and find out who"
        )
        self.largest = largest
        self.bound = bound


@dataclass(frozen=True, slots=True)
class Encrypted:
    """One upload: residues of c₀, cut to the coefficients in use, and of c₁, and the proof for c₁."""

    c0: bytes
    c1: bytes
    proof: bytes


# --- SEAL -----------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Seal:
    """SEAL's objects for our one parameter set. They are not written to after they are made."""

    context: Any
    decryptor: Any
    parms_id: bytes


@contextmanager
def _memory(content: bytes = b"") -> Iterator[tuple[int, str]]:
    """A file without a disk, since `sealapi` loads from and saves to paths only."""
    if not hasattr(os, "memfd_create"):
        raise Unavailable("lane C", "this system has no memfd", "Run this part under Linux")
    with open(os.memfd_create("fedtrade"), "w+b", buffering=0) as file:
        file.write(content)
        yield file.fileno(), f"/proc/self/fd/{file.fileno()}"


def _load(target: Any, context: Any, stream: bytes) -> Any:
    with _memory(stream) as (_, path):
        target.load(context, path)
    return target


def _save(source: Any) -> bytes:
    with _memory() as (descriptor, path):
        source.save(path)
        return os.pread(descriptor, os.fstat(descriptor).st_size, 0)


@lru_cache(maxsize=1)
def _seal() -> _Seal:
    """SEAL at N = 8192, our two primes, and the third that it reserves for switching keys."""
    parameters = seal.EncryptionParameters(seal.SCHEME_TYPE.BFV)
    parameters.set_poly_modulus_degree(DEGREE)
    moduli = seal.CoeffModulus.Create(DEGREE, [60, 60, 60])
    if tuple(m.value() for m in moduli[:2]) != PRIMES:
        raise seal_stream.StreamMoved("SEAL chooses other primes")
    parameters.set_coeff_modulus(moduli)
    parameters.set_plain_modulus(1 << PLAIN_BITS)
    context = seal.SEALContext(parameters, True, seal.SEC_LEVEL_TYPE.TC128)
    if not context.parameters_set():
        raise Fault(f"SEAL refuses the parameters: {context.parameters_error_message()}. Stop")
    first, whole = (
        b"".join(word.to_bytes(8, "little") for word in words)
        for words in (context.first_parms_id(), context.key_parms_id())
    )
    # to decrypt, SEAL wants a key; what it decrypts here has c₁ = 0, so any will do: 1, no secret
    one = np.ones((3, DEGREE), dtype=np.uint64)
    key = _load(seal.SecretKey(), context, seal_stream.plaintext(one, whole))
    return _Seal(context, seal.Decryptor(context, key), first)


def _rounded(polynomials: Residues) -> Signed:
    """⌊t/q·x⌉ modulo t of polynomials (k, 2, N), as signed integers (k·N,), by SEAL's decryption."""
    s = _seal()
    found = []
    for polynomial in polynomials:
        plain = seal.Plaintext()
        pair = np.stack([polynomial, np.zeros_like(polynomial)])
        stream = seal_stream.ciphertext(pair, s.parms_id)
        s.decryptor.decrypt(_load(seal.Ciphertext(), s.context, stream), plain)
        found.append(seal_stream.read_plaintext(_save(plain), DEGREE))
    unsigned = np.concatenate(found).astype(np.int64)
    return np.where(unsigned < 2 ** (PLAIN_BITS - 1), unsigned, unsigned - 2**PLAIN_BITS)


@lru_cache(maxsize=4)
def crs(seed: bytes) -> Residues:
    """a, the common reference string of a 32-byte seed, uniform, as a `lattice.factor`."""
    return lattice.factor(short_secret.uniform(seed, b"common reference string", DEGREE))


@lru_cache(maxsize=4)
def _key(public_key: bytes) -> tuple[Residues, Residues]:
    """(b, a) of a public key as factors. Raises BadResidues."""
    if len(public_key) != PUBLIC_KEY_BYTES:
        raise BadResidues("public key", f"{len(public_key)} bytes, not {PUBLIC_KEY_BYTES}")
    b = lattice.from_bytes("public key", public_key[32:], DEGREE)
    return lattice.factor(b), crs(public_key[:32])


# --- plaintexts -----------------------------------------------------------------------------------


def coefficients(length: int) -> int:
    """Coefficients that `length` integers take: two in each."""
    return -(-length // 2)


def _polynomials(length: int) -> int:
    return -(-coefficients(length) // DEGREE)


def pack(values: Signed) -> Signed:
    """Integers (d,) as v₀ + v₁·2^28, (⌈d/2⌉,). Packing adds up. Raises FieldOverflow."""
    largest = int(np.abs(values).max(initial=0))
    if largest > FIELD_MAX:
        raise FieldOverflow(largest)
    packed = values[0::2].astype(np.int64)
    packed[: len(values) // 2] += values[1::2] << FIELD_BITS
    return packed


def unpack(packed: Signed, length: int, bound: int) -> Signed:
    """The integers of packed totals. Raises WrongDecryption where one is beyond ±bound."""
    half = 2 ** (FIELD_BITS - 1)
    low = ((packed + half) & (2**FIELD_BITS - 1)) - half
    values = np.stack([low, (packed - low) >> FIELD_BITS], axis=-1).reshape(-1)
    largest = int(np.abs(values).max(initial=0))
    if largest > bound:  # the padding of an odd length is a total of zeros, so it is looked at too
        raise WrongDecryption(largest, bound)
    return values[:length]


def _scaled(values: Signed) -> Residues:
    """Δ·p of packed integers."""
    return lattice.scale(lattice.residues(pack(values)), DELTA)


# --- a round --------------------------------------------------------------------------------------


def encrypt(public_key: bytes, values: Signed, key: bytes, context: bytes) -> Encrypted:
    """Encrypt integers (d,) of at most FIELD_MAX, with all randomness from a 32-byte key.

    `context` binds member, round, terms and model. The key must be secret, and fresh for the context
    and the values; they are bound in as well, so that a key used twice gives nothing away.
    Raises FieldOverflow, BadResidues (of the key) or Unproven (too long).
    """
    b, a = _key(public_key)
    k, n = _polynomials(len(values)), coefficients(len(values))
    message = _scaled(values)
    label = hashlib.sha256(context).digest() + hashlib.sha256(public_key).digest()
    label += hashlib.sha256(message.tobytes()).digest()
    u = short_secret.ternary(key, b"u|" + label, k * DEGREE).reshape(k, DEGREE)
    e1 = short_secret.binomial(key, b"e1|" + label, n)
    e2 = short_secret.binomial(key, b"e2|" + label, k * DEGREE).reshape(k, DEGREE)
    bu, au = lattice.multiply(lattice.residues(u), b, a)
    c1 = lattice.add(au, lattice.residues(e2))
    c0 = lattice.add(lattice.add(lattice.join(bu)[:, :n], message), lattice.residues(e1))
    proof = short_secret.prove(a, c1, u, e2, key, context)
    return Encrypted(lattice.to_bytes(c0), lattice.to_bytes(lattice.join(c1)), proof)


def check_ciphertext(public_key: bytes, upload: Encrypted, length: int, context: bytes) -> None:
    """Refuse an upload that is not `length` integers, or whose c₁ is not an encryption's.

    Raises BadResidues or Unproven.
    """
    lattice.from_bytes("c0", upload.c0, coefficients(length))
    check_second(public_key, upload.c1, upload.proof, length, context)


def check_second(public_key: bytes, c1: bytes, proof: bytes, length: int, context: bytes) -> None:
    """The part of `check_ciphertext` that a helper needs: it sees c₁ alone.

    Raises BadResidues or Unproven.
    """
    found = lattice.from_bytes("c1", c1, _polynomials(length) * DEGREE)
    _, a = _key(public_key)
    short_secret.verify(a, lattice.split(found), proof, context)


def first_bytes(length: int) -> int:
    """Bytes of c₀, and of a partial decryption, of `length` integers."""
    return 16 * coefficients(length)


def second_bytes(length: int) -> int:
    """Bytes of c₁ of `length` integers."""
    return 16 * DEGREE * _polynomials(length)


def weighted_sum(parts: Sequence[bytes], weights: Sequence[int]) -> bytes:
    """Σ w·part of all the c₀ or all the c₁ of a cohort. Weights are whole and from 0 to 16.

    Raises BadRequest or BadResidues.
    """
    if not 1 <= len(parts) <= MEMBERS_MAX or len(parts) != len(weights):
        raise BadRequest(f"{len(parts)} ciphertexts and {len(weights)} weights")
    if any(not 0 <= w <= WEIGHT_MAX for w in weights) or not any(weights):
        raise BadRequest(f"weights {tuple(weights)} are not whole numbers from 0 to {WEIGHT_MAX}")
    length = len(parts[0]) // 16
    total = np.zeros((2, length), dtype=np.uint64)
    for part, weight in zip(parts, weights, strict=True):
        found = lattice.from_bytes("ciphertext", part, length)
        if weight:
            total = lattice.add(total, found if weight == 1 else lattice.scale(found, weight))
    return lattice.to_bytes(total)


def lagrange(index: int, responders: tuple[int, ...]) -> int:
    """λ_i at zero of Shamir's points i + 1, modulo q."""
    numerator = denominator = 1
    for other in responders:
        if other != index:
            numerator = numerator * (other + 1) % MODULUS
            denominator = denominator * (other - index) % MODULUS
    return numerator * pow(denominator, -1, MODULUS) % MODULUS


def _check_responders(responders: tuple[int, ...], corrupt: int) -> None:
    if list(responders) != sorted(set(responders)) or min(responders, default=-1) < 0:
        raise BadRequest(f"responders {responders} are not distinct helpers in order")
    if not corrupt < len(responders) <= RESPONDERS_MAX:
        raise BadRequest(
            f"{len(responders)} responders; {corrupt + 1} to {RESPONDERS_MAX} are needed"
        )


def _binding(context: bytes, responders: tuple[int, ...], length: int, c1_sum: bytes) -> bytes:
    """What smudges and shares of zero are bound to, so that none is used for two decryptions."""
    data = hashlib.sha256(b"fedtrade partial|" + hashlib.sha256(context).digest())
    data.update(b"%d|" % length + bytes(responders) + b"|" + c1_sum)
    return data.digest()


def partial(
    key_share: Residues,
    index: int,
    responders: tuple[int, ...],
    corrupt: int,
    c1_sum: bytes,
    pair_seeds: Mapping[int, bytes],
    noise: Signed,
    smudge_key: bytes,
    context: bytes,
) -> bytes:
    """This helper's partial decryption of a sum, with its noise inside: residues (2, ⌈d/2⌉).

    `key_share` (2, N); `noise` (d,) enters the total exactly; `pair_seeds` are the seeds shared with
    each other responder; `context` binds the manifest, and one manifest is answered once.
    Raises BadRequest, BadResidues or FieldOverflow.
    """
    _check_responders(responders, corrupt)
    if index not in responders or set(pair_seeds) != set(responders) - {index}:
        raise BadRequest(f"helper {index} with seeds of {sorted(pair_seeds)} among {responders}")
    n = coefficients(len(noise))
    c1 = lattice.from_bytes("c1 sum", c1_sum, _polynomials(len(noise)) * DEGREE)
    factor = lattice.factor(lattice.scale(key_share, lagrange(index, responders)))
    (product,) = lattice.multiply(lattice.split(c1), factor)
    binding = _binding(context, responders, len(noise), c1_sum)
    smudge = short_secret.bell(smudge_key, b"smudge|" + binding, n, SMUDGE_BITS)
    share = lattice.add(lattice.join(product)[:, :n], lattice.residues(smudge))
    share = lattice.add(share, _scaled(noise))
    for other, seed in sorted(pair_seeds.items()):
        zero = short_secret.uniform(seed, b"zero|" + binding, n)
        share = lattice.add(share, zero) if other > index else lattice.subtract(share, zero)
    return lattice.to_bytes(share)


def fuse(
    c0_sum: bytes,
    partials: Mapping[int, bytes],
    responders: tuple[int, ...],
    corrupt: int,
    length: int,
    bound: int = FIELD_MAX,
) -> Signed:
    """The exact signed totals (d,), noise included, from one partial of every responder.

    `bound` is the largest |total| that honest members and noise can produce: a field that wraps is
    not visible above ±FIELD_MAX, so give the true one. Raises TooFewPartials, BadRequest,
    BadResidues or WrongDecryption.
    """
    _check_responders(responders, corrupt)
    if set(partials) != set(responders):
        raise TooFewPartials(len(set(partials) & set(responders)), len(responders))
    n = coefficients(length)
    total = lattice.from_bytes("c0 sum", c0_sum, n)
    for index in responders:
        total = lattice.add(total, lattice.from_bytes(f"partial {index}", partials[index], n))
    padded = np.zeros((2, _polynomials(length) * DEGREE), dtype=np.uint64)
    padded[:, :n] = total
    return unpack(_rounded(lattice.split(padded))[:n], length, min(bound, FIELD_MAX))
