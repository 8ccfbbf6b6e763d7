"""Half-open ranges of numbers: (start, end) has start and all up to end, without end."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

Range = tuple[float, float]


def overlaps(first: Range, second: Range) -> bool:
    """Whether they share a number."""
    return first[0] < second[1] and second[0] < first[1]


def intersection(first: Range, second: Range) -> Range | None:
    """What they share."""
    start, end = max(first[0], second[0]), min(first[1], second[1])
    if start >= end:
        return None
    return (start, end)


def merged(ranges: Iterable[Range]) -> list[Range]:
    """The same numbers in as few ranges as can be, in order; those that touch become one."""
    joined: list[Range] = []
    for start, end in sorted(ranges):
        if start >= end:
            continue
        if joined and start <= joined[-1][1]:
            joined[-1] = (joined[-1][0], max(joined[-1][1], end))
        else:
            joined.append((start, end))
    return joined


def gaps(ranges: Iterable[Range], within: Range) -> list[Range]:
    """What of `within` is in none of the ranges."""
    free: list[Range] = []
    place = within[0]
    for start, end in merged(ranges):
        if end <= within[0] or start >= within[1]:
            continue
        if start > place:
            free.append((place, start))
        place = max(place, end)
    if place < within[1]:
        free.append((place, within[1]))
    return free


def total_length(ranges: Iterable[Range]) -> float:
    """How much they cover together."""
    return sum(end - start for start, end in merged(ranges))


def busiest(ranges: Sequence[Range]) -> int:
    """How many of them overlap at most at one place."""
    events = sorted(
        [(start, 1) for start, end in ranges if start < end] + [(end, -1) for start, end in ranges if start < end]
    )
    most = now = 0
    for _, change in events:
        now += change
        most = max(most, now)
    return most


def parse_pages(text: str) -> list[int]:
    """`1-3, 7` as [1, 2, 3, 7]; sorted, each once."""
    pages: set[int] = set()
    for part in text.split(","):
        part = part.strip()
        if not part:
            continue
        first, dash, last = part.partition("-")
        if dash:
            if int(first) > int(last):
                raise ValueError(f"{part} ends before it begins")
            pages.update(range(int(first), int(last) + 1))
        else:
            pages.add(int(first))
    return sorted(pages)
