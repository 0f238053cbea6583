"""An artifact is accepted only when it is exactly what was named."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from pydantic import ValidationError
from safetensors.numpy import save

from fedtrade import artifact
from fedtrade.artifact import (
    Artifact,
    ArtifactInvalid,
    ArtifactMismatch,
    Manifest,
    NetworkShape,
    fixed_shapes,
    flatten,
    load,
    pack,
    sha256_of,
    successor,
    trainable_shapes,
    unflatten,
)
from fedtrade.errors import Refusal

SHAPE = NetworkShape(inputs=3, hidden=(4, 2), outputs=2)


def manifest(**changes: Any) -> Manifest:
    content: dict[str, Any] = {
        "network": SHAPE,
        "features": ("a", "b", "c"),
        "heads": ("v", "d"),
        "horizon_s": 3600,
        "release": 1,
        "rounds": 5,
        "parent_sha256": "ab" * 32,
        "policy_sha256": "",
        "epsilon_micro": 3_900_000,
        "delta": 1e-6,
        "unit": "position",
        "adjacency": "zero-out",
        "trained_until_s": 10,
        "standins": ("none",),
    }
    return Manifest(**{**content, **changes})


def arrays(seed: int = 0) -> dict[str, NDArray[np.float32]]:
    draw = np.random.default_rng(seed)
    shapes = {**trainable_shapes(SHAPE), **fixed_shapes(SHAPE)}
    content = {n: draw.standard_normal(s).astype(np.float32) for n, s in shapes.items()}
    content["fixed.feature_scale"] = np.ones(3, np.float32)
    return content


GOOD = pack(arrays(), manifest())


def test_what_is_packed_loads_and_packs_to_the_same_bytes() -> None:
    loaded = load(GOOD, sha256_of(GOOD))
    assert loaded.manifest == manifest()
    assert loaded.sha256 == sha256_of(GOOD)
    for name, array in arrays().items():
        assert np.array_equal(loaded.arrays[name], array)
    assert pack(loaded.arrays, loaded.manifest) == GOOD


def test_equal_content_gives_equal_bytes_whatever_the_order() -> None:
    backwards = dict(reversed(arrays().items()))
    strided = {n: np.asfortranarray(a) for n, a in backwards.items()}
    assert pack(strided, manifest()) == GOOD


def test_loaded_arrays_cannot_be_changed() -> None:
    loaded = load(GOOD, sha256_of(GOOD))
    with pytest.raises(ValueError, match="read-only"):
        loaded.arrays["head.bias"][0] = 1.0


@given(st.integers(0, len(GOOD) * 8 - 1))
def test_any_flipped_bit_is_refused(bit: int) -> None:
    data = bytearray(GOOD)
    data[bit // 8] ^= 1 << bit % 8
    with pytest.raises(ArtifactMismatch) as caught:
        load(bytes(data), sha256_of(GOOD))
    assert caught.value.expected_sha256 == sha256_of(GOOD)
    assert caught.value.actual_sha256 == sha256_of(bytes(data))


@given(st.integers(0, len(GOOD) * 8 - 1))
def test_a_flipped_bit_with_its_own_hash_is_other_content_or_refused(bit: int) -> None:
    """Even somebody who can choose the hash cannot smuggle in a second encoding of a model."""
    data = bytearray(GOOD)
    data[bit // 8] ^= 1 << bit % 8
    try:
        other = load(bytes(data), sha256_of(bytes(data)))
    except Refusal:
        return
    assert pack(other.arrays, other.manifest) == bytes(data)
    same = other.manifest == manifest() and all(
        np.array_equal(other.arrays[n].view(np.uint32), a.view(np.uint32))
        for n, a in arrays().items()
    )
    assert not same


@given(st.binary(max_size=200))
def test_arbitrary_bytes_are_refused(data: bytes) -> None:
    with pytest.raises(ArtifactInvalid):
        load(data, sha256_of(data))


def test_the_hash_is_checked_before_anything_is_parsed(monkeypatch: pytest.MonkeyPatch) -> None:
    def explode(_: bytes) -> None:
        raise AssertionError("parsed before verified")

    monkeypatch.setattr(artifact, "safetensors_load", explode)
    monkeypatch.setattr(artifact, "_read_manifest", explode)
    with pytest.raises(ArtifactMismatch):
        load(GOOD, "00" * 32)


@pytest.mark.parametrize("expected", ["", "AB" * 32, "0x" + "ab" * 31, "ab" * 33])
def test_a_malformed_expectation_is_refused(expected: str) -> None:
    with pytest.raises(ArtifactInvalid, match="64 lower-case hex"):
        load(GOOD, expected)


def test_size_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(artifact, "MAX_ARTIFACT_BYTES", len(GOOD) - 1)
    with pytest.raises(ArtifactInvalid, match="exceed the limit"):
        load(GOOD, sha256_of(GOOD))


def _bad(name: str, array: NDArray[Any]) -> dict[str, NDArray[Any]]:
    return {**arrays(), name: array}


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (_bad("head.bias", np.array([np.nan, 0], np.float32)), "NaN"),
        (_bad("fixed.log_to_mean", np.array([np.inf, 0], np.float32)), "NaN"),
        (_bad("head.bias", np.zeros(2)), "float32"),
        (_bad("head.bias", np.zeros(3, np.float32)), "shape|must be"),
        (_bad("head.extra", np.zeros(2, np.float32)), "missing or unknown"),
        (_bad("fixed.feature_scale", np.array([1, 0, 1], np.float32)), "positive"),
        ({n: a for n, a in arrays().items() if n != "dense1.bias"}, "missing or unknown"),
    ],
)
def test_bad_arrays_are_refused_on_both_sides(
    content: dict[str, NDArray[Any]], problem: str
) -> None:
    with pytest.raises(ArtifactInvalid, match=problem):
        pack(content, manifest())
    text = json.dumps(manifest().model_dump(mode="json"), sort_keys=True, separators=(",", ":"))
    forged = save(content, metadata={artifact.MANIFEST_KEY: text})
    with pytest.raises(ArtifactInvalid, match=problem):
        load(forged, sha256_of(forged))


@pytest.mark.parametrize(
    "metadata",
    [
        {},
        {"other": "1"},
        {artifact.MANIFEST_KEY: "{}"},
        {artifact.MANIFEST_KEY: "not json"},
        {artifact.MANIFEST_KEY: manifest().model_dump_json(), "second": "key"},
        {artifact.MANIFEST_KEY: manifest().model_dump_json(indent=1)},
    ],
)
def test_bad_metadata_is_refused(metadata: dict[str, str]) -> None:
    forged = save(arrays(), metadata=metadata)
    with pytest.raises(ArtifactInvalid):
        load(forged, sha256_of(forged))


@pytest.mark.parametrize(
    "changes",
    [
        {"surprise": 1},
        {"format": 1},
        {"features": ("a", "b")},
        {"features": ("a", "b", "b")},
        {"heads": ("v",)},
        {"epsilon_micro": -1},
        {"parent_sha256": "XY"},
        {"delta": 1.0},
    ],
)
def test_a_manifest_is_strict(changes: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        manifest(**changes)


def test_flatten_takes_trainable_arrays_by_sorted_name() -> None:
    content = arrays()
    names = ["dense0.bias", "dense0.weight", "dense1.bias", "dense1.weight"]
    names += ["head.bias", "head.weight"]
    assert list(trainable_shapes(SHAPE)) == names
    assert np.array_equal(flatten(content), np.concatenate([content[n].ravel() for n in names]))


@given(st.integers(0, 2**32 - 1))
def test_unflatten_inverts_flatten(seed: int) -> None:
    content = arrays(seed)
    shapes = {n: a.shape for n, a in content.items()}
    back = unflatten(flatten(content), shapes)
    assert all(np.array_equal(back[n], content[n]) for n in trainable_shapes(SHAPE))
    assert not any(name.startswith("fixed.") for name in back)
    with pytest.raises(ArtifactInvalid):
        unflatten(flatten(content)[:-1], shapes)


def test_a_successor_keeps_what_is_fixed_and_moves_the_rest() -> None:
    base: Artifact = load(GOOD, sha256_of(GOOD))
    vector = flatten(base.arrays) + np.float32(1)
    data = successor(base, vector, rounds=6, parent_sha256=base.sha256)
    after = load(data, sha256_of(data))
    assert np.array_equal(flatten(after.arrays), vector)
    assert all(np.array_equal(after.arrays[n], base.arrays[n]) for n in fixed_shapes(SHAPE))
    assert (after.manifest.rounds, after.manifest.parent_sha256) == (6, base.sha256)
    with pytest.raises(ValidationError):
        successor(base, vector, epsilon_micro=-1)
