"""How the sites write things. Pure."""

from __future__ import annotations

from datetime import date


def is_day(text: str) -> bool:
    """Whether this is a day such as 2026-03-18."""
    try:
        return date.fromisoformat(text).isoformat() == text
    except ValueError:
        return False


def money(cents: int) -> str:
    """An amount as people write it."""
    return f"{cents / 100:.2f}"
