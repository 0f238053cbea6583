"""Events and actions as JSON: exact, by an explicit table, and the same bytes for the same value.

Types are found by a table and never by a name in the data. Integers beyond ±2^53 are written as
decimal strings, so that readers of other languages keep every digit; floats in their shortest exact
form, non-finite ones as "nan", "inf", "-inf". Law: `decode(json(encode(x))) == x`, and what is not
exactly a result of `encode` does not decode.
"""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Mapping
from typing import Any, Final, Literal, get_args, get_origin, get_type_hints

from fedtrade.market.actions import Action, ProvideLiquidity, SwapExactInput, WithdrawLiquidity
from fedtrade.market.events import (
    ActionSettled,
    BarClosed,
    Event,
    Head,
    Holdings,
    LiquidityChanged,
    ModelPublished,
    ModelRevoked,
    OracleUpdated,
    ParametersSeen,
    PoolSnapshot,
    PositionHeld,
    Reorganised,
    Swapped,
)

Body = Mapping[str, Any]

_EXACT: Final = 2**53
_TYPES: Final[Mapping[str, type[Any]]] = {
    "ActionSettled": ActionSettled,
    "BarClosed": BarClosed,
    "Head": Head,
    "Holdings": Holdings,
    "LiquidityChanged": LiquidityChanged,
    "ModelPublished": ModelPublished,
    "ModelRevoked": ModelRevoked,
    "OracleUpdated": OracleUpdated,
    "ParametersSeen": ParametersSeen,
    "PoolSnapshot": PoolSnapshot,
    "ProvideLiquidity": ProvideLiquidity,
    "Reorganised": Reorganised,
    "SwapExactInput": SwapExactInput,
    "Swapped": Swapped,
    "WithdrawLiquidity": WithdrawLiquidity,
}
_FIELDS: Final[Mapping[type[Any], Mapping[str, Any]]] = {
    cls: {f.name: get_type_hints(cls)[f.name] for f in dataclasses.fields(cls)}
    for cls in (*_TYPES.values(), PositionHeld)
}


def plain(value: object) -> Any:
    """A dataclass, tuple, number or text as JSON can carry it exactly; raises on anything else."""
    if value is None or isinstance(value, str | bool):
        return value
    if isinstance(value, int):
        return int(value) if -_EXACT <= value <= _EXACT else str(int(value))
    if isinstance(value, float):
        return float(value) if math.isfinite(value) else str(float(value))
    if isinstance(value, tuple | list):
        return [plain(item) for item in value]
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if dataclasses.is_dataclass(value):
        return {f.name: plain(getattr(value, f.name)) for f in dataclasses.fields(value)}
    raise TypeError(f"{type(value).__name__} has no place in a journal")


def encode(value: Event | Action) -> dict[str, Any]:
    """An event or action as a JSON object with its type's name."""
    name = type(value).__name__
    if _TYPES.get(name) is not type(value):
        raise TypeError(f"{name} is neither an event nor an action")
    return {"type": name, **plain(value)}


def decode(body: Body) -> Event | Action:
    """The inverse of `encode`; raises ValueError for anything else."""
    cls = _TYPES.get(str(body.get("type")))
    if cls is None:
        raise ValueError(f"unknown type {body.get('type')!r}")
    value = _object(cls, {key: item for key, item in body.items() if key != "type"})
    if encode(value) != body:
        raise ValueError(f"{cls.__name__} is not in canonical form")
    return value  # type: ignore[no-any-return]


def _object(cls: type[Any], raw: Any) -> Any:
    hints = _FIELDS[cls]
    if not isinstance(raw, Mapping) or set(raw) != set(hints):
        raise ValueError(f"{cls.__name__} does not have exactly the fields {', '.join(hints)}")
    return cls(**{name: _value(hint, raw[name]) for name, hint in hints.items()})


def _value(hint: Any, raw: Any) -> Any:
    if hint is int and (type(raw) is int or (isinstance(raw, str) and len(raw) < 100)):
        return int(raw)
    if hint is float and (type(raw) is float or raw in ("nan", "inf", "-inf")):
        return float(raw)
    if (hint is str and isinstance(raw, str)) or (hint is bool and isinstance(raw, bool)):
        return raw
    if hint in _FIELDS:
        return _object(hint, raw)
    if get_origin(hint) is Literal and raw in get_args(hint):
        return raw
    if get_origin(hint) is tuple and isinstance(raw, list):
        item, *rest = get_args(hint)
        if rest == [...]:
            return tuple(_value(item, entry) for entry in raw)
        if len(raw) == 1 + len(rest):
            return tuple(map(_value, (item, *rest), raw))
    raise ValueError(f"{raw!r:.80} is not a {hint}")


def canonical(value: object) -> str:
    """The one text of a JSON value."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False)
