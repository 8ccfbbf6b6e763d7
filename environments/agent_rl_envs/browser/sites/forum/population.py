"""What is on the forum."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from agent_rl_envs.browser.sites.draws import Person, chance, clock, later, one, order
from agent_rl_envs.browser.sites.forum.records import Board, Member, Post, Report, Thread, Vote

BOARDS = ("Gardening", "Cycling", "Cooking", "Repairs")
LANGUAGES = ("English", "French", "German", "Spanish")
REASONS = ("spam", "insult", "off topic")
OWNER = 1
_TITLES = (
    "Which {} would you buy again?",
    "Help with my {}",
    "A guide to the {}",
    "Lost my {}",
    "Show me your {}",
    "The {} of my grandmother",
)
_THINGS = {
    "Gardening": "tomatoes,hedge,compost heap,greenhouse".split(","),
    "Cycling": "gravel bike,saddle,helmet,bike lights".split(","),
    "Cooking": "sourdough,wok,knife set,pasta machine".split(","),
    "Repairs": "drill,washing machine,old radio,roof gutter".split(","),
}
_TEXTS = (
    "I have used mine for years and never regretted it.",
    "Try it with a bit more patience.",
    "It depends on the weather.",
    "Mine broke after two weeks.",
    "Can you post a picture?",
    "There was a good article about it last month.",
    "I would ask in a shop.",
    "The cheap ones are good enough.",
    "Thanks, that helped a lot.",
    "I did the opposite.",
)
_ABOUT = ("I live by the sea.", "Retired teacher.", "New here.", "Weekend tinkerer.")


@dataclass(frozen=True, slots=True)
class ForumRecords:
    """All of it. The titles of threads are unique. The owner is a moderator, and the first member."""

    boards: list[Board]
    members: list[Member]
    threads: list[Thread]
    posts: list[Post]
    votes: list[Vote]
    reports: list[Report]


def make_forum(rng: np.random.Generator, people: Sequence[Person], owner: Person, now: str) -> ForumRecords:
    """Twenty threads on four boards, in the order of time."""
    members = [
        Member(
            id=id,
            handle=who.handle,
            joined=later(now, -int(rng.integers(60, 2000))),
            about=one(rng, _ABOUT),
            signature="",
            language=one(rng, LANGUAGES),
            digest=int(chance(rng, 0.5)),
        )
        for id, who in enumerate([owner, *people], 1)
    ]
    boards = [Board(id=id, name=name) for id, name in enumerate(BOARDS, 1)]
    titles = [
        (board, title.format(thing))
        for board, name in enumerate(BOARDS, 1)
        for thing in _THINGS[name]
        for title in _TITLES
    ]
    threads: list[Thread] = []
    posts: list[Post] = []
    for id, at in enumerate(order(rng, len(titles))[:20], 1):
        board, title = titles[at]
        day = later(now, -60 + 2 * id)
        author = int(rng.integers(1, len(members) + 1))
        minutes = int(rng.integers(400, 600))
        threads.append(
            Thread(
                id=id,
                board_id=board,
                member_id=author,
                title=title,
                at=f"{day} {clock(minutes)}",
                locked=int(chance(rng, 0.1)),
            )
        )
        _fill(rng, posts, threads[-1], len(members), day, minutes)
    own = [post.id for post in posts if post.member_id != OWNER]
    voted = [own[i] for i in order(rng, len(own))[:4]]
    votes = [Vote(id=id, post_id=post, value=one(rng, (1, -1))) for id, post in enumerate(voted, 1)]
    reported = [own[i] for i in order(rng, len(own))[:5]]
    reports = [
        Report(id=id, post_id=post, reason=one(rng, REASONS), status="open") for id, post in enumerate(reported, 1)
    ]
    return ForumRecords(boards, members, threads, posts, votes, reports)


def _fill(rng: np.random.Generator, posts: list[Post], thread: Thread, members: int, day: str, minutes: int) -> None:
    """The opening post, and up to six answers with different texts."""
    texts = [_TEXTS[i] for i in order(rng, len(_TEXTS))]
    for at in range(1 + int(rng.integers(0, 7))):
        member = thread.member_id if at == 0 else int(rng.integers(1, members + 1))
        when = f"{day} {clock(minutes + 11 * at)}"
        score = int(rng.integers(-2, 8))
        posts.append(
            Post(
                id=len(posts) + 1,
                thread_id=thread.id,
                member_id=member,
                text=texts[at],
                at=when,
                score=score,
                removed=0,
            )
        )
