"""A world: the records of all sites, from one number; the owner's name and the people are the same on all of them."""

from __future__ import annotations

import functools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields

from agent_rl.seeding import stream
from agent_rl_envs.browser.sites.admin.population import AdminRecords, make_admin
from agent_rl_envs.browser.sites.calendar.population import CalendarRecords, make_calendar
from agent_rl_envs.browser.sites.cross.errands import Errands, make_errands
from agent_rl_envs.browser.sites.database import Profile, Record, Tables, make_image, tables_of
from agent_rl_envs.browser.sites.draws import Person, later, people
from agent_rl_envs.browser.sites.forms.population import FormsRecords, make_forms
from agent_rl_envs.browser.sites.forum.population import ForumRecords, make_forum
from agent_rl_envs.browser.sites.mail.population import MailRecords, make_mail
from agent_rl_envs.browser.sites.shop.population import ShopRecords, make_shop

_PEOPLE = 13
_FIRST_DAY, _DAYS = "2026-01-05", 300


@dataclass(frozen=True)
class World:
    """Nothing of it changes: episodes work on copies of `image`."""

    profile: Profile
    people: Sequence[Person]
    shop: ShopRecords
    forum: ForumRecords
    mail: MailRecords
    admin: AdminRecords
    forms: FormsRecords
    calendar: CalendarRecords
    errands: Errands

    def records(self) -> Iterator[Record]:
        """All of them."""
        yield self.profile
        for site in (self.shop, self.forum, self.mail, self.admin, self.forms, self.calendar):
            for one in fields(site):
                yield from getattr(site, one.name)

    @functools.cached_property
    def image(self) -> bytes:
        """The database."""
        return make_image(self.records())

    @functools.cached_property
    def tables(self) -> Tables:
        """Its rows."""
        return tables_of(self.image)


@functools.lru_cache(maxsize=512)
def make_world(number: int) -> World:
    """The world of a number."""
    rng = stream("browser sites world", number)
    owner, *others = people(rng, _PEOPLE)
    now = f"{later(_FIRST_DAY, int(rng.integers(_DAYS)))} 09:00"
    me = Profile(id=1, name=owner.name, email=owner.email, now=now)
    shop, mail, admin = make_shop(rng, owner.name, now), make_mail(rng, others, me), make_admin(rng, now)
    first_id = len(mail.mails) + 1
    errands = make_errands(rng, others, me, shop.products, shop.cart, admin.customers, first_id)
    return World(
        profile=me,
        people=others,
        shop=shop,
        forum=make_forum(rng, others, owner, now),
        mail=MailRecords([*mail.mails, *errands.mails], mail.contacts),
        admin=admin,
        forms=make_forms(rng, me),
        calendar=make_calendar(rng, others, now),
        errands=errands,
    )
