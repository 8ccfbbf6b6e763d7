"""Tasks in the mailbox."""

from __future__ import annotations

import numpy as np

from agent_rl_envs.browser.sites.checks import added, changed, removed
from agent_rl_envs.browser.sites.draws import Person
from agent_rl_envs.browser.sites.mail.records import LABELS, Contact, Mail
from agent_rl_envs.browser.sites.oracle import Stage, link, press
from agent_rl_envs.browser.sites.problems import Problem, Unsuitable, only, pick, template
from agent_rl_envs.browser.sites.world import World

TEXTS = ("Yes, with pleasure", "Sorry, I cannot make it", "I will call you tomorrow", "That is good news")
TITLES = ("Meeting room", "Your bicycle", "Train times", "The garden fence", "Library books")


@template("mail")
def subject_of_latest(world: World, rng: np.random.Generator) -> Problem:
    """Who wrote what last."""
    mail, who = latest(world, rng)
    text = f"What is the subject of the latest mail from {who.email} in my inbox? Answer with the subject alone."
    return Problem(text, [press("Search", {"Search mail": who.email})], answer=mail.subject)


@template("mail")
def phone_of_contact(world: World, rng: np.random.Generator) -> Problem:
    """Look into the address book."""
    contact = pick(rng, world.mail.contacts)
    text = f"What is the phone number of {contact.name} in my contacts? Answer with the number alone, as it is written."
    return Problem(text, [link("Contacts")], answer=contact.phone)


@template("mail")
def how_many_labelled(world: World, rng: np.random.Generator) -> Problem:
    """Count."""
    label = pick(rng, LABELS)
    count = sum(mail.label == label for mail in world.mail.mails)
    if count < 2:
        raise Unsuitable
    text = f'How many of my mails, in all folders, have the label "{label}"? Answer with the number alone.'
    return Problem(text, [press("Search", {"With label": label})], answer=str(count))


@template("mail")
def write_mail(world: World, rng: np.random.Generator) -> Problem:
    """To somebody in the address book."""
    who, subject, body = pick(rng, world.mail.contacts), pick(rng, TITLES), pick(rng, TEXTS)
    way = [link("Contacts"), link(who.email), press("Send", {"Subject": subject, "Text": body})]
    text = f'Send a mail to my contact {who.name} with the subject "{subject}" and the text "{body}".'
    return Problem(text, way, [added(sent(world, who.email, subject, body))])


@template("mail")
def reply_to_latest(world: World, rng: np.random.Generator) -> Problem:
    """Somebody's last mail."""
    (mail, who), body = latest(world, rng), pick(rng, TEXTS)
    way = [*find(mail, who.email), link("Reply"), press("Send", {"Text": body})]
    text = f'Reply to the latest mail from {who.email} in my inbox with the text "{body}". Leave the subject as it is.'
    return Problem(text, way, [added(sent(world, mail.sender, f"Re: {mail.subject}", body))])


@template("mail")
def forward_latest(world: World, rng: np.random.Generator) -> Problem:
    """To another contact."""
    mail, who = latest(world, rng)
    other = pick(rng, [contact for contact in world.mail.contacts if contact.email != who.email])
    way = [*find(mail, who.email), link("Forward"), press("Send", {"To": other.email})]
    text = f"Forward the latest mail from {who.email} in my inbox to {other.email}. Leave subject and text as they are."
    return Problem(text, way, [added(sent(world, other.email, f"Fwd: {mail.subject}", mail.body))])


@template("mail")
def archive_all_from(world: World, rng: np.random.Generator) -> Problem:
    """Several at once."""
    _, who = latest(world, rng)
    theirs = [mail for mail in world.mail.mails if mail.sender == who.email]
    inbox = [mail for mail in theirs if mail.folder == "inbox"]
    if len(inbox) < 2:
        raise Unsuitable
    if len(theirs) > 10:
        raise Unsuitable
    boxes: dict[str, str | bool] = {f"Select {mail.subject} of {mail.at}": True for mail in inbox}
    way = [
        press("Search", {"Search mail": who.email}),
        press("Apply", {**boxes, "With the checked mails": "archive"}),
    ]
    wanted = [changed(mail, folder="archive") for mail in inbox]
    return Problem(f"Move all mails from {who.email} that are in my inbox to the archive.", way, wanted)


@template("mail")
def label_mail(world: World, rng: np.random.Generator) -> Problem:
    """One mail, found by its subject and sender."""
    mail, who = latest(world, rng)
    label = pick(rng, [label for label in LABELS if label != mail.label])
    way = [*find(mail, who.email), press("Set label", {"Label": label})]
    text = f'Give the latest mail from {who.email} in my inbox the label "{label}".'
    return Problem(text, way, [changed(mail, label=label)])


@template("mail")
def star_mail(world: World, rng: np.random.Generator) -> Problem:
    """One mail, found by its time."""
    mail = pick(rng, [mail for mail in world.mail.mails if mail.folder == "inbox" and not mail.starred])
    only(other for other in world.mail.mails if (other.subject, other.sender) == (mail.subject, mail.sender))
    way = [*find(mail, mail.subject), press("Star")]
    return Problem(f'Star the mail "{mail.subject}" from {mail.sender}.', way, [changed(mail, starred=1)])


@template("mail")
def add_contact(world: World, rng: np.random.Generator) -> Problem:
    """Somebody who is not there yet."""
    who, phone = pick(rng, world.people[-2:]), f"555-{int(rng.integers(1000, 9999))}"
    fields = {"Name": who.name, "E-mail": who.email, "Phone": phone}
    text = f"Add {who.name} to my contacts, with the address {who.email} and the phone number {phone}."
    contact = Contact(name=who.name, email=who.email, phone=phone)
    return Problem(text, [link("Contacts"), press("Add contact", fields)], [added(contact)])


@template("mail")
def delete_contact(world: World, rng: np.random.Generator) -> Problem:
    """Behind a question."""
    contact = pick(rng, world.mail.contacts)
    way = [link("Contacts"), press(f"Delete {contact.name}"), press("Yes")]
    return Problem(f"Delete {contact.name} from my contacts.", way, [removed(contact)])


# --- parts ----------------------------------------------------------------------------------------------------------


def latest(world: World, rng: np.random.Generator) -> tuple[Mail, Person]:
    """The latest mail of somebody's in the inbox."""
    who = pick(rng, world.people)
    mails = [mail for mail in world.mail.mails if mail.folder == "inbox" and mail.sender == who.email]
    if not mails:
        raise Unsuitable
    return max(mails, key=lambda mail: mail.at), who


def find(mail: Mail, words: str) -> list[Stage]:
    """By a search."""
    return [press("Search", {"Search mail": words}), link(f"{mail.subject} of {mail.at}")]


def sent(world: World, to: str, subject: str, body: str) -> Mail:
    """A mail of the owner's."""
    me = world.profile
    return Mail(
        folder="sent", sender=me.email, recipient=to, subject=subject, body=body, at=me.now, label="", starred=0
    )
