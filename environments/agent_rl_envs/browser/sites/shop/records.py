"""The shop's tables. Money is in cents."""

from __future__ import annotations

from sqlalchemy.orm import Mapped

from agent_rl_envs.browser.sites.database import Record


class Product(Record):
    """What is sold. `options` are its colours or sizes, separated by commas; empty where there is no choice."""

    __tablename__ = "products"
    name: Mapped[str]
    brand: Mapped[str]
    category: Mapped[str]
    about: Mapped[str]
    cents: Mapped[int]
    rating: Mapped[float]
    stock: Mapped[int]
    options: Mapped[str]

    def choices(self) -> list[str]:
        """Its options."""
        return self.options.split(",") if self.options else []


class CartLine(Record):
    """Something in the cart."""

    __tablename__ = "cart_lines"
    product_id: Mapped[int]
    option: Mapped[str]
    quantity: Mapped[int]


class Coupon(Record):
    """A code that takes a percentage off orders of at least `least_cents`."""

    __tablename__ = "coupons"
    code: Mapped[str]
    percent: Mapped[int]
    least_cents: Mapped[int]


class Address(Record):
    """Where orders may go to."""

    __tablename__ = "addresses"
    label: Mapped[str]
    recipient: Mapped[str]
    street: Mapped[str]
    postcode: Mapped[str]
    city: Mapped[str]


class Order(Record):
    """An order; `status` is processing, shipped, delivered or cancelled, `shipping` standard or express."""

    __tablename__ = "orders"
    placed_at: Mapped[str]
    status: Mapped[str]
    address_id: Mapped[int]
    shipping: Mapped[str]
    coupon: Mapped[str]
    note: Mapped[str]
    total_cents: Mapped[int]


class OrderLine(Record):
    """Something that was ordered, at the price it had."""

    __tablename__ = "order_lines"
    order_id: Mapped[int]
    product_id: Mapped[int]
    option: Mapped[str]
    quantity: Mapped[int]
    cents: Mapped[int]


class Return(Record):
    """A line of an order that goes back."""

    __tablename__ = "returns"
    order_line_id: Mapped[int]
    reason: Mapped[str]
    comment: Mapped[str]
