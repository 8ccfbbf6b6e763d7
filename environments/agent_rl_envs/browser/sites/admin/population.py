"""What is in the back office."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from agent_rl_envs.browser.sites.admin.records import Comment, Customer, Invoice, Staff, Ticket
from agent_rl_envs.browser.sites.draws import clock, later, one, order, people

COUNTRIES = ("Austria", "Belgium", "Denmark", "Finland", "Portugal")
PLANS = ("free", "basic", "team", "enterprise")
STATUSES = ("active", "suspended", "closed")
INVOICE_STATUSES = ("open", "paid", "overdue", "refunded")
TICKET_STATUSES = ("open", "pending", "closed")
PRIORITIES = ("low", "normal", "high")
ROLES = ("viewer", "manager", "administrator")
SIGNED_IN = 2  # who of the staff is, in the beginning
_SUBJECTS = (
    "Cannot sign in",
    "Question about the bill",
    "Export does not finish",
    "Please change our address",
    "Page is slow",
    "How to invite a colleague",
    "Wrong amount on invoice",
    "Data missing after import",
)


@dataclass(frozen=True, slots=True)
class AdminRecords:
    """All of it. The names of customers and of staff are unique."""

    customers: list[Customer]
    invoices: list[Invoice]
    tickets: list[Ticket]
    comments: list[Comment]
    staff: list[Staff]


def make_admin(rng: np.random.Generator, now: str) -> AdminRecords:
    """Thirty customers, sixty invoices, twenty-four tickets, a staff of four with one administrator."""
    names = people(rng, 34)
    customers = [
        Customer(
            id=id,
            name=who.name,
            email=who.email,
            country=one(rng, COUNTRIES),
            plan=one(rng, PLANS),
            status=one(rng, ("active", "active", "active", "suspended", "closed")),
            since=later(now, -int(rng.integers(30, 1500))),
        )
        for id, who in enumerate(names[:30], 1)
    ]
    invoices = [
        Invoice(
            id=id,
            customer_id=int(rng.integers(1, 31)),
            cents=100 * int(rng.integers(20, 900)),
            status=one(rng, INVOICE_STATUSES),
            day=later(now, -int(rng.integers(1, 120))),
        )
        for id in range(5001, 5061)
    ]
    roles = ("viewer", "manager", "administrator", "manager")
    staff = [
        Staff(id=id, name=who.name, role=role, password=f"{who.name.split()[1].lower()}-{int(rng.integers(100, 1000))}")
        for id, (who, role) in enumerate(zip(names[30:], roles, strict=True), 1)
    ]
    moments = order(rng, 60 * 24)[:24]
    tickets = [
        Ticket(
            id=id,
            customer_id=int(rng.integers(1, 31)),
            subject=one(rng, _SUBJECTS),
            status=one(rng, TICKET_STATUSES),
            priority=one(rng, PRIORITIES),
            assignee=one(rng, [*(who.name for who in staff), ""]),
            opened=f"{later(now, -1 - moment // 24)} {clock(60 * (moment % 24))}",
        )
        for id, moment in enumerate(moments, 301)
    ]
    comments = [
        Comment(
            id=id, ticket_id=ticket.id, author=one(rng, staff).name, text="We are looking into it.", at=ticket.opened
        )
        for id, ticket in enumerate(tickets[::3], 1)
    ]
    return AdminRecords(customers, invoices, tickets, comments, staff)
