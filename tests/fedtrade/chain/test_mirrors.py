"""Messages of a beacon as bytes, and what makes two of them the same to a reader."""

import json
from dataclasses import replace
from importlib.resources import files

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedtrade.chain import mirrors
from fedtrade.chain.mirrors import BadSnapshot, Listed, Snapshot
from fedtrade.venues.codec import Function, LogShape

uint64s = st.integers(0, 2**64 - 1)
sets = st.tuples(*[uint64s] * 28)
listed = st.builds(
    Listed,
    version=uint64s,
    release=uint64s,
    live_from_s=uint64s,
    epsilon_micro=uint64s,
    sha256=st.binary(min_size=32, max_size=32).map(bytes.hex),
)
snapshots = st.builds(
    Snapshot,
    sequence=uint64s,
    sent_at_s=uint64s,
    models=st.lists(listed, max_size=9).map(tuple),
    governed=sets,
    interim=sets,
    interim_until_s=uint64s,
    paused=st.booleans(),
    parameters_sequence=uint64s,
)


@given(snapshots)
def test_a_snapshot_comes_back(snapshot):
    assert Snapshot.decode(snapshot.encode()) == snapshot


@given(st.binary(max_size=400))
def test_any_other_bytes_are_refused(content):
    with pytest.raises(BadSnapshot):
        Snapshot.decode(content)


def entry(version, live_from_s):
    return Listed(version, version, live_from_s, 1, "00" * 32)


PLAIN = Snapshot(1, 100, (entry(3, 150), entry(2, 120), entry(1, 90)), (0,) * 28, (0,) * 28, 0,
                 False, 7)  # fmt: skip


def test_a_snapshot_says_the_same_until_something_changes():
    later = replace(PLAIN, sequence=2, sent_at_s=110)
    assert later.says(110) == PLAIN.says(110)
    assert replace(later, parameters_sequence=8).says(110) != PLAIN.says(110)
    assert replace(later, models=PLAIN.models[:2]).says(110) != PLAIN.says(110)  # 1 was revoked


def test_a_superseded_version_says_nothing_any_more():
    """When 2 goes live at home, 1 is listed no longer; a mirror knows that without a message."""
    later = replace(PLAIN, sent_at_s=130, models=PLAIN.models[:2])
    assert later.says(119) != PLAIN.says(119)
    assert later.says(130) == PLAIN.says(130)


def kind_of(parameter):
    kind = parameter["type"]
    if not kind.startswith("tuple"):
        return kind
    return f"({','.join(map(kind_of, parameter['components']))}){kind.removeprefix('tuple')}"


def lines(contract):
    shipped = json.loads((files("fedtrade.chain") / "abi" / f"{contract}.json").read_text())
    return {
        (f"{e['name']}({','.join(map(kind_of, e['inputs']))})",
         f"({','.join(map(kind_of, e.get('outputs', [])))})")
        for e in shipped["abi"]
        if e["type"] in ("function", "event")
    }  # fmt: skip


def test_signatures_are_those_of_the_contracts():
    known = lines("RegistryBeacon") | lines("RegistryMirror")
    signatures = {signature for signature, _ in known}
    for name, value in vars(mirrors).items():
        if isinstance(value, Function):
            assert (value.signature, value.returns) in known, name
        elif isinstance(value, LogShape):
            assert value.signature in signatures, name
