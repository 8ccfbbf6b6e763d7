"""The mailbox's tables."""

from __future__ import annotations

from sqlalchemy.orm import Mapped, mapped_column

from agent_rl_envs.browser.sites.database import INCIDENTAL, Record

FOLDERS = ("inbox", "archive", "sent", "trash")
LABELS = ("family", "travel", "money", "work")


class Mail(Record):
    """A mail in a folder. `label` may be empty; `seen` and `starred` are 0 or 1."""

    __tablename__ = "mails"
    folder: Mapped[str]
    sender: Mapped[str]
    recipient: Mapped[str]
    subject: Mapped[str]
    body: Mapped[str]
    at: Mapped[str]
    label: Mapped[str] = mapped_column(default="")
    starred: Mapped[int] = mapped_column(default=0)
    seen: Mapped[int] = mapped_column(default=1, info=INCIDENTAL)


class Contact(Record):
    """Somebody in the address book."""

    __tablename__ = "contacts"
    name: Mapped[str]
    email: Mapped[str]
    phone: Mapped[str]
