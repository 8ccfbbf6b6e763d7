"""The mailbox's pages."""

from __future__ import annotations

from collections.abc import Sequence

from sqlalchemy import or_, select
from starlette.responses import Response

from agent_rl_envs.browser.sites.mail.records import FOLDERS, LABELS, Contact, Mail
from agent_rl_envs.browser.sites.visit import App, Refused, Visit

mail = App(
    "mail",
    "Mail",
    {
        "Inbox": "/",
        "Archive": "/?folder=archive",
        "Sent": "/?folder=sent",
        "Trash": "/?folder=trash",
        "Write": "/write",
        "Contacts": "/contacts",
    },
)
ACTIONS = ("archive", "move to trash", "move to inbox", "star", "mark as read")


@mail.get("/")
def folder(visit: Visit) -> Response:
    """Mails of a folder, or found by a search in all of them; the latest first."""
    return _show_folder(visit)


def _show_folder(visit: Visit) -> Response:
    words, label = visit.asked("q"), visit.asked("label")
    name = visit.asked("folder", "inbox")
    query = select(Mail)
    if words:
        columns = (Mail.subject, Mail.body, Mail.sender)
        query = query.where(or_(*[column.icontains(words, autoescape=True) for column in columns]))
    elif not label:
        query = query.where(Mail.folder == name)
    if label:
        query = query.where(Mail.label == label)
    everywhere = bool(words or label)
    title = "Search results" if everywhere else name.capitalize() if name in FOLDERS else "Folder"
    page = visit.page(query.order_by(Mail.at.desc(), Mail.id.desc()))
    shown = {"heading": title, "everywhere": everywhere, "words": words, "labels": LABELS, "actions": ACTIONS}
    return visit.render("folder", page=page, **shown)


@mail.post("/")
def act_on_several(visit: Visit) -> Response:
    """What was chosen, to all that are checked."""
    action = visit.one_of("action", ACTIONS)
    chosen = [visit.get(Mail, id) for id in visit.chosen("mail")]
    if not chosen:
        visit.errors["action"] = "Please check some mails."
    if visit.errors:
        return _show_folder(visit)
    for one in chosen:
        match action:
            case "star":
                one.starred = 1
            case "mark as read":
                one.seen = 1
            case _:
                one.folder = {"archive": "archive", "move to trash": "trash", "move to inbox": "inbox"}[action]
    count = len(chosen)
    return visit.go("/", f"{count} {'mail was' if count == 1 else 'mails were'} changed.")


@mail.get("/mail/{id:int}")
def one_mail(visit: Visit) -> Response:
    """One mail, which counts as read then."""
    found = visit.get(Mail)
    found.seen = 1
    return visit.render("mail", mail=found, labels=LABELS, folders=FOLDERS)


@mail.post("/mail/{id:int}/move")
def move(visit: Visit) -> Response:
    """To another folder."""
    found, to = visit.get(Mail), visit.one_of("folder", FOLDERS)
    if visit.errors:
        return visit.render("mail", mail=found, labels=LABELS, folders=FOLDERS)
    found.folder = to
    return visit.go("/", f"The mail is in the folder {to}.")


@mail.post("/mail/{id:int}/star")
def star(visit: Visit) -> Response:
    """Or take the star back."""
    found = visit.get(Mail)
    found.starred = 1 - found.starred
    return visit.go(f"/mail/{found.id}")


@mail.post("/mail/{id:int}/label")
def set_label(visit: Visit) -> Response:
    """One label, or none."""
    found, label = visit.get(Mail), visit.one_of("label", LABELS, required=False)
    if visit.errors:
        return visit.render("mail", mail=found, labels=LABELS, folders=FOLDERS)
    found.label = label
    return visit.go(f"/mail/{found.id}", "The label was set.")


# --- writing --------------------------------------------------------------------------------------------------------


def _show_form(visit: Visit, to: str = "", subject: str = "", body: str = "", title: str = "New mail") -> Response:
    return visit.render("write", heading=title, to=to, subject=subject, body=body)


def _send(visit: Visit) -> Response | None:
    """`None` where the form has errors. Several addresses are separated by commas, and get a mail each."""
    addresses = [address.strip() for address in visit.text("to").split(",") if address.strip()]
    for address in addresses:
        name, _, host = address.partition("@")
        if not name or "." not in host or " " in address:
            visit.errors["to"] = f"{address[:80]} is not an e-mail address."
    subject, body = visit.text("subject"), visit.text("body", required=False, longest=2000)
    if visit.errors:
        return None
    for address in addresses:
        visit.db.add(
            Mail(folder="sent", sender=visit.me.email, recipient=address, subject=subject, body=body, at=visit.now)
        )
    return visit.go("/", "Your mail was sent.")


@mail.get("/write")
def write(visit: Visit) -> Response:
    """A new mail."""
    return _show_form(visit, to=visit.asked("to"))


@mail.post("/write")
def send(visit: Visit) -> Response:
    """It."""
    return _send(visit) or _show_form(visit)


@mail.get("/mail/{id:int}/reply")
def reply(visit: Visit) -> Response:
    """To the sender."""
    found = visit.get(Mail)
    return _show_form(visit, found.sender, _prefixed("Re: ", found.subject), "", "Reply")


@mail.post("/mail/{id:int}/reply")
def send_reply(visit: Visit) -> Response:
    """It."""
    return _send(visit) or _show_form(visit, title="Reply")


@mail.get("/mail/{id:int}/forward")
def forward(visit: Visit) -> Response:
    """With the text of the mail."""
    found = visit.get(Mail)
    return _show_form(visit, "", _prefixed("Fwd: ", found.subject), found.body, "Forward")


@mail.post("/mail/{id:int}/forward")
def send_forward(visit: Visit) -> Response:
    """It."""
    return _send(visit) or _show_form(visit, title="Forward")


def _prefixed(prefix: str, subject: str) -> str:
    return subject if subject.startswith(prefix) else prefix + subject


# --- contacts -------------------------------------------------------------------------------------------------------


@mail.get("/suggest")
def suggest(visit: Visit) -> Response:
    """Addresses of whom is typed."""
    return visit.suggestions(Contact.email, Contact.name)


def _show_contacts(visit: Visit) -> Response:
    found: Sequence[Contact] = visit.all(select(Contact).order_by(Contact.name))
    return visit.render("contacts", contacts=found)


@mail.get("/contacts")
def contacts(visit: Visit) -> Response:
    """All, and a form for one more."""
    return _show_contacts(visit)


@mail.post("/contacts")
def add_contact(visit: Visit) -> Response:
    """With an address that nobody else has."""
    contact = Contact(name=visit.text("name"), email=visit.email("email"), phone=visit.text("phone", required=False))
    if visit.count(select(Contact).where(Contact.email == contact.email)):
        visit.errors["email"] = "Somebody has this address already."
    if visit.errors:
        return _show_contacts(visit)
    visit.db.add(contact)
    return visit.go("/contacts", f"{contact.name} was added.")


@mail.get("/contacts/{id:int}")
def contact_form(visit: Visit) -> Response:
    """To change it."""
    return visit.render("contact", contact=visit.get(Contact))


@mail.post("/contacts/{id:int}")
def change_contact(visit: Visit) -> Response:
    """All three fields."""
    contact = visit.get(Contact)
    name, email, phone = visit.text("name"), visit.email("email"), visit.text("phone", required=False)
    if visit.errors:
        return visit.render("contact", contact=contact)
    contact.name, contact.email, contact.phone = name, email, phone
    return visit.go("/contacts", f"{name} was changed.")


@mail.post("/contacts/{id:int}/delete")
def delete_contact(visit: Visit) -> Response:
    """After a question."""
    contact = visit.get(Contact)
    if contact.email == visit.me.email:
        raise Refused(403, "Your own address stays.")
    visit.db.delete(contact)
    return visit.go("/contacts", f"{contact.name} was deleted.")
