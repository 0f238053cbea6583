"""A model as bytes: the only form in which one is published, hashed, sent or loaded.

The bytes are a safetensors file (float32 arrays, one metadata key that holds the manifest as
canonical JSON). Equal content gives equal bytes, so the sha256 names the *content*, any member can
recompute it, and a chain can carry it. Nothing here can run code: there is no pickle and no class
path, and whoever loads says which hash is expected *before* a byte of the file is interpreted.

Arrays come in two kinds. Trainable ones (`dense0.weight`, …, `head.bias`) make up the vector that
rounds move; names that begin with `fixed.` are public constants of the release (scalers, the public
linear baseline) that no round touches. The network of n inputs x, hidden layers h and k heads is

    z = clip((x − fixed.feature_mean) / fixed.feature_scale, ±CLIP_SIGMA)
    y = fixed.baseline_bias + fixed.baseline_weight·z + fixed.target_scale ∘ net(z)

and log E[v] is forecast as y + fixed.log_to_mean + fixed.log_to_mean_weight·z: Duan's (1983) smearing
factor, which may differ from row to row, for errors that are larger in some hours than in others.

Invariants: `pack(load(b, h).arrays, load(b, h).manifest) == b`; every array is float32, finite, and
has the shape that `manifest.network` implies; no array is missing and none is extra.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Literal, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator
from safetensors import SafetensorError
from safetensors.numpy import load as safetensors_load
from safetensors.numpy import save as safetensors_save

from fedtrade.errors import Refusal

MAX_ARTIFACT_BYTES = 64 * 2**20
MAX_HEADER_BYTES = 2**20
MANIFEST_KEY = "fedtrade"
FIXED = "fixed."
CLIP_SIGMA = 6.0
"""Standardised inputs are clipped here, so that one wild bar cannot saturate a forecast."""

Arrays = Mapping[str, NDArray[np.float32]]
Shapes = Mapping[str, tuple[int, ...]]
Hex32 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
Hex32OrEmpty = Annotated[str, Field(pattern=r"^([0-9a-f]{64})?$")]


class ArtifactMismatch(Refusal):
    """The bytes do not have the hash that the caller expects."""

    def __init__(self, expected_sha256: str, actual_sha256: str) -> None:
        super().__init__(
            f"artifact: the bytes hash to {actual_sha256}, expected {expected_sha256}. "
            "Fetch the artifact again from a source that you trust; do not load this one."
        )
        self.expected_sha256 = expected_sha256
        self.actual_sha256 = actual_sha256


class ArtifactInvalid(Refusal):
    """The bytes are not a canonical artifact of ours, whatever they hash to."""

    def __init__(self, problem: str) -> None:
        super().__init__(f"artifact: {problem}. Ask its publisher for a well-formed artifact.")
        self.problem = problem


class NetworkShape(BaseModel):
    """The size of the network; every array's shape follows from it."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    inputs: Annotated[int, Field(ge=1, le=4096)]
    hidden: Annotated[tuple[Annotated[int, Field(ge=1, le=4096)], ...], Field(max_length=8)]
    outputs: Annotated[int, Field(ge=1, le=16)]
    activation: Literal["tanh"] = "tanh"


class Measured(BaseModel):
    """One figure of a model card."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    what: str
    """Forecast and metric, for example "HAR, QLIKE of log_variance"."""
    value: float


class ModelCard(BaseModel):
    """What the base of a release was fitted on, how good its like was, and what it is for.

    Written before the private rounds and carried through them unchanged, so that whoever recomputes the
    release recomputes it: it cannot tell how good the *released* model is, and does not claim to.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    data: tuple[str, ...]
    """Each public series with its first and last day."""
    judged: str
    """The hours on which the figures were taken; none of them was fitted on."""
    figures: tuple[Measured, ...]
    intended_use: str
    limits: tuple[str, ...]


class Manifest(BaseModel):
    """What a model says of itself: how it is read, where it comes from, what it cost."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    format: Literal[2] = 2
    network: NetworkShape
    features: tuple[str, ...]
    """Input names in order: the public ones first, then the private ones."""
    heads: tuple[str, ...]
    horizon_s: Annotated[int, Field(ge=1)]
    release: Annotated[int, Field(ge=0)]
    rounds: Annotated[int, Field(ge=0)]
    """Aggregated steps since the base model of the release."""
    parent_sha256: Hex32OrEmpty
    """The artifact that the release began with; empty for the first."""
    policy_sha256: Hex32OrEmpty
    epsilon_micro: Annotated[int, Field(ge=0)]
    """Privacy spent by the release, in 1e-6 of ε."""
    delta: Annotated[float, Field(ge=0, lt=1)]
    unit: str
    """The unit of privacy, for example "position"."""
    adjacency: str
    trained_until_s: Annotated[int, Field(ge=0)]
    """No training data is newer than this (Unix seconds)."""
    standins: tuple[str, ...]
    """Every part of the training that stood in for the real thing, in words."""
    card: ModelCard | None = None

    @model_validator(mode="after")
    def _names_match_network(self) -> Self:
        for what, names, size in (
            ("features", self.features, self.network.inputs),
            ("heads", self.heads, self.network.outputs),
        ):
            if len(names) != size or len(set(names)) != size:
                raise ValueError(f"{what} must be {size} distinct names")
        return self


@dataclass(frozen=True, slots=True)
class Artifact:
    """A verified model. Its arrays are read-only."""

    arrays: Arrays
    manifest: Manifest
    sha256: str


def trainable_shapes(network: NetworkShape) -> dict[str, tuple[int, ...]]:
    """Shapes of the arrays that rounds move, in the order of the flat vector (sorted names)."""
    shapes: dict[str, tuple[int, ...]] = {}
    width = network.inputs
    for depth, units in enumerate(network.hidden):
        shapes[f"dense{depth}.weight"] = (units, width)
        shapes[f"dense{depth}.bias"] = (units,)
        width = units
    shapes["head.weight"] = (network.outputs, width)
    shapes["head.bias"] = (network.outputs,)
    return dict(sorted(shapes.items()))


def fixed_shapes(network: NetworkShape) -> dict[str, tuple[int, ...]]:
    """Shapes of the public constants that no round moves."""
    n, k = network.inputs, network.outputs
    return {
        "fixed.baseline_bias": (k,),
        "fixed.baseline_weight": (k, n),
        "fixed.feature_mean": (n,),
        "fixed.feature_scale": (n,),
        "fixed.log_to_mean": (k,),
        "fixed.log_to_mean_weight": (k, n),
        "fixed.target_scale": (k,),
    }


def flatten(arrays: Arrays) -> NDArray[np.float32]:
    """The trainable arrays as one float32 vector, by sorted name; `fixed.*` are left out."""
    names = sorted(name for name in arrays if not name.startswith(FIXED))
    if not names:
        return np.zeros(0, np.float32)
    return np.concatenate([np.asarray(arrays[name], np.float32).ravel() for name in names])


def unflatten(vector: NDArray[np.floating], like: Shapes) -> dict[str, NDArray[np.float32]]:
    """The inverse of `flatten` for the trainable names of `like`; the length must match exactly."""
    names = sorted(name for name in like if not name.startswith(FIXED))
    sizes = [int(np.prod(like[name], dtype=np.int64)) for name in names]
    if vector.shape != (sum(sizes),):
        raise ArtifactInvalid(f"a vector of {vector.shape} does not fill {sum(sizes)} parameters")
    parts = np.split(np.asarray(vector, np.float32), np.cumsum(sizes)[:-1])
    return {name: part.reshape(like[name]).copy() for name, part in zip(names, parts, strict=True)}


def pack(arrays: Arrays, manifest: Manifest) -> bytes:
    """The canonical bytes of a model. Equal content gives equal bytes; bad content is refused."""
    _check_arrays(arrays, manifest.network)
    contiguous = {name: np.ascontiguousarray(arrays[name]) for name in sorted(arrays)}
    data: bytes = safetensors_save(contiguous, metadata={MANIFEST_KEY: _canonical_json(manifest)})
    return data


def successor(base: Artifact, vector: NDArray[np.float32], **changes: Any) -> bytes:
    """The bytes of `base` with other parameters and the given manifest fields changed."""
    arrays = {**base.arrays, **unflatten(vector, trainable_shapes(base.manifest.network))}
    return pack(arrays, Manifest.model_validate({**base.manifest.model_dump(), **changes}))


def sha256_of(data: bytes) -> str:
    """Lower-case hex sha256 of an artifact's bytes."""
    return hashlib.sha256(data).hexdigest()


def load(data: bytes, expect_sha256: str) -> Artifact:
    """Verify and parse an artifact: size, then hash, and only then its content."""
    if not re.fullmatch(r"[0-9a-f]{64}", expect_sha256):
        raise ArtifactInvalid("the expected hash must be 64 lower-case hex digits")
    if len(data) > MAX_ARTIFACT_BYTES:
        raise ArtifactInvalid(f"{len(data)} bytes exceed the limit of {MAX_ARTIFACT_BYTES}")
    actual = sha256_of(data)
    if actual != expect_sha256:
        raise ArtifactMismatch(expect_sha256, actual)
    manifest = _read_manifest(data)
    try:
        arrays: dict[str, NDArray[np.float32]] = safetensors_load(data)
    except (
        SafetensorError,
        KeyError,
        ValueError,
        TypeError,
    ) as error:  # or an element type of theirs
        raise ArtifactInvalid(f"not a safetensors file of float32 ({error})") from error
    if pack(arrays, manifest) != data:
        raise ArtifactInvalid("the encoding is not canonical")
    for array in arrays.values():
        array.flags.writeable = False
    return Artifact(arrays, manifest, actual)


def _canonical_json(manifest: Manifest) -> str:
    content = manifest.model_dump(mode="json")
    return json.dumps(content, sort_keys=True, separators=(",", ":"), allow_nan=False)


def _read_manifest(data: bytes) -> Manifest:
    """The manifest out of the header: 8 bytes of little-endian length, then JSON."""
    length = int.from_bytes(data[:8], "little")
    if len(data) < 8 or not 2 <= length <= min(MAX_HEADER_BYTES, len(data) - 8):
        raise ArtifactInvalid("the header's length is impossible")
    try:
        header = json.loads(data[8 : 8 + length])
    except (ValueError, RecursionError) as error:
        raise ArtifactInvalid("the header is not JSON") from error
    metadata = header.get("__metadata__") if isinstance(header, dict) else None
    if not isinstance(metadata, dict) or set(metadata) != {MANIFEST_KEY}:
        raise ArtifactInvalid(f"the metadata must hold the single key {MANIFEST_KEY!r}")
    try:
        return Manifest.model_validate_json(str(metadata[MANIFEST_KEY]))
    except ValidationError as error:
        first = error.errors()[0]
        field = ".".join(str(part) for part in first["loc"]) or "manifest"
        raise ArtifactInvalid(f"manifest field {field}: {first['msg']}") from error


def _check_arrays(arrays: Arrays, network: NetworkShape) -> None:
    wanted = {**trainable_shapes(network), **fixed_shapes(network)}
    if set(arrays) != set(wanted):
        odd = sorted(set(arrays) ^ set(wanted))
        raise ArtifactInvalid(f"arrays missing or unknown: {', '.join(odd[:5])}")
    for name, shape in wanted.items():
        array = arrays[name]
        if array.dtype != np.float32 or array.shape != shape:
            raise ArtifactInvalid(
                f"array {name} is {array.dtype} {array.shape}, must be float32 {shape}"
            )
        if not np.isfinite(array).all():
            raise ArtifactInvalid(f"array {name} holds NaN or infinity")
    if not (arrays["fixed.feature_scale"] > 0).all():
        raise ArtifactInvalid("fixed.feature_scale must be positive")
