"""Lane C: exact sums, equal to the mask committee's; and what must not pass."""

import hashlib
import itertools
import os
from functools import lru_cache

import numpy as np
import pytest
import tenseal.sealapi as seal
from hypothesis import given, settings
from hypothesis import strategies as st

from fedtrade.errors import Refusal
from fedtrade.privacy import (
    collective,
    lattice,
    masking,
    mechanism,
    seal_stream,
    short_secret,
    threshold,
)
from fedtrade.privacy.lattice import DEGREE, MODULUS, PRIMES
from fedtrade.privacy.threshold import FIELD_MAX

RING = np.dtype(np.uint32)
CONTEXT = b"a test's ceremony"
CONFIGURATIONS = 200


def key(*parts):
    return hashlib.sha256(repr(parts).encode()).digest()


@lru_cache(maxsize=16)
def committee(helpers, corrupt):
    """(public key, key shares) of a ceremony."""
    dealings = [collective.deal(key(i), CONTEXT, i, helpers, corrupt) for i in range(helpers)]
    public = collective.collective_key([d.reveal for d in dealings], CONTEXT)
    shares = [collective.key_share([d.shares[j] for d in dealings]) for j in range(helpers)]
    return public, shares


def pairs(responders, index, salt=0):
    return {j: key("pair", salt, *sorted((index, j))) for j in responders if j != index}


def decrypt(c, responders, corrupt, shares, noise, bound=FIELD_MAX, context=b"manifest"):
    """Partials of all responders, fused. `c`: (c₀, c₁); `noise`: responder -> (d,)."""
    partials = {
        i: threshold.partial(
            shares[i],
            i,
            responders,
            corrupt,
            c[1],
            pairs(responders, i),
            noise[i],
            key("smudge", i),
            context,
        )
        for i in responders
    }
    length = len(noise[responders[0]])
    return threshold.fuse(c[0], partials, responders, corrupt, length, bound), partials


def total_of(uploads, weights):
    return (
        threshold.weighted_sum([u.c0 for u in uploads], weights),
        threshold.weighted_sum([u.c1 for u in uploads], weights),
    )


def lane_b(vectors, weights, responders, helpers, corrupt, noise):
    """The same round by the mask committee, a signed int64 vector."""
    total = np.zeros(len(vectors[0]), np.uint32)
    owned = {}
    for member, (vector, weight) in enumerate(zip(vectors, weights, strict=True)):
        context = masking.member_context(b"c" * 32, member)
        owned[context] = [
            key("seed", member, i) for i in range(len(masking.subsets(helpers, corrupt)))
        ]
        masked = masking.mask(vector.astype(np.uint32), owned[context], context)
        total += np.uint32(weight) * masked
    owner = masking.owners(responders, helpers, corrupt)
    for helper in responders:
        held = masking.seeds_of(helper, helpers, corrupt)
        share = masking.zero_share(helper, pairs(responders, helper), b"m", len(total), RING)
        for (context, seeds), weight in zip(owned.items(), weights, strict=True):
            mine = {context: [seeds[i] for i in held if owner[i] == helper]}
            share += np.uint32(weight) * masking.mask_share(mine, len(total), RING)
        share -= noise[helper].astype(np.uint32)
        total -= share
    return total.view(np.int32).astype(np.int64)


def configuration(number):
    """A random round: committee, responders, members, weights, drop-outs, length."""
    rng = np.random.default_rng(number)
    corrupt = int(rng.choice([1, 1, 1, 1, 2, 2, 2, 3, 3, 4]))  # lane B has C(m, c) seeds to draw
    helpers = int(rng.integers(2 * corrupt + 1, 10))
    size = int(rng.integers(corrupt + 1, helpers + 1))
    responders = tuple(sorted(rng.permutation(helpers)[:size].tolist()))
    members = int(rng.integers(3, 13))
    weights = rng.integers(0, 17, members)
    weights[rng.random(members) < 0.2] = 0  # members that dropped out after their upload
    if rng.random() < 0.5 or not weights.any():
        weights = np.ones(members, np.int64)
    lengths = [1, 2, int(rng.integers(3, 300)), int(rng.integers(300, 2000))]
    length = int(rng.choice(lengths)) if number % 20 else int(rng.integers(8000, 20_000))
    return rng, helpers, corrupt, responders, weights.tolist(), length


def test_the_configurations_are_as_various_as_they_should_be():
    every = [configuration(number)[1:] for number in range(CONFIGURATIONS)]
    assert {c for _, c, *_ in every} == {1, 2, 3, 4}
    assert {m for m, *_ in every} == set(range(3, 10))
    assert any(len(r) == c + 1 for _, c, r, *_ in every)
    assert any(len(r) == m for m, _, r, *_ in every)
    assert sum(0 in weights for *_, weights, _ in every) > 30
    assert sum(length > 2 * DEGREE for *_, length in every) >= 2


@pytest.mark.parametrize("part", range(8))
def test_both_lanes_give_identical_sums_in_random_configurations(part):
    for number in range(part, CONFIGURATIONS, 8):
        rng, m, c, responders, weights, length = configuration(number)
        public, shares = committee(m, c)
        vectors = [rng.integers(-(2**19), 2**19, length) for _ in weights]
        variance = mechanism.noise_variance(1.0, len(responders), c)
        noise = {i: mechanism.noise(key("noise", number, i), variance, length) for i in responders}
        uploads = [
            threshold.encrypt(public, x, key("coins", number, i), b"member %d" % i)
            for i, x in enumerate(vectors)
        ]
        found, _ = decrypt(total_of(uploads, weights), responders, c, shares, noise)
        wanted = sum(w * x for w, x in zip(weights, vectors, strict=True)) + sum(noise.values())
        assert (found == wanted).all(), number
        assert (lane_b(vectors, weights, responders, m, c, noise) == found).all(), number


@given(st.lists(st.integers(-FIELD_MAX, FIELD_MAX), min_size=1, max_size=40), st.data())
def test_packing_adds_up_and_comes_back(values, data):
    others = data.draw(
        st.lists(st.integers(-FIELD_MAX, FIELD_MAX), min_size=len(values), max_size=len(values))
    )
    a, b = np.array(values), np.array(others)
    total = np.clip(a + b, -FIELD_MAX, FIELD_MAX)
    rest = np.clip(total - a, -FIELD_MAX, FIELD_MAX)
    packed = threshold.pack(a) + threshold.pack(rest)
    assert (threshold.unpack(packed, len(a), FIELD_MAX) == a + rest).all()


def test_totals_at_the_bounds_of_a_field_are_exact_and_one_more_is_not_taken():
    public, shares = committee(3, 1)
    ends = np.array(
        [FIELD_MAX, -FIELD_MAX, FIELD_MAX, FIELD_MAX, -FIELD_MAX, -FIELD_MAX, 0, FIELD_MAX]
    )
    for split in (0, 1, FIELD_MAX // 3):
        parts = [ends - np.sign(ends) * split, np.sign(ends) * split]
        uploads = [threshold.encrypt(public, x, key(i), b"m%d" % i) for i, x in enumerate(parts)]
        still = {0: np.zeros(8, np.int64), 2: np.zeros(8, np.int64)}
        found, _ = decrypt(total_of(uploads, [1, 1]), (0, 2), 1, shares, still)
        assert (found == ends).all()
    for beyond in (FIELD_MAX + 1, -FIELD_MAX - 1, 2**40):
        with pytest.raises(threshold.FieldOverflow):
            threshold.encrypt(public, np.array([0, beyond]), key(0), b"m")


@pytest.mark.parametrize("place", [0, 1])
def test_a_total_beyond_its_bound_is_a_fault(place):
    public, shares = committee(3, 1)
    x = np.zeros(4, np.int64)
    x[place] = 1000
    upload = threshold.encrypt(public, x, key(0), b"m")
    still = dict.fromkeys((0, 1), np.zeros(4, np.int64))
    c = total_of([upload], [1])
    assert decrypt(c, (0, 1), 1, shares, still, bound=1000)[0].tolist() == x.tolist()
    with pytest.raises(threshold.WrongDecryption, match="1000, beyond the bound 999"):
        decrypt(c, (0, 1), 1, shares, still, bound=999)


def test_the_guard_shows_a_second_field_that_has_wrapped():
    public, shares = committee(3, 1)
    x = np.array([0, FIELD_MAX])
    uploads = [threshold.encrypt(public, x, key(i), b"m%d" % i) for i in range(2)]
    still = dict.fromkeys((0, 1), np.zeros(2, np.int64))
    with pytest.raises(threshold.WrongDecryption):
        decrypt(total_of(uploads, [1, 1]), (0, 1), 1, shares, still)


def test_the_largest_consortium_and_noise_stay_inside_the_budget():
    """Nine responders, 256 members of weight 16: the sum is exact at the bound of both fields."""
    public, shares = committee(9, 4)
    length = 64
    x = np.full(length, FIELD_MAX // (256 * 16) * 1, np.int64)
    x[1::3] *= -1
    uploads = [threshold.encrypt(public, x, key(i), b"m%d" % i) for i in range(4)]
    parts = uploads * 64
    noise = {i: np.full(length, 3 - i, np.int64) for i in range(9)}
    found, _ = decrypt(total_of(parts, [16] * 256), tuple(range(9)), 4, shares, noise)
    assert (found == 4096 * x + 9 * 3 - 36).all()


def test_worst_smudges_and_honest_noise_fit_the_budget_by_arithmetic():
    half = MODULUS // 2 ** (threshold.PLAIN_BITS + 1)
    smudges = threshold.RESPONDERS_MAX * 2 ** (threshold.SMUDGE_BITS + 1)
    secret, error = threshold.RESPONDERS_MAX, threshold.RESPONDERS_MAX * short_secret.ETA
    fresh = DEGREE * (error + secret * short_secret.ETA) + short_secret.ETA
    honest = threshold.MEMBERS_MAX * threshold.WEIGHT_MAX * fresh
    rounding = (MODULUS % 2**threshold.PLAIN_BITS) * 2**56 // 2**threshold.PLAIN_BITS
    assert smudges + honest + rounding < half


def centred(a):
    """Residues (2, n) as the integers nearest to zero (Chinese remainders), as floats."""
    q0, q1 = PRIMES
    lift = q1 * pow(q1, -1, q0)
    found = [(int(x) * lift + int(y) * (MODULUS + 1 - lift)) % MODULUS for x, y in a.T]
    return np.array([float(v if v < MODULUS // 2 else v - MODULUS) for v in found])


def test_encryption_noise_is_as_large_as_the_smudging_is_counted_for():
    """c₀ + s·c₁ of zero: variance 2·N·(2/3)·10.5·m."""
    public, _ = committee(5, 2)
    up = threshold.encrypt(public, np.zeros(2 * DEGREE, np.int64), key(1), b"m")
    c0, c1 = (lattice.from_bytes("c", data, DEGREE) for data in (up.c0, up.c1))
    secret = lattice.factor(lattice.residues(collective_secret(5)))
    (product,) = lattice.multiply(c1[None], secret)
    left = centred(lattice.add(c0, product[0]))
    wanted = 2 * DEGREE * (2 / 3) * 10.5 * 5
    assert abs(left.var() / wanted - 1) < 0.15  # s and e are one draw, not the mean


def test_both_errors_of_an_encryption_are_there(monkeypatch):
    public, _ = committee(3, 1)
    x = np.zeros(2 * DEGREE, np.int64)
    real = threshold.encrypt(public, x, key(1), b"m")
    monkeypatch.setattr(short_secret, "binomial", lambda k, label, n: np.zeros(n, np.int64))
    bare = threshold.encrypt(public, x, key(1), b"m")
    for with_error, without in ((real.c0, bare.c0), (real.c1, bare.c1)):
        pair = [lattice.from_bytes("c", data, DEGREE) for data in (with_error, without)]
        error = centred(lattice.subtract(*pair))
        assert np.abs(error).max() <= 21
        assert abs(error.var() - 10.5) < 5 * 10.5 * np.sqrt(2 / DEGREE)


def test_every_responders_smudge_is_in_the_sum():
    public, shares = committee(5, 2)
    length = 2 * DEGREE
    c = total_of([threshold.encrypt(public, np.zeros(length, np.int64), key(1), b"m")], [1])
    for responders in ((0, 1, 2), (0, 1, 2, 3, 4)):
        still = dict.fromkeys(responders, np.zeros(length, np.int64))
        _, partials = decrypt(c, responders, 2, shares, still)
        total = lattice.from_bytes("c0", c[0], DEGREE)
        for data in partials.values():
            total = lattice.add(total, lattice.from_bytes("p", data, DEGREE))
        wanted = len(responders) * 4.0**threshold.SMUDGE_BITS / 3
        assert abs(centred(total).var() / wanted - 1) < 5 * np.sqrt(2 / DEGREE)


# --- determinism and form -------------------------------------------------------------------------


def test_an_upload_repeats_its_bytes_and_any_other_input_changes_all_coins():
    public, _ = committee(3, 1)
    x = np.arange(40)
    one = threshold.encrypt(public, x, key(1), b"m")
    assert one == threshold.encrypt(public, x, key(1), b"m")
    for other in (
        threshold.encrypt(public, x, key(2), b"m"),
        threshold.encrypt(public, x, key(1), b"n"),
        threshold.encrypt(public, x + 1, key(1), b"m"),
        threshold.encrypt(committee(4, 1)[0], x, key(1), b"m"),
    ):
        assert other.c0 != one.c0
        assert other.c1 != one.c1


@pytest.mark.parametrize(
    ("length", "c0", "c1"), [(1, 1, 1), (2, 1, 1), (16384, 8192, 1), (16385, 8193, 2)]
)
def test_sizes_are_those_of_the_coefficients(length, c0, c1):
    public, _ = committee(3, 1)
    upload = threshold.encrypt(public, np.zeros(length, np.int64), key(1), b"m")
    assert len(upload.c0) == 16 * c0 == threshold.first_bytes(length)
    assert len(upload.c1) == 16 * c1 * DEGREE == threshold.second_bytes(length)
    assert len(upload.proof) == short_secret.PROOF_BYTES


def test_an_upload_of_100k_parameters_is_at_most_18_bytes_a_parameter():
    size = (
        threshold.first_bytes(100_000) + threshold.second_bytes(100_000) + short_secret.PROOF_BYTES
    )
    assert size / 100_000 <= 18


def test_a_ciphertext_looks_uniform_and_hides_zero():
    public, _ = committee(3, 1)
    upload = threshold.encrypt(public, np.zeros(2 * DEGREE, np.int64), key(1), b"m")
    for data in (upload.c0, upload.c1):
        assert_uniform(lattice.from_bytes("c", data, DEGREE))


def assert_uniform(a):
    for row in a:
        counts = np.bincount((row >> np.uint64(52)).astype(np.int64), minlength=256)
        chi2 = float(((counts - row.size / 256) ** 2 / (row.size / 256)).sum())
        assert 150 < chi2 < 380  # 255 degrees of freedom: mean 255, deviation 22.6


# --- what SEAL makes of it ------------------------------------------------------------------------


def collective_secret(helpers):
    """The secret nobody holds, from every helper's seed: only a test has it."""
    return sum(
        short_secret.ternary(key(i), b"secret|" + collective._of(CONTEXT, i), DEGREE)
        for i in range(helpers)
    )


def transform_by_seal(polynomial, primes):
    """A polynomial (primes, N) in SEAL's NTT form, at the level of so many primes."""
    parameters = seal.EncryptionParameters(seal.SCHEME_TYPE.BFV)
    parameters.set_poly_modulus_degree(DEGREE)
    parameters.set_coeff_modulus(seal.CoeffModulus.Create(DEGREE, [60, 60, 60]))
    parameters.set_plain_modulus(1 << threshold.PLAIN_BITS)
    # one more prime, so that all three are at the level on which SEAL computes
    wide = seal.EncryptionParameters(seal.SCHEME_TYPE.BFV)
    wide.set_poly_modulus_degree(DEGREE)
    wide.set_coeff_modulus([*parameters.coeff_modulus(), seal.CoeffModulus.Create(DEGREE, [30])[0]])
    wide.set_plain_modulus(1 << threshold.PLAIN_BITS)
    context = seal.SEALContext(wide, True, seal.SEC_LEVEL_TYPE.TC128)
    words = b"".join(w.to_bytes(8, "little") for w in context.first_parms_id())
    one = np.zeros_like(polynomial)
    one[:, 0] = 1
    stream = seal_stream.ciphertext(np.stack([polynomial, one]), words)
    ciphertext = threshold._load(seal.Ciphertext(), context, stream)
    seal.Evaluator(context).transform_to_ntt_inplace(ciphertext)
    content = seal_stream.content_of(threshold._save(ciphertext), 10**6)
    return np.frombuffer(content[-16 * 3 * DEGREE :], "<u8").reshape(2, 3, DEGREE)[0]


def seal_key(polynomial):
    """A signed polynomial as SEAL's SecretKey."""
    s = threshold._seal()
    moduli = [m.value() for m in seal.CoeffModulus.Create(DEGREE, [60, 60, 60])]
    lifted = np.stack([(polynomial % q).astype(np.uint64) for q in moduli])
    whole = b"".join(w.to_bytes(8, "little") for w in s.context.key_parms_id())
    stream = seal_stream.plaintext(transform_by_seal(lifted, 3), whole)
    return threshold._load(seal.SecretKey(), s.context, stream)


def test_seal_decrypts_what_we_encrypt():
    public, _ = committee(5, 2)
    x = np.random.default_rng(3).integers(-FIELD_MAX, FIELD_MAX + 1, 2 * DEGREE)
    upload = threshold.encrypt(public, x, key(1), b"m")
    s = threshold._seal()
    pair = np.stack([lattice.from_bytes("c", data, DEGREE) for data in (upload.c0, upload.c1)])
    ciphertext = threshold._load(
        seal.Ciphertext(), s.context, seal_stream.ciphertext(pair, s.parms_id)
    )
    decryptor = seal.Decryptor(s.context, seal_key(collective_secret(5)))
    # q mod t times a full plaintext takes 32 of the 62 bits, the encryption's own noise about 13
    assert decryptor.invariant_noise_budget(ciphertext) >= 29
    plain = seal.Plaintext()
    decryptor.decrypt(ciphertext, plain)
    read = seal_stream.read_plaintext(threshold._save(plain), DEGREE).astype(np.int64)
    read = np.where(read < 2**56, read, read - 2**57)
    assert (threshold.unpack(read, len(x), FIELD_MAX) == x).all()


def test_helpers_decrypt_what_seal_encrypts_under_the_collective_secret():
    _, shares = committee(5, 2)
    s = threshold._seal()
    encryptor = seal.Encryptor(s.context, seal_key(collective_secret(5)))
    ciphertext = seal.Ciphertext()
    encryptor.encrypt_symmetric(seal.Plaintext("30000005x^9 + 7"), ciphertext)
    content = seal_stream.content_of(threshold._save(ciphertext), 10**6)
    c0, c1 = np.frombuffer(content[-32 * DEGREE :], "<u8").reshape(2, 2, DEGREE)
    still = dict.fromkeys((0, 2, 4), np.zeros(2 * DEGREE, np.int64))
    c = lattice.to_bytes(c0), lattice.to_bytes(c1)
    found, _ = decrypt(c, (0, 2, 4), 2, shares, still)
    wanted = np.zeros(2 * DEGREE, np.int64)
    wanted[[0, 18, 19]] = 7, 5, 3
    assert (found == wanted).all()


# --- attacks --------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def upload():
    public, _ = committee(3, 1)
    x = np.arange(100) - 50
    return public, x, threshold.encrypt(public, x, key("up"), b"member 1")


def test_an_honest_upload_is_taken_under_its_own_context_only(upload):
    public, x, up = upload
    threshold.check_ciphertext(public, up, len(x), b"member 1")
    threshold.check_second(public, up.c1, up.proof, len(x), b"member 1")
    with pytest.raises(short_secret.Unproven):  # the copy of another member's upload
        threshold.check_ciphertext(public, up, len(x), b"member 2")
    other = bytes(32) + public[32:]
    with pytest.raises(short_secret.Unproven):  # under the key of another ceremony
        threshold.check_ciphertext(other, up, len(x), b"member 1")


def test_a_second_part_that_is_no_encryptions_would_read_the_key_and_is_refused(upload):
    """c₁ = Δ in place of a·u + e: the decrypted sum is the collective secret itself."""
    public, _, up = upload
    _, shares = committee(3, 1)
    one = np.zeros(DEGREE, np.int64)
    one[0] = 1
    bad = lattice.to_bytes(lattice.scale(lattice.residues(one), threshold.DELTA))
    still = dict.fromkeys((0, 2), np.zeros(2 * DEGREE, np.int64))
    found, _ = decrypt((bytes(16 * DEGREE), bad), (0, 2), 1, shares, still)
    assert (found[0::2] == collective_secret(3)).all()  # the attack works …
    with pytest.raises(short_secret.Unproven):  # … and its ciphertext is not taken
        threshold.check_second(public, bad, up.proof, 2 * DEGREE, b"member 1")


@settings(max_examples=40)
@given(st.data())
def test_an_altered_upload_is_refused(upload, data):
    public, x, up = upload
    part = data.draw(st.sampled_from(["c1", "proof"]))
    whole = bytearray(getattr(up, part))
    whole[data.draw(st.integers(0, len(whole) - 1))] ^= data.draw(st.integers(1, 255))
    altered = {"c0": up.c0, "c1": up.c1, "proof": up.proof} | {part: bytes(whole)}
    with pytest.raises(Refusal):
        threshold.check_ciphertext(public, threshold.Encrypted(**altered), len(x), b"member 1")


@given(st.sampled_from(["c0", "c1", "proof"]), st.binary(max_size=64))
def test_malformed_bytes_are_refused(upload, part, junk):
    public, x, up = upload
    altered = {"c0": up.c0, "c1": up.c1, "proof": up.proof} | {part: junk}
    with pytest.raises(Refusal):
        threshold.check_ciphertext(public, threshold.Encrypted(**altered), len(x), b"member 1")


@pytest.mark.parametrize("row", [0, 1])
@pytest.mark.parametrize("part", ["c0", "c1"])
def test_coefficients_that_are_not_below_their_prime_are_refused(upload, part, row):
    public, x, up = upload
    data = bytearray(getattr(up, part))
    place = row * len(data) // 2
    data[place : place + 8] = PRIMES[row].to_bytes(8, "little")
    altered = {"c0": up.c0, "c1": up.c1, "proof": up.proof} | {part: bytes(data)}
    with pytest.raises(lattice.BadResidues, match="not below"):
        threshold.check_ciphertext(public, threshold.Encrypted(**altered), len(x), b"member 1")


def test_a_public_key_of_another_length_or_out_of_range_is_refused():
    for bad in (b"", bytes(100), committee(3, 1)[0] + b"\0", bytes(32) + b"\xff" * 16 * DEGREE):
        with pytest.raises(lattice.BadResidues):
            threshold.encrypt(bad, np.arange(3), key(1), b"m")


def test_c_partials_are_refused_and_hold_nothing():
    public, shares = committee(5, 2)
    x = np.arange(2000) % 7
    c = total_of([threshold.encrypt(public, x, key(1), b"m")], [1])
    noise = dict.fromkeys(range(5), np.zeros(2000, np.int64))
    found, partials = decrypt(c, (0, 1, 2), 2, shares, noise)
    assert (found == x).all()
    for few in itertools.combinations(range(3), 2):
        held = {i: partials[i] for i in few}
        with pytest.raises(threshold.TooFewPartials):
            threshold.fuse(c[0], held, (0, 1, 2), 2, 2000)
        with pytest.raises(threshold.BadRequest):
            threshold.fuse(c[0], held, few, 2, 2000)
        # pretending that c = 1 does not help: what comes out is noise in every coefficient
        with pytest.raises(threshold.WrongDecryption):
            threshold.fuse(c[0], held, few, 1, 2000)
    # nor do c helpers that answer as if they were enough
    forced = {
        i: threshold.partial(
            shares[i], i, (0, 1), 1, c[1], pairs((0, 1), i), noise[i], key(i), b"manifest"
        )
        for i in (0, 1)
    }
    with pytest.raises(threshold.WrongDecryption):
        threshold.fuse(c[0], forced, (0, 1), 1, 2000)


def test_single_partials_are_uniform_thanks_to_the_shares_of_zero(monkeypatch):
    """With c known shares and no shares of zero, an honest partial shows its noise."""
    public, shares = committee(3, 1)
    length = 2 * DEGREE
    c = total_of([threshold.encrypt(public, np.zeros(length, np.int64), key(1), b"m")], [1])
    noise = {0: np.full(length, 5, np.int64), 1: np.full(length, 9, np.int64)}
    secret = lattice.residues(collective_secret(3))

    def honest_noise(partials):
        """What a coordinator and helper 0 make of helper 1's partial: c₀ + s·c₁ − λ₀·s₀·c₁ − …"""
        mine = lattice.factor(lattice.scale(shares[0], threshold.lagrange(0, (0, 1))))
        c1 = lattice.from_bytes("c1", c[1], DEGREE)
        (known,) = lattice.multiply(c1[None], mine)
        (full,) = lattice.multiply(c1[None], lattice.factor(secret))
        theirs = lattice.from_bytes("p", partials[1], DEGREE)
        left = lattice.subtract(theirs, lattice.subtract(full[0], known[0]))
        return left, threshold._rounded(left[None])

    _, partials = decrypt(c, (0, 1), 1, shares, noise)
    left, _ = honest_noise(partials)
    assert_uniform(left)
    for i in (0, 1):
        assert_uniform(lattice.from_bytes("p", partials[i], DEGREE))
    real = short_secret.uniform
    monkeypatch.setattr(
        short_secret,
        "uniform",
        lambda k, label, n: real(k, label, n) * np.uint64(not label.startswith(b"zero|")),
    )
    _, partials = decrypt(c, (0, 1), 1, shares, noise)
    _, read = honest_noise(partials)
    assert (threshold.unpack(read, length, FIELD_MAX) == 9).all()  # hence the shares of zero


def test_a_partial_repeats_and_no_stream_serves_two_decryptions():
    public, shares = committee(5, 2)
    x = np.zeros(50, np.int64)
    one, two = (threshold.encrypt(public, x, key(i), b"m").c1 for i in range(2))

    def partial(c1=one, responders=(0, 1, 3), context=b"manifest", smudge=b"k" * 32):
        return threshold.partial(
            shares[1], 1, responders, 2, c1, pairs(responders, 1), x, smudge, context
        )

    first = partial()
    assert first == partial()
    for other in (
        partial(c1=two),
        partial(responders=(1, 2, 3)),
        partial(context=b"another"),
        partial(smudge=b"l" * 32),
    ):
        assert other != first
    bindings = {
        threshold._binding(*arguments)
        for arguments in (
            (b"a", (0, 1), 2, b"c"),
            (b"b", (0, 1), 2, b"c"),
            (b"a", (0, 2), 2, b"c"),
            (b"a", (0, 1), 3, b"c"),
            (b"a", (0, 1), 2, b"d"),
        )
    }
    assert len(bindings) == 5


def test_requests_that_do_not_belong_together_are_refused():
    public, shares = committee(5, 2)
    x = np.zeros(50, np.int64)
    c1 = threshold.encrypt(public, x, key(1), b"m").c1
    good = (0, 1, 3)
    for index, responders, seeds in (
        (2, good, pairs(good, 2)),
        (1, (0, 1), pairs((0, 1), 1)),
        (1, (0, 3, 1), pairs(good, 1)),
        (1, (0, 1, 1, 3), pairs(good, 1)),
        (1, tuple(range(10)), pairs(range(10), 1)),
        (1, good, {0: key(0)}),
        (1, good, pairs((0, 1, 3, 4), 1)),
    ):
        with pytest.raises(threshold.BadRequest):
            threshold.partial(shares[1], index, responders, 2, c1, seeds, x, key(1), b"m")
    with pytest.raises(lattice.BadResidues):
        threshold.partial(shares[1], 1, good, 2, c1[:-16], pairs(good, 1), x, key(1), b"m")
    with pytest.raises(threshold.FieldOverflow):
        threshold.partial(shares[1], 1, good, 2, c1, pairs(good, 1), x + 2**27, key(1), b"m")


def test_weights_and_parts_that_do_not_fit_are_refused():
    public, _ = committee(3, 1)
    part = threshold.encrypt(public, np.arange(10), key(1), b"m").c0
    assert threshold.weighted_sum([part, part], [1, 0]) == part
    for parts, weights in (
        ([], []),
        ([part], [1, 1]),
        ([part], [0]),
        ([part], [-1]),
        ([part], [17]),
        ([part] * 257, [1] * 257),
    ):
        with pytest.raises(threshold.BadRequest):
            threshold.weighted_sum(parts, weights)
    for bad in (part[:-8], os.urandom(7), b"\xff" * len(part)):
        with pytest.raises(lattice.BadResidues):
            threshold.weighted_sum([part, bad], [1, 1])


def test_a_wrong_or_malformed_partial_is_noticed():
    public, shares = committee(3, 1)
    x = np.arange(200)
    c = total_of([threshold.encrypt(public, x, key(1), b"m")], [1])
    still = dict.fromkeys((0, 1), np.zeros(200, np.int64))
    _, partials = decrypt(c, (0, 1), 1, shares, still)
    with pytest.raises(threshold.WrongDecryption):
        threshold.fuse(c[0], partials | {1: partials[0]}, (0, 1), 1, 200, 250)
    for bad in (b"", partials[1][:-1], b"\xff" * len(partials[1])):
        with pytest.raises(lattice.BadResidues, match="partial 1"):
            threshold.fuse(c[0], partials | {1: bad}, (0, 1), 1, 200)


@given(st.permutations(range(9)), st.integers(1, 9))
def test_lagrange_coefficients_give_the_value_at_zero(order, size):
    responders = tuple(sorted(order[:size]))
    coefficients = [int.from_bytes(key(i), "little") % MODULUS for i in range(size)]
    values = {
        i: sum(f * (i + 1) ** power for power, f in enumerate(coefficients)) for i in responders
    }
    total = sum(threshold.lagrange(i, responders) * values[i] for i in responders)
    assert total % MODULUS == coefficients[0]
