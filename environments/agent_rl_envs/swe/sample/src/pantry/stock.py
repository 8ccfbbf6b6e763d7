"""A stock with prices, reservations and orders. Money is in cents."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field


class OutOfStock(Exception):
    """There is not as much as was asked for."""


@dataclass
class Item:
    """What is sold."""

    name: str
    cents: int
    count: int = 0
    reserved: int = 0

    @property
    def free(self) -> int:
        """How many nobody has reserved."""
        return self.count - self.reserved


@dataclass
class Stock:
    """All items by name."""

    items: dict[str, Item] = field(default_factory=dict[str, Item])

    def add(self, name: str, count: int, cents: int | None = None) -> Item:
        """Put items in; the price is needed the first time, and changes if it is given again."""
        if count < 0:
            raise ValueError("nobody can add less than nothing")
        item = self.items.get(name)
        if item is None:
            if cents is None:
                raise ValueError(f"{name} needs a price")
            item = self.items[name] = Item(name, cents)
        elif cents is not None:
            item.cents = cents
        item.count += count
        return item

    def reserve(self, name: str, count: int) -> None:
        """Keep some for somebody."""
        item = self._item(name)
        if count > item.free:
            raise OutOfStock(f"{item.free} of {name} are free")
        item.reserved += count

    def release(self, name: str, count: int) -> None:
        """Undo `reserve`."""
        item = self._item(name)
        item.reserved = max(0, item.reserved - count)

    def take(self, name: str, count: int, reserved: bool = False) -> int:
        """Take items out, reserved ones or free ones; returns what they cost."""
        item = self._item(name)
        if reserved:
            if count > item.reserved:
                raise OutOfStock(f"{item.reserved} of {name} are reserved")
            item.reserved -= count
        elif count > item.free:
            raise OutOfStock(f"{item.free} of {name} are free")
        item.count -= count
        return count * item.cents

    def low(self, threshold: int = 5) -> list[str]:
        """Names of what is running out, sorted."""
        return sorted(item.name for item in self.items.values() if item.free < threshold)

    def value(self) -> int:
        """What all of it costs."""
        return sum(item.cents * item.count for item in self.items.values())

    def _item(self, name: str) -> Item:
        try:
            return self.items[name]
        except KeyError:
            raise OutOfStock(f"there is no {name}") from None


def discount(cents: int, percent: float, most: int | None = None) -> int:
    """A price less some per cent, rounded down, and at most `most` cents less."""
    if not 0 <= percent <= 100:
        raise ValueError("a discount is 0 to 100 per cent")
    less = int(cents * percent / 100)
    if most is not None:
        less = min(less, most)
    return cents - less


def split_evenly(cents: int, people: int) -> list[int]:
    """Shares that differ by a cent at most, the larger first."""
    if people < 1:
        raise ValueError("nobody is there to pay")
    share, left = divmod(cents, people)
    return [share + 1] * left + [share] * (people - left)


def total(basket: Mapping[str, int], prices: Mapping[str, int], free_delivery: int = 5000, delivery: int = 490) -> int:
    """What a basket costs with delivery, which is free from some sum on; an empty one costs nothing."""
    cents = sum(prices[name] * count for name, count in basket.items() if count > 0)
    if cents == 0:
        return 0
    return cents if cents >= free_delivery else cents + delivery


def change(cents: int, coins: tuple[int, ...] = (200, 100, 50, 20, 10, 5, 2, 1)) -> dict[int, int]:
    """How often each coin is given, the largest first; those that are not needed are left out."""
    given: dict[int, int] = {}
    for coin in coins:
        count, cents = divmod(cents, coin)
        if count:
            given[coin] = count
    if cents:
        raise ValueError(f"{cents} cents cannot be given")
    return given


def price_text(cents: int, sign: str = "€") -> str:
    """123456 as `€1,234.56`."""
    minus = "-" if cents < 0 else ""
    whole, rest = divmod(abs(cents), 100)
    return f"{minus}{sign}{whole:,}.{rest:02d}"
