"""The back office's tables. Money is in cents."""

from __future__ import annotations

from sqlalchemy.orm import Mapped

from agent_rl_envs.browser.sites.database import Record


class Customer(Record):
    """A customer of the company."""

    __tablename__ = "customers"
    name: Mapped[str]
    email: Mapped[str]
    country: Mapped[str]
    plan: Mapped[str]
    status: Mapped[str]
    since: Mapped[str]


class Invoice(Record):
    """An invoice; `status` is open, paid, overdue or refunded."""

    __tablename__ = "invoices"
    customer_id: Mapped[int]
    cents: Mapped[int]
    status: Mapped[str]
    day: Mapped[str]


class Ticket(Record):
    """A question of a customer's. `assignee` is the name of somebody of the staff, or empty."""

    __tablename__ = "tickets"
    customer_id: Mapped[int]
    subject: Mapped[str]
    status: Mapped[str]
    priority: Mapped[str]
    assignee: Mapped[str]
    opened: Mapped[str]


class Comment(Record):
    """Something that was said on a ticket."""

    __tablename__ = "comments"
    ticket_id: Mapped[int]
    author: Mapped[str]
    text: Mapped[str]
    at: Mapped[str]


class Staff(Record):
    """Somebody who works here. A viewer changes nothing, an administrator also changes roles."""

    __tablename__ = "staff"
    name: Mapped[str]
    role: Mapped[str]
    password: Mapped[str]
