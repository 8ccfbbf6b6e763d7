"""Mails of today that ask for something on another site."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from agent_rl_envs.browser.sites.admin.population import PLANS
from agent_rl_envs.browser.sites.admin.records import Customer
from agent_rl_envs.browser.sites.calendar.records import Event
from agent_rl_envs.browser.sites.database import Profile
from agent_rl_envs.browser.sites.draws import Person, clock, later, one, order
from agent_rl_envs.browser.sites.mail.records import Mail
from agent_rl_envs.browser.sites.shop.records import CartLine, Product


@dataclass(frozen=True, slots=True)
class Errands:
    """Who asks for what. `mails` are in the order of the others: of a purchase, a meeting, a customer."""

    mails: list[Mail]
    senders: list[Person]
    line: CartLine
    event: Event
    customer: Customer
    plan: str


def make_errands(
    rng: np.random.Generator,
    people: Sequence[Person],
    me: Profile,
    products: Sequence[Product],
    taken: Sequence[CartLine],
    customers: Sequence[Customer],
    first_id: int,
) -> Errands:
    """Of three people. What is wished for can be bought, and is not in the cart."""
    senders = [people[at] for at in order(rng, len(people))[:3]]
    in_cart = {line.product_id for line in taken}
    product = one(rng, [p for p in products if p.stock and p.options and p.id not in in_cart])
    line = CartLine(product_id=product.id, option=one(rng, product.choices()), quantity=int(rng.integers(2, 6)))
    start = 60 * int(rng.integers(8, 20))
    event = Event(
        title=one(rng, ("Kick-off", "Rehearsal", "Tasting", "House viewing")),
        day=later(me.now, int(rng.integers(2, 40))),
        start=clock(start),
        end=clock(start + 60),
        place=one(rng, ("Old mill", "Station hall", "Studio 4")),
        until="",
    )
    customer = one(rng, customers)
    plan = one(rng, [plan for plan in PLANS if plan != customer.plan])
    texts = (
        (
            "Shopping wish",
            f'Could you put {line.quantity} of "{product.name}" in the option "{line.option}" into your cart?',
        ),
        (
            "Meeting",
            f"Let us meet on {event.day}, {event.start} to {event.end}. Place: {event.place}. Title: {event.title}.",
        ),
        ("Change of plan", f'The customer {customer.name} wants to be on the plan "{plan}" from now on.'),
    )
    mails = [
        Mail(
            id=first_id + at,
            folder="inbox",
            sender=who.email,
            recipient=me.email,
            subject=subject,
            body=body,
            at=f"{me.now[:10]} 08:{10 * at:02}",
            label="",
            starred=0,
            seen=0,
        )
        for at, (who, (subject, body)) in enumerate(zip(senders, texts, strict=True))
    ]
    return Errands(mails, senders, line, event, customer, plan)
