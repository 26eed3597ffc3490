"""Durations, sizes, rates and their spellings: `1h30m` is milliseconds, `64KiB` bytes, `600/m` a `Rate`.

Nothing is guessed: a bare number is no duration, and `1M` no size, because readers disagree about what they mean.
"""

import itertools
import re
from dataclasses import dataclass

__all__ = [
    "Rate",
    "UnitError",
    "byte_rate",
    "duration",
    "rate",
    "show_byte_rate",
    "show_duration",
    "show_rate",
    "show_size",
    "size",
]

_MILLISECONDS = {"d": 86_400_000, "h": 3_600_000, "m": 60_000, "s": 1_000, "ms": 1}
_BYTES = {"GiB": 1 << 30, "MiB": 1 << 20, "KiB": 1 << 10, "B": 1}
_DURATION_PART = re.compile(r"([0-9]{1,12})(ms|d|h|m|s)")
_DURATION = re.compile(r"(?:[0-9]{1,12}(?:ms|d|h|m|s))+")
_SIZE = re.compile(r"([0-9]{1,15})(B|KiB|MiB|GiB)")
_LOOSE_SIZE = re.compile(r"([0-9]{1,15})\s*([kmg])(?:i?b)?", re.IGNORECASE)
# What the engine's timers can hold without care about overflow: a century.
_LONGEST = 100 * 365 * _MILLISECONDS["d"]
EXPECTED_DURATION = "expected a duration such as 250ms, 10s, 5m or 1h30m"
EXPECTED_SIZE = "expected a size such as 512, 64KiB or 1MiB"
EXPECTED_RATE = "expected a rate such as 100/s or 600/m"
_RATE = re.compile(r"([0-9]{1,9})/([smh])")
_BYTE_RATE = re.compile(r"([0-9]{1,12}(?:B|KiB|MiB|GiB)?)/([smh])")
_LARGEST_BYTE_RATE = 1 << 40
EXPECTED_BYTE_RATE = "expected a rate such as 64KiB/s or 10MiB/m"


class UnitError(ValueError):
    """A value that is not what it should be; `hint` says what to write."""

    def __init__(self, message: str, hint: str) -> None:
        self.hint = hint
        super().__init__(message)


def duration(value: object) -> int:
    """Milliseconds of `250ms 10s 5m 1h 1h30m`; `0s` is at once."""
    if isinstance(value, str) and _DURATION.fullmatch(value):
        return _bounded(_milliseconds(value), value)
    raise UnitError(f"{_quoted(value)} is not a duration", _duration_hint(value))


def _milliseconds(text: str) -> int:
    parts = _DURATION_PART.findall(text)
    units = [_MILLISECONDS[unit] for _, unit in parts]
    if any(one <= next_ for one, next_ in itertools.pairwise(units)):
        raise UnitError(f"'{text}' is not a duration", "larger units come first and each once: 1h30m")
    return sum(int(count) * unit for (count, _), unit in zip(parts, units, strict=True))


def _bounded(milliseconds: int, text: str) -> int:
    if milliseconds > _LONGEST:
        raise UnitError(f"'{text}' is longer than 100 years", "expected a shorter duration")
    return milliseconds


def _duration_hint(value: object) -> str:
    text = str(value).strip()
    if not isinstance(value, bool) and re.fullmatch(r"[0-9]{1,9}", text):
        return f"{EXPECTED_DURATION}; did you mean '{text}s'?"
    tight = text.replace(" ", "").lower()
    if tight != text and _DURATION.fullmatch(tight):
        return f"{EXPECTED_DURATION}; did you mean '{tight}'?"
    return EXPECTED_DURATION


def size(value: object) -> int:
    """Bytes of `64KiB 1MiB`, or of a plain number."""
    if isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 1 << 60:
        return value
    text = value if isinstance(value, str) else ""
    if match := _SIZE.fullmatch(text):
        return int(match[1]) * _BYTES[match[2]]
    if re.fullmatch(r"[0-9]{1,15}", text):
        return int(text)
    raise UnitError(f"{_quoted(value)} is not a size", _size_hint(text))


def _size_hint(text: str) -> str:
    if match := _LOOSE_SIZE.fullmatch(text.strip()):
        return f"{EXPECTED_SIZE}; did you mean '{match[1]}{match[2].upper()}iB'?"
    return EXPECTED_SIZE


@dataclass(frozen=True, slots=True)
class Rate:
    """So many in so long."""

    count: int
    per: int
    """Milliseconds."""


def rate(value: object) -> Rate:
    """`50/s 600/m 1000/h`."""
    match = _RATE.fullmatch(value) if isinstance(value, str) else None
    if match is None:
        text = str(value)
        number = re.fullmatch(r"[0-9]{1,9}", text) and not isinstance(value, bool)
        raise UnitError(
            f"{_quoted(value)} is not a rate", EXPECTED_RATE + (f"; did you mean '{text}/s'?" if number else "")
        )
    if int(match[1]) == 0:
        raise UnitError(f"'{value}' lets nothing through", EXPECTED_RATE)
    return Rate(int(match[1]), _MILLISECONDS[match[2]])


def _quoted(value: object) -> str:
    return f"'{value}'" if isinstance(value, str) else str(value).lower() if isinstance(value, bool) else str(value)


def show_duration(milliseconds: int) -> str:
    """In the largest unit that divides it: 90000 is `90s`."""
    for unit, length in _MILLISECONDS.items():
        if milliseconds and milliseconds % length == 0:
            return f"{milliseconds // length}{unit}"
    return "0s"


def show_size(count: int) -> str:
    """The largest unit that divides it: 65536 is `64KiB`."""
    for unit, length in _BYTES.items():
        if count and count % length == 0:
            return f"{count // length}{unit}" if unit != "B" else str(count)
    return str(count)


def byte_rate(value: object) -> Rate:
    """`64KiB/s 10MiB/m`."""
    match = _BYTE_RATE.fullmatch(value) if isinstance(value, str) else None
    count = size(match[1]) if match else 0
    if match is None or not 0 < count <= _LARGEST_BYTE_RATE:
        raise UnitError(f"{_quoted(value)} is not a rate of bytes", EXPECTED_BYTE_RATE)
    return Rate(count, _MILLISECONDS[match[2]])


def show_byte_rate(rate: Rate) -> str:
    """As it is written."""
    return f"{show_size(rate.count)}/{show_rate(rate).partition('/')[2]}"


def show_rate(rate: Rate) -> str:
    """As it is written."""
    return f"{rate.count}/{next(unit for unit, length in _MILLISECONDS.items() if length == rate.per)}"
