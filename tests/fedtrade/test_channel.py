"""Requests on the round channel: signed over every part, read strictly, fresh within exact edges."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from clients.keys import MemberKeys
from fedtrade.channel import (
    SIGNATURE_HEADER,
    SKEW_MAX_MS,
    ClockSkew,
    NotAuthentic,
    Replayed,
    Request,
    check_fresh,
    error_name,
    read_request,
    role_of,
    task_bytes_max,
)
from fedtrade.protocol import HELPER_ACTIONS, MEMBER_ACTIONS, MESSAGE_BYTES_MAX

KEYS = MemberKeys.ephemeral()
SIGNER = KEYS.address.lower()
COORDINATOR = "0x" + "c0" * 20
REQUESTS = st.builds(
    Request,
    coordinator=st.just(COORDINATOR),
    role=st.sampled_from(["member", "helper"]),
    seat=st.integers(0, 2**63 - 1),
    target=st.just("POST /v1/next"),
    body_sha256=st.binary(min_size=32, max_size=32),
    time_ms=st.integers(0, 2**63 - 1),
)


def read(headers, request):
    return read_request(
        headers, request.coordinator, request.target, {(request.role, request.seat): SIGNER}
    )


@given(REQUESTS)
def test_what_was_signed_is_what_is_read(request):
    assert read(request.headers(KEYS.sign_digest), request) == request


@given(REQUESTS, REQUESTS)
def test_a_signature_stands_for_one_request_alone(signed, other):
    headers = signed.headers(KEYS.sign_digest)
    forged = {**other.headers(KEYS.sign_digest), SIGNATURE_HEADER: headers[SIGNATURE_HEADER]}
    if other == signed:
        assert read(forged, other) == signed
    else:
        with pytest.raises(NotAuthentic, match="signed"):
            read(forged, other)


@pytest.mark.parametrize("change", [{"coordinator": "0x" + "c1" * 20}, {"target": "POST /v1/nexu"}])
@given(request=REQUESTS)
def test_coordinator_and_path_are_signed_and_not_sent(request, change):
    with pytest.raises(NotAuthentic):
        read(request.headers(KEYS.sign_digest), replace(request, **change))


@given(
    REQUESTS, st.dictionaries(st.text(max_size=20), st.text(max_size=200), max_size=6), st.data()
)
def test_headers_that_cannot_be_read_are_refused_and_never_crash(request, noise, data):
    good = request.headers(KEYS.sign_digest)
    broken = data.draw(st.sampled_from(sorted(good)))
    value = data.draw(st.text(max_size=150).filter(lambda v: v != good[broken]))
    with pytest.raises(NotAuthentic):
        read({**noise, **good, broken: value}, request)
    without = {k: v for k, v in good.items() if k != broken}
    with pytest.raises(NotAuthentic):
        read(without, request)


@given(st.integers(0, 2**50), st.integers(0, 2**50), st.integers(0, 2**50))
def test_fresh_is_later_than_the_last_and_near_this_clock(time_ms, last_ms, now_ms):
    if abs(time_ms - now_ms) > SKEW_MAX_MS:
        with pytest.raises(ClockSkew):
            check_fresh(time_ms, last_ms, now_ms)
    elif time_ms <= last_ms:
        with pytest.raises(Replayed):
            check_fresh(time_ms, last_ms, now_ms)
    else:
        check_fresh(time_ms, last_ms, now_ms)


def test_the_edges_of_fresh():
    check_fresh(100, 99, 100 + SKEW_MAX_MS)
    check_fresh(100 + SKEW_MAX_MS, 99, 100)
    for late in (101 + SKEW_MAX_MS, 99 - SKEW_MAX_MS):
        with pytest.raises(ClockSkew, match="NTP"):
            check_fresh(late, -(2**40), 100)
    with pytest.raises(Replayed):
        check_fresh(100, 100, 100)


@given(st.binary(max_size=80))
def test_a_refusal_is_a_name_or_unnamed(told):
    name = error_name(told)
    assert name.isalnum()
    assert name.isascii()
    assert len(name) <= 64
    assert name == "Unnamed" or name.encode() == told


def test_every_action_has_one_role_and_a_limit():
    for action in MEMBER_ACTIONS:
        assert role_of(action) == "member"
    for action in HELPER_ACTIONS:
        assert role_of(action) == "helper"
        assert task_bytes_max(action) == MESSAGE_BYTES_MAX
    assert task_bytes_max("anything") == MESSAGE_BYTES_MAX
    assert MESSAGE_BYTES_MAX < task_bytes_max("endorse") <= 2**30
