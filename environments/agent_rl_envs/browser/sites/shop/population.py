"""What is in the shop."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from agent_rl_envs.browser.sites.draws import chance, clock, later, one, order
from agent_rl_envs.browser.sites.shop.records import Address, CartLine, Coupon, Order, OrderLine, Product

CATEGORIES = {
    "Kitchen": ("Kettle", "Teapot", "Mug", "Pan", "Toaster", "Cutting board"),
    "Garden": ("Watering can", "Rake", "Bird house", "Lantern", "Flower pot", "Hammock"),
    "Office": ("Desk lamp", "Notebook", "Pen holder", "Stapler", "Office chair", "Calendar"),
    "Outdoor": ("Backpack", "Tent", "Sleeping bag", "Water bottle", "Headlamp", "Camping stove"),
}
BRANDS = ("Alder", "Birch", "Cedar", "Drift", "Ember", "Fjord")
COLOURS = ("black", "blue", "green", "red", "white")
SIZES = ("S", "M", "L", "XL")
SHIPPING = {"standard": 490, "express": 1290}
REASONS = ("damaged", "wrong item", "not as described", "no longer needed")
STATUSES = ("processing", "shipped", "delivered", "delivered", "cancelled")
STREETS = ("Mill Lane", "Station Road", "Park Street", "High Street", "Church Walk", "Harbour View")
CITIES = ("Ashford", "Bexley", "Carlow", "Dunmore", "Easton", "Foxhill")


@dataclass(frozen=True, slots=True)
class ShopRecords:
    """All of it. The names of products are unique, so are the dates of orders."""

    products: list[Product]
    cart: list[CartLine]
    coupons: list[Coupon]
    addresses: list[Address]
    orders: list[Order]
    lines: list[OrderLine]


def make_shop(rng: np.random.Generator, owner: str, today: str) -> ShopRecords:
    """A shop with an account that has ordered before."""
    products = _products(rng)
    orders, lines = _orders(rng, products, today)
    return ShopRecords(products, _cart(rng, products), _coupons(rng), _addresses(rng, owner), orders, lines)


def total(lines: list[tuple[int, int]], percent: int, shipping: str) -> int:
    """What an order costs in cents: lines are quantity and price; the coupon takes a share off them, in full cents."""
    goods = sum(quantity * cents for quantity, cents in lines)
    return goods - goods * percent // 100 + SHIPPING[shipping]


def _products(rng: np.random.Generator) -> list[Product]:
    kinds = [(category, thing) for category, things in CATEGORIES.items() for thing in things]
    names = [(category, brand, thing) for category, thing in kinds for brand in _some(rng, BRANDS, 2)]
    found: list[Product] = []
    for id, at in enumerate(order(rng, len(names)), 1):
        category, brand, thing = names[at]
        options: Sequence[str] = one(rng, (COLOURS, SIZES)) if chance(rng, 0.7) else ()
        chosen = sorted(_some(rng, options, 3), key=options.index)
        about = f"A {thing.lower()} by {brand}, made to last. {one(rng, ('Two', 'Three', 'Five'))} years of guarantee."
        stock = 0 if chance(rng, 0.1) else int(rng.integers(5, 60))
        cents, rating = 5 * int(rng.integers(100, 2400)), int(rng.integers(20, 51)) / 10
        found.append(
            Product(
                id=id,
                name=f"{brand} {thing}",
                brand=brand,
                category=category,
                about=about,
                cents=cents,
                rating=rating,
                stock=stock,
                options=",".join(chosen),
            )
        )
    return found


def _some(rng: np.random.Generator, choices: Sequence[str], count: int) -> list[str]:
    return [choices[i] for i in order(rng, len(choices))[:count]]


def _cart(rng: np.random.Generator, products: list[Product]) -> list[CartLine]:
    sold = [product for product in products if product.stock]
    chosen = [sold[i] for i in order(rng, len(sold))[: int(rng.integers(2, 4))]]
    return [
        CartLine(
            id=id, product_id=product.id, option=one(rng, product.choices() or [""]), quantity=int(rng.integers(1, 4))
        )
        for id, product in enumerate(chosen, 1)
    ]


def _coupons(rng: np.random.Generator) -> list[Coupon]:
    words = _some(rng, ("SPRING", "WELCOME", "THANKS", "FRIEND", "LUCKY"), 3)
    return [
        Coupon(id=id, code=f"{word}{percent}", percent=percent, least_cents=1000 * int(rng.integers(0, 3)))
        for id, (word, percent) in enumerate(zip(words, (5, 10, 20), strict=True), 1)
    ]


def _addresses(rng: np.random.Generator, owner: str) -> list[Address]:
    return [
        Address(
            id=id,
            label=label,
            recipient=owner,
            street=f"{int(rng.integers(1, 90))} {one(rng, STREETS)}",
            postcode=str(int(rng.integers(10000, 99999))),
            city=one(rng, CITIES),
        )
        for id, label in enumerate(("Home", "Work", "Parents"), 1)
    ]


def _orders(rng: np.random.Generator, products: list[Product], today: str) -> tuple[list[Order], list[OrderLine]]:
    orders: list[Order] = []
    lines: list[OrderLine] = []
    days = sorted(order(rng, 90)[:9], reverse=True)
    shuffled = order(rng, len(products))
    for id, ago in enumerate(days, 1001):
        own: list[OrderLine] = []
        for _ in range(int(rng.integers(1, 4))):
            product = products[shuffled.pop()]  # nothing was ordered twice
            own.append(
                OrderLine(
                    id=len(lines) + len(own) + 1,
                    order_id=id,
                    product_id=product.id,
                    option=one(rng, product.choices() or [""]),
                    quantity=int(rng.integers(1, 3)),
                    cents=product.cents,
                )
            )
        shipping = one(rng, list(SHIPPING))
        cost = total([(line.quantity, line.cents) for line in own], 0, shipping)
        at = f"{later(today, -ago - 1)} {clock(int(rng.integers(480, 1200)))}"
        orders.append(
            Order(
                id=id,
                placed_at=at,
                status=one(rng, STATUSES),
                address_id=int(rng.integers(1, 4)),
                shipping=shipping,
                coupon="",
                note="",
                total_cents=cost,
            )
        )
        lines += own
    return orders, lines
