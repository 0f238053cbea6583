"""The coordinator's settings, `coordinator.toml`: TOML, read strictly (`fedtrade.settings`).

`fedtrade-coordinator init` writes the file with a comment on every field. The parameters of a
release become part of its terms, and members refuse terms below their own floors, so nothing here
can lower anybody's privacy.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Final, Self

from pydantic import Field, model_validator

from fedtrade.parameters import PrivacyParameters
from fedtrade.protocol import Address, Count, Hex32
from fedtrade.settings import Beside, Strict, read_settings

COORDINATOR_FILE: Final = "coordinator.toml"

Port = Annotated[int, Field(ge=0, le=65_535)]
"""0 takes a free port: for rehearsals on one machine."""


class ChannelAt(Strict):
    """Where members and helpers reach the round channel, over TLS 1.3."""

    host: Annotated[str, Field(min_length=1, max_length=253)] = "0.0.0.0"
    port: Port


class SuperLinkAt(Strict):
    """Only for the transport over Flower messages: the gate; the SuperLink itself is on loopback."""

    gate_host: Annotated[str, Field(min_length=1, max_length=253)] = "0.0.0.0"
    gate_port: Port
    """SuperNodes connect here, with the same certificate."""
    port: Port = 0
    """Of the SuperLink, on loopback."""
    node_keys: tuple[Beside, ...] = ()
    """Public keys (OpenSSH) of the SuperNodes that may connect."""


class SeatAt(Strict):
    """One party of the release, by its id in Membership."""

    id: Count
    signer: Address | None = None
    """Only without a deployment: its signing address. Otherwise it is read from Membership."""
    x25519: Hex32 | None = None
    """Only without a deployment: its encryption key."""


class MemberAt(SeatAt):
    positions: Annotated[int, Field(ge=1, le=10**7)]
    """How many positions it brings. Public: adjacency is zero-out, so it reveals nothing."""


class ReleaseSettings(Strict):
    """One release: what `run` opens, drives and publishes."""

    number: Count
    version: Annotated[int, Field(ge=1, lt=2**63)]
    """Version of the model that the release publishes; each is larger than the one before."""
    base: Beside
    """The artifact that the release starts from."""
    uri: Annotated[str, Field(min_length=1, max_length=256)] = "artifact.safetensors"
    """Where others fetch the artifact; it is signed with the hash."""
    members: Annotated[tuple[MemberAt, ...], Field(min_length=3, max_length=256)]
    helpers: Annotated[tuple[SeatAt, ...], Field(min_length=3, max_length=9)]
    round_timeout_s: Annotated[float, Field(gt=0.0, le=3_600.0)] = 60.0
    """Longest that one phase of a round waits for a seat."""
    release_timeout_s: Annotated[float, Field(gt=0.0, le=86_400.0)] = 600.0
    """Longest that joining and endorsing wait: members load positions, and recompute the release."""
    parameters: PrivacyParameters


class CoordinatorSettings(Strict):
    """`coordinator.toml`: everything that the coordinator's machine is told by its operator."""

    folder: Beside
    """Transcripts and artifacts, a folder for each release."""
    keys: Beside
    """Folder of `coordinator.key`."""
    deployment: Beside | None = None
    """Chains and contracts (JSON). Left out, nothing is posted or published on any chain: terms are
    what each party has approved in its own file, and manifests are final by certificate."""
    tls: Beside
    """Folder of `ca.crt`, `server.crt` and `server.key` (`server.certificates`): one certificate for
    the round channel, the gate and the SuperLink, for the name or address that members use."""
    channel: ChannelAt
    superlink: SuperLinkAt | None = None
    release: ReleaseSettings

    @model_validator(mode="after")
    def _rooted(self) -> Self:
        seats = (*self.release.members, *self.release.helpers)
        named = [seat.signer is not None and seat.x25519 is not None for seat in seats]
        if self.deployment is None:
            if not all(named):
                raise ValueError(
                    "release: without a deployment every member and helper needs signer and x25519"
                )
            if self.release.parameters.agreement != "certificate":
                raise ValueError(
                    "release.parameters.agreement: without a deployment only 'certificate' can make "
                    "a manifest final"
                )
        elif any(seat.signer is not None or seat.x25519 is not None for seat in seats):
            raise ValueError(
                "release: with a deployment signers and encryption keys are read from Membership; "
                "leave signer and x25519 out"
            )
        return self

    @classmethod
    def load(cls, path: Path) -> Self:
        """Read `coordinator.toml`; every path in it becomes absolute. Raises BadInput."""
        return read_settings(cls, path)

    @property
    def release_folder(self) -> Path:
        """Transcript and artifact of this release."""
        return self.folder / f"release-{self.release.number}"


COORDINATOR_TEMPLATE: Final = """\
# The settings of a coordinator. Paths are relative to this file. An unknown field is an error.

folder = "releases"             # transcripts and artifacts, a folder for each release
keys = "."                      # folder of coordinator.key
tls = "tls"                     # folder of ca.crt, server.crt, server.key; members pin ca.crt
deployment = "deployment.json"  # chains and contracts; without it nothing is posted or published

[channel]                       # the round channel: members and helpers connect here, TLS 1.3
host = "0.0.0.0"
port = 9443

# [superlink]                   # only for the transport over Flower messages
# gate_host = "0.0.0.0"
# gate_port = 9444              # SuperNodes connect here
# port = 0                      # of the SuperLink, on loopback; 0 takes a free one
# node_keys = ["nodes/1.pub"]   # public keys of the SuperNodes that may connect

[release]
number = 1
version = 1                     # of the model that it publishes
base = "base.safetensors"       # the artifact that it starts from
uri = "artifact.safetensors"    # where others fetch the result; signed with the hash
round_timeout_s = 60.0          # longest that one phase of a round waits for a seat
release_timeout_s = 600.0       # longest that joining and endorsing wait
# Seats by their ids in Membership, with each member's count of positions (public). Without a
# deployment give signer = "0x..." and x25519 = "<64 hex digits>" for each seat as well.
members = [
    { id = 1, positions = 100 },
    { id = 2, positions = 100 },
    { id = 3, positions = 100 },
    { id = 4, positions = 100 },
]
helpers = [{ id = 1 }, { id = 2 }, { id = 3 }]

[release.parameters]            # become part of the terms; members refuse what is below their floor
sampling_rate = 0.05            # q: probability with which a position takes part in a round
noise_multiplier = 1.2          # z: deviation of the committee's noise, in clip units
clip_norm = 1.0                 # C: the most that one position's gradient weighs (L2)
rounds = 100
delta = 1e-6
epsilon_cap = 4.0               # the most ε (RDP) that the release may spend
cohort_min = 3                  # fewest members whose sum may be unmasked
helpers = 3                     # m: size of the mask committee
corrupt = 1                     # c: helpers that may be bad; m >= 2c + 1
learning_rate = 0.01
beta1 = 0.9
beta2 = 0.999
server_optimiser = "adam"       # or "momentum"; momentum with beta1 = 0.0 is plain averaging
agreement = "chain"             # a manifest is final on the home chain, or by "certificate"
aggregation = "mask"            # lane B; "bfv" is lane C
# update_norm_max = 8.0         # hidden norm check: largest L2 norm of a member's update, clip units
# bucket_min = 3                # random buckets of at least so many members, trimmed mean over them
bucket_trim = 0                 # buckets cut off at each end of a coordinate
weight_max = 1                  # lane C: largest weight given after submission
local_steps = 0                 # 0: DP-FedSGD; more: local DP-SGD steps with noise of the member's own
local_learning_rate = 0.1
proximal = 0.0                  # FedProx: pull of local steps toward the round's model
"""
