"""Dates and durations, without the standard library's."""

from __future__ import annotations

import re

_DAYS = (31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31)
_UNITS = {"d": 86400, "h": 3600, "m": 60, "s": 1}
_WEEKDAYS = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")


def is_leap(year: int) -> bool:
    """Whether the year has 366 days."""
    return year % 4 == 0 and (year % 100 != 0 or year % 400 == 0)


def days_in_month(year: int, month: int) -> int:
    """How many days a month has."""
    if not 1 <= month <= 12:
        raise ValueError("a month is 1 to 12")
    if month == 2 and is_leap(year):
        return 29
    return _DAYS[month - 1]


def day_of_year(year: int, month: int, day: int) -> int:
    """1 for the first of January."""
    if not 1 <= day <= days_in_month(year, month):
        raise ValueError("there is no such day")
    return day + sum(days_in_month(year, earlier) for earlier in range(1, month))


def days_between(first: tuple[int, int, int], second: tuple[int, int, int]) -> int:
    """Days from one date to another, negative if it comes before."""
    return _day_number(*second) - _day_number(*first)


def _day_number(year: int, month: int, day: int) -> int:
    before = year - 1
    return before * 365 + before // 4 - before // 100 + before // 400 + day_of_year(year, month, day)


def weekday(year: int, month: int, day: int) -> str:
    """The day's name."""
    return _WEEKDAYS[(_day_number(year, month, day) - 1) % 7]


def add_months(date: tuple[int, int, int], count: int) -> tuple[int, int, int]:
    """The same day `count` months later, or the last of that month."""
    year, month, day = date
    months = year * 12 + month - 1 + count
    year, month = divmod(months, 12)
    month += 1
    return year, month, min(day, days_in_month(year, month))


def parse_duration(text: str) -> int:
    """`1h 30m` in seconds."""
    parts = re.findall(r"(\d+)\s*([dhms])", text)
    if not parts or re.sub(r"(\d+)\s*([dhms])|\s", "", text):
        raise ValueError(f"{text!r} is no duration")
    return sum(int(number) * _UNITS[unit] for number, unit in parts)


def format_duration(seconds: int) -> str:
    """5400 as `1h 30m`."""
    if seconds < 0:
        return "-" + format_duration(-seconds)
    parts: list[str] = []
    for unit, size in _UNITS.items():
        count, seconds = divmod(seconds, size)
        if count:
            parts.append(f"{count}{unit}")
    return " ".join(parts) or "0s"


def parse_clock(text: str) -> int:
    """`9:30 pm` or `21:30` as minutes after midnight."""
    match = re.fullmatch(r"(\d{1,2}):(\d{2})(?:\s*([ap])m)?", text.strip().lower())
    if not match:
        raise ValueError(f"{text!r} is no time")
    hour, minute, half = int(match[1]), int(match[2]), match[3]
    if minute > 59 or hour > 23 or (half and not 1 <= hour <= 12):
        raise ValueError(f"{text!r} is no time")
    if half:
        hour = hour % 12 + (12 if half == "p" else 0)
    return hour * 60 + minute
