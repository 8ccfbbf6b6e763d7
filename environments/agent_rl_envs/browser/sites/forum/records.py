"""The forum's tables."""

from __future__ import annotations

from sqlalchemy.orm import Mapped, mapped_column

from agent_rl_envs.browser.sites.database import Record


class Board(Record):
    """A board."""

    __tablename__ = "boards"
    name: Mapped[str]


class Member(Record):
    """Somebody on the forum. `digest` is 0 or 1: whether news are mailed."""

    __tablename__ = "members"
    handle: Mapped[str]
    joined: Mapped[str]
    about: Mapped[str]
    signature: Mapped[str]
    language: Mapped[str]
    digest: Mapped[int]


class Thread(Record):
    """A thread; its first post is the opening one. `locked` and `pinned` are 0 or 1."""

    __tablename__ = "threads"
    board_id: Mapped[int]
    member_id: Mapped[int]
    title: Mapped[str]
    at: Mapped[str]
    locked: Mapped[int] = mapped_column(default=0)
    pinned: Mapped[int] = mapped_column(default=0)


class Post(Record):
    """A post. `score` is the sum of others' votes; `removed` is 1 when a moderator has taken it down."""

    __tablename__ = "posts"
    thread_id: Mapped[int]
    member_id: Mapped[int]
    text: Mapped[str]
    at: Mapped[str]
    score: Mapped[int] = mapped_column(default=0)
    removed: Mapped[int] = mapped_column(default=0)


class Vote(Record):
    """A vote of the owner's: 1 or -1."""

    __tablename__ = "votes"
    post_id: Mapped[int]
    value: Mapped[int]


class Report(Record):
    """A post that somebody complains of; `status` is open, removed or dismissed."""

    __tablename__ = "reports"
    post_id: Mapped[int]
    reason: Mapped[str]
    status: Mapped[str]
