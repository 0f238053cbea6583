"""The parameter store, typed: proposals to encode, and what is in force to read.

Proposals go in by the parameters' names and are sorted here. What comes out is checked against the
rules of `fedtrade.governed`, whoever answered: a node or a mirror that gives values which no store
can hold is refused.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from fedtrade.chain.conversation import Conversation, read
from fedtrade.errors import Stale
from fedtrade.governed import RULES, Governed
from fedtrade.parameters import PrivacyParameters
from fedtrade.steering import Standing, arguments
from fedtrade.venues.codec import Call, Function

_VALUES: Final = f"uint64[{len(RULES)}]"

SET: Final = Function("set(uint8[],uint64[])")
STEER: Final = Function("steer(uint8[],uint64[])")
TIGHTEN: Final = Function("tighten(uint8[],uint64[])")
VETO: Final = Function("veto()")
PAUSE: Final = Function("pause()")
UNPAUSE: Final = Function("unpause()")
SET_GUARDIAN: Final = Function("setGuardian(address)")
SET_STEWARD: Final = Function("setSteward(address)")
PARAMETERS: Final = Function("parameters()", f"({_VALUES},bool,uint64)")
SNAPSHOT: Final = Function("snapshot()", f"({_VALUES},{_VALUES},uint64,bool,uint64)")
LAST_STEERED: Final = Function("lastSteered(uint8)", "(uint64)")


class EverythingPaused(Stale):
    """Guardian or governance has stopped everything."""

    def __init__(self) -> None:
        super().__init__(
            "The consortium has paused everything: no round goes on. Wait until governance unpauses it"
        )


class NothingMirrored(Stale):
    """A mirror that no message of the home chain has reached yet."""

    def __init__(self, address: str) -> None:
        super().__init__(
            f"Mirror {address}: no message of the home chain has arrived, so nothing is known of the "
            "parameters. Wait until validators and relayer have brought one"
        )
        self.address = address


@dataclass(frozen=True, slots=True)
class InForce:
    """What is in force, as a parameter store or a mirror says."""

    governed: Governed
    paused: bool
    as_of_s: int
    """Up to when the home chain's state is known there; on the home chain, the block's time."""

    def require_obeyed(self, release: PrivacyParameters) -> None:
        """Refuse to go on with a release now. Raises EverythingPaused, LooserThanGoverned."""
        if self.paused:
            raise EverythingPaused
        self.governed.require_obeyed(release)


@dataclass(frozen=True, slots=True)
class ParameterStore:
    """The parameters of the consortium. Its owner is governance. A mirror answers `parameters` too."""

    address: str

    def set(self, changes: Mapping[str, int]) -> Call:
        """Set parameters by their names; governance only."""
        return Call(self.address, SET.encode(*arguments(changes)))

    def steer(self, changes: Mapping[str, int]) -> Call:
        """Move parameters by a step each, for a term; the steward only."""
        return Call(self.address, STEER.encode(*arguments(changes)))

    def tighten(self, changes: Mapping[str, int]) -> Call:
        """Tighten parameters until governance moves them; the guardian only."""
        return Call(self.address, TIGHTEN.encode(*arguments(changes)))

    def veto(self) -> Call:
        """End the interim values; governance or guardian."""
        return Call(self.address, VETO.encode())

    def pause(self) -> Call:
        """Stop everything; governance or guardian."""
        return Call(self.address, PAUSE.encode())

    def unpause(self) -> Call:
        """Let everything go on; governance only."""
        return Call(self.address, UNPAUSE.encode())

    def set_guardian(self, account: str) -> Call:
        """Appoint who may tighten and pause; governance only."""
        return Call(self.address, SET_GUARDIAN.encode(account))

    def set_steward(self, account: str) -> Call:
        """Appoint who may steer; governance only."""
        return Call(self.address, SET_STEWARD.encode(account))

    def parameters(self, block: int | str = "latest") -> Conversation[InForce]:
        """What is in force at `block`. Raises OutOfBounds, JointlyAbsurd for what cannot be, and
        NothingMirrored where the address is a mirror's that waits for its first message."""
        ((values, paused, as_of_s),) = yield from read([(self.address, PARAMETERS, ())], block)
        if not any(values):
            raise NothingMirrored(self.address)
        return InForce(Governed.of(values), paused, as_of_s)

    def standing(self, block: int | str = "latest") -> Conversation[Standing]:
        """Everything that the store holds, to judge a proposal by. Raises as above."""
        (snapshot, *steered) = yield from read(
            [(self.address, SNAPSHOT, ())]
            + [(self.address, LAST_STEERED, (rule.id,)) for rule in RULES],
            block,
        )
        governed, interim, until_s, paused, _ = snapshot
        return Standing(
            governed=Governed.of(governed),
            interim=Governed.of(interim) if until_s else None,
            interim_until_s=until_s,
            paused=paused,
            last_steered_s=tuple(time_s for (time_s,) in steered),
        )
