"""What is in the mailbox."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from agent_rl_envs.browser.sites.database import Profile
from agent_rl_envs.browser.sites.draws import Person, chance, clock, later, one, order
from agent_rl_envs.browser.sites.mail.records import LABELS, Contact, Mail

SUBJECTS = (
    ("Weekend plans", "Shall we go hiking at the weekend?"),
    ("Photos of the trip", "Here are the photos of our trip to the lake."),
    ("Project plan", "Please have a look at the plan before Friday."),
    ("Lunch", "Do you have time for lunch?"),
    ("A question", "Do you know a good dentist?"),
    ("Thank you", "Thank you for your help."),
    ("Quarterly report", "The report is ready for you."),
    ("Concert tickets", "I have got the tickets."),
    ("Keys", "I left your keys with the neighbours."),
    ("Recipe", "This is the recipe that you asked for."),
    ("Invoice", "The invoice is attached. Please pay within two weeks."),
    ("Book club", "Next time we talk about Middlemarch."),
)


@dataclass(frozen=True, slots=True)
class MailRecords:
    """All of it. No two mails have the same time."""

    mails: list[Mail]
    contacts: list[Contact]


def make_mail(rng: np.random.Generator, people: Sequence[Person], me: Profile) -> MailRecords:
    """Mails of four weeks; most people are in the address book."""
    slots = sorted(order(rng, 28 * 24)[:34])
    mails: list[Mail] = []
    for id, slot in enumerate(slots, 1):
        who, (subject, body) = one(rng, people), one(rng, SUBJECTS)
        folder = one(rng, ("inbox", "inbox", "inbox", "archive", "sent"))
        sender, recipient = (me.email, who.email) if folder == "sent" else (who.email, me.email)
        at = f"{later(me.now, -29 + slot // 24)} {clock(60 * (slot % 24) + int(rng.integers(60)))}"
        mails.append(
            Mail(
                id=id,
                folder=folder,
                sender=sender,
                recipient=recipient,
                subject=subject,
                body=body,
                at=at,
                label=one(rng, LABELS) if chance(rng, 0.3) else "",
                starred=int(chance(rng, 0.1)),
                seen=int(folder != "inbox" or chance(rng, 0.6)),
            )
        )
    contacts = [
        Contact(id=id, name=who.name, email=who.email, phone=f"555-{int(rng.integers(1000, 9999))}")
        for id, who in enumerate(people[:-2], 1)
    ]
    return MailRecords(mails, contacts)
