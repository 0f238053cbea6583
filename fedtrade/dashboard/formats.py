"""How numbers, money, times and hashes are written in the report: with unit, sign and true minus."""

from __future__ import annotations

import math
from datetime import UTC, datetime

from fedtrade.dashboard.report import QUOTE

MISSING = "n/a"


def number(value: float | None, digits: int = 4) -> str:
    """A plain number with so many decimals and thousands separated by narrow spaces."""
    if value is None or not math.isfinite(value):
        return MISSING
    text = f"{abs(value):,.{digits}f}".replace(",", "\u202f")
    negative = value < 0 and any(c in "123456789" for c in text)
    return f"−{text}" if negative else text


def signed(value: float, digits: int = 2) -> str:
    """A number that always shows its sign, unless it rounds to zero."""
    text = number(value, digits)
    shows = text[0] not in "−n" and any(c in "123456789" for c in text)
    return f"+{text}" if shows else text


def money(value: float) -> str:
    """A gain or loss in the quote token."""
    if not math.isfinite(value):
        return MISSING
    return f"{signed(value, money_digits(value))} {QUOTE}"


def money_digits(value: float) -> int:
    """Decimals that an amount deserves: four significant digits, at most cents."""
    size = abs(value)
    return 0 if size >= 10_000 else 1 if size >= 1_000 else 2


def percent(share: float, digits: int = 1) -> str:
    return MISSING if not math.isfinite(share) else f"{number(100 * share, digits)} %"


def power(value: float, digits: int = 2) -> str:
    """A number as a × 10ᵇ: for variances and δ."""
    if not math.isfinite(value):
        return MISSING
    if value == 0:
        return "0"
    exponent = math.floor(math.log10(abs(value)))
    head = value / 10.0**exponent
    if abs(round(head, digits)) >= 10:
        head, exponent = head / 10, exponent + 1
    raised = str(exponent).translate(str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹"))
    mantissa = number(head, digits)
    if float(head) == 1.0:
        return f"10{raised}"
    return f"{mantissa} × 10{raised}"


def seconds(value: float) -> str:
    """A duration: ms under a second, minutes from two minutes on."""
    if not math.isfinite(value):
        return MISSING
    if value < 1:
        return f"{number(1e3 * value, 0)} ms"
    if value < 120:
        return f"{number(value, 1)} s"
    minutes, rest = divmod(round(value), 60)
    return f"{minutes} min {rest} s"


def moment(time_s: int, *, to_second: bool = False) -> str:
    """A time in UTC."""
    stamp = datetime.fromtimestamp(time_s, UTC)
    return stamp.strftime("%Y-%m-%d %H:%M:%S" if to_second else "%Y-%m-%d %H:%M")


def fee(pips: int) -> str:
    """A pool fee in percent: 500 pips are 0.05 %."""
    return f"{pips / 1e4:g} %"


def short_hash(text: str) -> str:
    """The first bytes of a hash, enough to tell two apart by eye."""
    plain = text.lower().removeprefix("0x")
    return f"{plain[:8]}…{plain[-6:]}" if len(plain) > 20 else plain or "none"


def count(amount: int, one: str, many: str | None = None) -> str:
    """ "1 action", "3 actions", "no actions"."""
    name = one if amount == 1 else many or one + "s"
    return f"{'no' if amount == 0 else number(amount, 0)} {name}"


def listing(items: list[str]) -> str:
    """ "a", "a and b", "a, b and c"."""
    return " and ".join([", ".join(items[:-1]), items[-1]] if len(items) > 1 else items)
