"""Tasks that need several of the sites: something is read on one, and done on another. They begin in the mailbox."""

from __future__ import annotations

import numpy as np

from agent_rl_envs.browser.sites.admin.tasks import find as find_customer
from agent_rl_envs.browser.sites.calendar.tasks import event_fields
from agent_rl_envs.browser.sites.calendar.tasks import find as find_event
from agent_rl_envs.browser.sites.checks import added, changed
from agent_rl_envs.browser.sites.draws import Person
from agent_rl_envs.browser.sites.formats import money
from agent_rl_envs.browser.sites.forum.population import OWNER
from agent_rl_envs.browser.sites.forum.records import Post
from agent_rl_envs.browser.sites.forum.tasks import find as find_thread
from agent_rl_envs.browser.sites.mail.records import Mail
from agent_rl_envs.browser.sites.mail.tasks import find as find_mail
from agent_rl_envs.browser.sites.mail.tasks import latest, sent
from agent_rl_envs.browser.sites.oracle import Stage, link, press
from agent_rl_envs.browser.sites.problems import Problem, pick, template
from agent_rl_envs.browser.sites.shop.tasks import find as find_product
from agent_rl_envs.browser.sites.world import World


@template("cross")
def shop_by_mail(world: World, rng: np.random.Generator) -> Problem:
    """From the mailbox to the shop."""
    errands, line = world.errands, world.errands.line
    product = next(product for product in world.shop.products if product.id == line.product_id)
    way = [
        *_read(errands.mails[0]),
        link("Shop"),
        *find_product(product),
        press("Add to cart", {"Option": line.option, "Quantity": str(line.quantity)}),
    ]
    text = (
        f'{_mailed(errands.senders[0])} with the subject "Shopping wish". Do in the shop what it asks for, and no more.'
    )
    return Problem(text, way, [added(line)])


@template("cross")
def meeting_by_mail(world: World, rng: np.random.Generator) -> Problem:
    """From the mailbox to the calendar."""
    errands, event = world.errands, world.errands.event
    way = [*_read(errands.mails[1]), link("Calendar"), link("New event"), press("Save event", event_fields(event))]
    text = f'{_mailed(errands.senders[1])} with the subject "Meeting". Put it into my calendar, without guests.'
    return Problem(text, way, [added(event)])


@template("cross")
def customer_by_mail(world: World, rng: np.random.Generator) -> Problem:
    """From the mailbox to the back office."""
    errands = world.errands
    way = [
        *_read(errands.mails[2]),
        link("Admin"),
        *find_customer(errands.customer),
        press("Save customer", {"Plan": errands.plan}),
    ]
    text = f'{_mailed(errands.senders[2])} with the subject "Change of plan". Do in the back office what it says.'
    return Problem(text, way, [changed(errands.customer, plan=errands.plan)])


@template("cross")
def mail_price(world: World, rng: np.random.Generator) -> Problem:
    """From the shop to the mailbox."""
    product, who = pick(rng, world.shop.products), pick(rng, world.people)
    way = [link("Shop"), *find_product(product)[:1], *_write(who, product.name, money(product.cents))]
    text = (
        f'Mail {who.email} what the product "{product.name}" costs in the shop: the subject is the name of the '
        "product, the "
        "text is the price and nothing else."
    )
    return Problem(text, way, [added(sent(world, who.email, product.name, money(product.cents)))])


@template("cross")
def mail_day(world: World, rng: np.random.Generator) -> Problem:
    """From the calendar to the mailbox."""
    event, who = pick(rng, [event for event in world.calendar.events if not event.until]), pick(rng, world.people)
    way = [link("Calendar"), *find_event(event)[:2], *_write(who, event.title, event.day)]
    text = (
        f'Mail {who.email} on which day "{event.title}" is in my calendar: the subject is the title of the event, '
        "the text "
        "is the day as YYYY-MM-DD and nothing else."
    )
    return Problem(text, way, [added(sent(world, who.email, event.title, event.day))])


@template("cross")
def post_mail(world: World, rng: np.random.Generator) -> Problem:
    """From the mailbox to the forum."""
    mail, who = latest(world, rng)
    thread = pick(rng, [thread for thread in world.forum.threads if not thread.locked])
    way = [
        *find_mail(mail, who.email),
        link("Forum"),
        *find_thread(thread),
        press("Post reply", {"Your reply": mail.body}),
    ]
    post = Post(thread_id=thread.id, member_id=OWNER, text=mail.body, at=world.profile.now, score=0, removed=0)
    text = (
        f'Reply to the forum thread "{thread.title}" with the text of the latest mail from {who.email} in my inbox, '
        "word for "
        "word."
    )
    return Problem(text, way, [added(post)])


# --- parts ----------------------------------------------------------------------------------------------------------


def _mailed(who: Person) -> str:
    return f"Today I got a mail from {who.email}"


def _read(mail: Mail) -> list[Stage]:
    return find_mail(mail, mail.sender)


def _write(who: Person, subject: str, text: str) -> list[Stage]:
    return [link("Mail"), link("Write"), press("Send", {"To": who.email, "Subject": subject, "Text": text})]
