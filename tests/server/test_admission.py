"""Who may pass the gate: a registered key's fresh signature, as often as the buckets give."""

from base64 import b64encode
from datetime import UTC, datetime, timedelta

import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from hypothesis import given
from hypothesis import strategies as st

from server.admission import (
    KEY_HEADER,
    SIGNATURE_HEADER,
    TIMESTAMP_HEADER,
    Buckets,
    Refused,
    check_node,
)

NOW = datetime(2026, 1, 1, tzinfo=UTC)
KEY = ec.generate_private_key(ec.SECP384R1())
PEM = KEY.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)


def headers(at=NOW, key=PEM):
    stamp = at.isoformat()
    return {
        KEY_HEADER: b64encode(key).decode(),
        TIMESTAMP_HEADER: stamp,
        SIGNATURE_HEADER: b64encode(KEY.sign(stamp.encode(), ec.ECDSA(hashes.SHA256()))).decode(),
    }


@given(off_s=st.floats(-1000, 1000))
def test_a_clock_may_be_300_s_behind_and_5_s_ahead(off_s):
    """The same limits as the SuperLink's own (Flower: -5 s < age < 305 s)."""
    sent = headers(NOW + timedelta(seconds=off_s))
    age_s = (NOW - datetime.fromisoformat(sent[TIMESTAMP_HEADER])).total_seconds()
    if -5 < age_s < 305:
        assert check_node(sent, {PEM}.__contains__, NOW) == PEM
    else:
        with pytest.raises(Refused, match="clock") as caught:
            check_node(sent, {PEM}.__contains__, NOW)
        assert caught.value.status == 401


@given(
    sent=st.dictionaries(
        st.sampled_from([KEY_HEADER, TIMESTAMP_HEADER, SIGNATURE_HEADER]), st.text(max_size=40)
    )
)
def test_whatever_the_headers_hold_the_answer_is_a_refusal(sent):
    with pytest.raises(Refused):
        check_node(headers() | sent if len(sent) == 1 else sent, {PEM}.__contains__, NOW)


def test_a_key_that_is_not_registered_is_not_even_parsed():
    with pytest.raises(Refused, match="not registered"):
        check_node(headers(key=b"no key at all"), {PEM}.__contains__, NOW)


def test_flowers_own_signature_passes():
    from flwr.supercore.primitives.asymmetric import public_key_to_bytes, sign_message

    sent = headers(key=public_key_to_bytes(KEY.public_key()))
    stamp = sent[TIMESTAMP_HEADER].encode()
    sent[SIGNATURE_HEADER] = b64encode(sign_message(KEY, stamp)).decode()
    assert check_node(sent, {PEM}.__contains__, NOW) == PEM


def test_flowers_names_and_limits_are_as_we_know_them():
    from flwr.common import constant as common
    from flwr.supercore import constant

    assert constant.FLEET_HTTP_PUBLIC_KEY_HEADER == KEY_HEADER
    assert constant.FLEET_HTTP_SIGNATURE_HEADER == SIGNATURE_HEADER
    assert common.TIMESTAMP_HEADER == TIMESTAMP_HEADER
    assert (common.TIMESTAMP_TOLERANCE, common.SYSTEM_TIME_TOLERANCE) == (300, 5)


@given(
    rate=st.floats(0.1, 100),
    burst=st.floats(1, 50),
    waits=st.lists(st.floats(0, 2), max_size=60),
)
def test_a_bucket_gives_no_more_than_burst_and_rate(rate, burst, waits):
    buckets, now_s, taken = Buckets(rate, burst, 10), 0.0, 0
    for wait_s in waits:
        now_s += wait_s
        taken += buckets.take("a", now_s)
        assert taken <= burst + rate * now_s + 1e-6


@given(names=st.lists(st.text(max_size=3), max_size=200))
def test_buckets_forget_rather_than_grow(names):
    buckets = Buckets(1.0, 5.0, 16)
    for name in names:
        buckets.take(name, 0.0)
        assert len(buckets) <= 16
