"""Tasks on the forum."""

from __future__ import annotations

from collections import Counter

import numpy as np

from agent_rl_envs.browser.sites.checks import added, changed
from agent_rl_envs.browser.sites.forum.population import LANGUAGES, OWNER, REASONS
from agent_rl_envs.browser.sites.forum.records import Member, Post, Thread, Vote
from agent_rl_envs.browser.sites.oracle import Stage, link, press
from agent_rl_envs.browser.sites.problems import Problem, only, pick, template
from agent_rl_envs.browser.sites.world import World

TEXTS = ("I can lend you mine", "Have a look at the manual", "That worked for me too", "Please tell us how it went")


@template("forum")
def author_of_thread(world: World, rng: np.random.Generator) -> Problem:
    """Who started it."""
    thread = pick(rng, world.forum.threads)
    text = f'Who started the forum thread "{thread.title}"? Answer with the name of the member alone.'
    return Problem(text, find(thread), answer=_member(world, thread.member_id).handle)


@template("forum")
def most_replies(world: World, rng: np.random.Generator) -> Problem:
    """Sort a board."""
    board = pick(rng, world.forum.boards)
    posts = Counter(post.thread_id for post in world.forum.posts)
    there = [thread for thread in world.forum.threads if thread.board_id == board.id]
    most = max((posts[thread.id] for thread in there), default=0)
    thread = only(thread for thread in there if posts[thread.id] == most)
    way = [link(board.name), press("Sort", {"Sort by": "most replies"})]
    text = f'Which thread on the forum board "{board.name}" has the most replies? Answer with its title alone.'
    return Problem(text, way, answer=thread.title)


@template("forum")
def member_since(world: World, rng: np.random.Generator) -> Problem:
    """Through one of their threads."""
    thread = pick(rng, world.forum.threads)
    member = _member(world, thread.member_id)
    text = (
        f'Since which day is the author of the forum thread "{thread.title}" a member? Answer with the day alone, as '
        "the forum writes it."
    )
    return Problem(text, [*find(thread)[:2], link(member.handle)], answer=member.joined)


@template("forum")
def reply_to_thread(world: World, rng: np.random.Generator) -> Problem:
    """One post."""
    thread, text = pick(rng, _open(world)), pick(rng, TEXTS)
    post = Post(thread_id=thread.id, member_id=OWNER, text=text, at=world.profile.now, score=0, removed=0)
    way = [*find(thread), press("Post reply", {"Your reply": text})]
    return Problem(f'Reply to the forum thread "{thread.title}" with the text "{text}".', way, [added(post)])


@template("forum")
def start_thread(world: World, rng: np.random.Generator) -> Problem:
    """On a board."""
    board, text = pick(rng, world.forum.boards), pick(rng, TEXTS)
    title = f"{pick(rng, ('Question', 'Idea', 'Meeting', 'Exchange'))} number {int(rng.integers(10, 100))}"
    now, id = world.profile.now, 1 + max(thread.id for thread in world.forum.threads)
    thread = Thread(board_id=board.id, member_id=OWNER, title=title, at=now, locked=0, pinned=0)
    post = Post(thread_id=id, member_id=OWNER, text=text, at=now, score=0, removed=0)
    way = [link(board.name), link("Start a thread"), press("Start thread", {"Title": title, "Text": text})]
    instruction = f'Start a thread on the forum board "{board.name}" with the title "{title}" and the text "{text}".'
    return Problem(instruction, way, [added(thread), added(post)])


@template("forum")
def vote_for_opening(world: World, rng: np.random.Generator) -> Problem:
    """Up or down."""
    voted = {vote.post_id for vote in world.forum.votes}
    thread = pick(rng, [thread for thread in world.forum.threads if thread.member_id != OWNER])
    post = next(post for post in world.forum.posts if post.thread_id == thread.id)
    only(id for id in [post.id] if id not in voted)
    up = bool(rng.integers(2))
    way = [*find(thread), press(f"Vote post 1 {'up' if up else 'down'}")]
    text = f'Vote the first post of the forum thread "{thread.title}" {"up" if up else "down"}.'
    return Problem(text, way, [added(Vote(post_id=post.id, value=1 if up else -1))])


@template("forum")
def edit_own_post(world: World, rng: np.random.Generator) -> Problem:
    """The only one in a thread."""
    counts = Counter(post.thread_id for post in world.forum.posts if post.member_id == OWNER)
    post = pick(rng, [p for p in world.forum.posts if p.member_id == OWNER and counts[p.thread_id] == 1])
    thread = next(thread for thread in world.forum.threads if thread.id == post.thread_id)
    number = 1 + [p.id for p in world.forum.posts if p.thread_id == thread.id].index(post.id)
    text = pick(rng, TEXTS)
    way = [*find(thread), link(f"Edit post {number}"), press("Save post", {"Text": text})]
    return Problem(f'Change my post in the forum thread "{thread.title}" to "{text}".', way, [changed(post, text=text)])


@template("forum")
def change_profile(world: World, rng: np.random.Generator) -> Problem:
    """Two fields of a form, and a box."""
    me = world.forum.members[0]
    language = pick(rng, [language for language in LANGUAGES if language != me.language])
    signature = pick(rng, ("Best wishes", "Keep on rolling", "Measure twice, cut once"))
    way = [
        link("My profile"),
        press("Save profile", {"Signature": signature, "Language": language, "Mail me a weekly digest": not me.digest}),
    ]
    digest = "Stop the weekly digest." if me.digest else "Have a weekly digest mailed to me."
    text = f'In my forum profile, set the language to {language} and the signature to "{signature}". {digest}'
    return Problem(text, way, [changed(me, signature=signature, language=language, digest=1 - me.digest)])


@template("forum")
def lock_thread(world: World, rng: np.random.Generator) -> Problem:
    """As a moderator."""
    thread = pick(rng, _open(world))
    way = [*find(thread), press("Lock thread")]
    return Problem(f'Lock the forum thread "{thread.title}".', way, [changed(thread, locked=1)])


@template("forum")
def move_thread(world: World, rng: np.random.Generator) -> Problem:
    """To another board."""
    thread = pick(rng, world.forum.threads)
    board = pick(rng, [board for board in world.forum.boards if board.id != thread.board_id])
    way = [*find(thread), press("Move thread", {"Board": board.name})]
    text = f'Move the forum thread "{thread.title}" to the board "{board.name}".'
    return Problem(text, way, [changed(thread, board_id=board.id)])


@template("forum")
def settle_reports(world: World, rng: np.random.Generator) -> Problem:
    """Each by its reason."""
    reason, reports = pick(rng, REASONS), world.forum.reports
    bad = pick(rng, [[report for report in reports if report.reason == reason]])
    pick(rng, bad)
    way: list[Stage] = [link("Moderation")]
    way += [press(f"Remove post of report {r.id}" if r in bad else f"Dismiss report {r.id}") for r in reports]
    posts = {post.id: post for post in world.forum.posts}
    wanted = [changed(r, status="removed" if r in bad else "dismissed") for r in reports]
    wanted += [changed(posts[r.post_id], removed=1) for r in bad]
    text = f'Go through the open reports of the forum: remove the posts whose reason is "{reason}", dismiss all others.'
    return Problem(text, way, wanted)


# --- parts ----------------------------------------------------------------------------------------------------------


def find(thread: Thread) -> list[Stage]:
    """By a search for its title."""
    return [link("Search"), press("Find", {"Search the forum": thread.title}), link(thread.title)]


def _open(world: World) -> list[Thread]:
    return [thread for thread in world.forum.threads if not thread.locked]


def _member(world: World, id: int) -> Member:
    return next(member for member in world.forum.members if member.id == id)
