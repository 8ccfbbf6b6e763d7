"""The forum's pages."""

from __future__ import annotations

from typing import NamedTuple

from sqlalchemy import func, or_, select
from starlette.responses import Response

from agent_rl_envs.browser.sites.forum.population import LANGUAGES, OWNER
from agent_rl_envs.browser.sites.forum.records import Board, Member, Post, Report, Thread, Vote
from agent_rl_envs.browser.sites.visit import App, Page, Refused, Visit

forum = App(
    "forum", "Forum", {"Boards": "/", "Search": "/search", "My profile": "/profile", "Moderation": "/moderation"}
)
SORTS = ("latest first", "most replies", "title")
_POSTS_PER_PAGE = 20


class Shown(NamedTuple):
    """A post as it is shown."""

    post: Post
    author: Member
    score: int
    mine: int


def _author(visit: Visit, id: int) -> Member:
    return visit.get(Member, id)


def _threads(visit: Visit, page: Page) -> list[tuple[Thread, Member, int]]:
    """With their authors, and how many replies they have."""
    replies = {thread.id: visit.count(select(Post).where(Post.thread_id == thread.id)) - 1 for thread in page.items}
    return [(thread, _author(visit, thread.member_id), replies[thread.id]) for thread in page.items]


# --- reading --------------------------------------------------------------------------------------------------------


@forum.get("/")
def boards(visit: Visit) -> Response:
    """All boards."""
    found = visit.all(select(Board).order_by(Board.id))
    counts = {board.id: visit.count(select(Thread).where(Thread.board_id == board.id)) for board in found}
    return visit.render("boards", boards=found, counts=counts)


@forum.get("/board/{id:int}")
def board_page(visit: Visit) -> Response:
    """The threads of a board, those that are pinned before the others."""
    board, sort = visit.get(Board), visit.asked("sort", SORTS[0])
    posts = select(func.count(Post.id)).where(Post.thread_id == Thread.id).scalar_subquery()
    by = {"most replies": posts.desc(), "title": Thread.title.asc()}.get(sort, Thread.at.desc())
    query = select(Thread).where(Thread.board_id == board.id).order_by(Thread.pinned.desc(), by, Thread.id)
    page = visit.page(query)
    return visit.render("board", board=board, page=page, threads=_threads(visit, page), sorts=SORTS)


@forum.get("/thread/{id:int}")
def thread_page(visit: Visit) -> Response:
    """The posts of a thread."""
    return _show_thread(visit, visit.get(Thread))


def _show_thread(visit: Visit, thread: Thread) -> Response:
    query = select(Post).where(Post.thread_id == thread.id).order_by(Post.at, Post.id)
    page = visit.page(query, _POSTS_PER_PAGE)
    mine = {vote.post_id: vote.value for vote in visit.all(select(Vote))}
    shown = [
        Shown(post, _author(visit, post.member_id), post.score + mine.get(post.id, 0), mine.get(post.id, 0))
        for post in page.items
    ]
    boards = [board.name for board in visit.all(select(Board).order_by(Board.id))]
    board = visit.get(Board, thread.board_id)
    return visit.render("thread", thread=thread, board=board, boards=boards, page=page, shown=shown, owner=OWNER)


@forum.get("/search")
def search(visit: Visit) -> Response:
    """Threads by their titles and posts."""
    words = visit.asked("q")
    inside = select(Post.thread_id).where(Post.text.icontains(words, autoescape=True))
    matches = or_(Thread.title.icontains(words, autoescape=True), Thread.id.in_(inside))
    query = select(Thread).where(matches if words else Thread.id == 0)
    page = visit.page(query.order_by(Thread.at.desc(), Thread.id))
    return visit.render("search", words=words, page=page, threads=_threads(visit, page))


@forum.get("/member/{id:int}")
def member_page(visit: Visit) -> Response:
    """What is known of a member."""
    member = visit.get(Member)
    return visit.render("member", member=member, posts=visit.count(select(Post).where(Post.member_id == member.id)))


# --- writing --------------------------------------------------------------------------------------------------------


@forum.get("/board/{id:int}/new")
def thread_form(visit: Visit) -> Response:
    """A new thread."""
    return visit.render("new", board=visit.get(Board))


@forum.post("/board/{id:int}/new")
def start_thread(visit: Visit) -> Response:
    """With its first post."""
    board, title, text = visit.get(Board), visit.text("title", longest=100), visit.text("text", longest=2000)
    if visit.errors:
        return visit.render("new", board=board)
    thread = Thread(board_id=board.id, member_id=OWNER, title=title, at=visit.now)
    visit.db.add(thread)
    visit.db.flush()
    visit.db.add(Post(thread_id=thread.id, member_id=OWNER, text=text, at=visit.now))
    return visit.go(f"/thread/{thread.id}", "Your thread was started.")


@forum.post("/thread/{id:int}")
def reply(visit: Visit) -> Response:
    """One more post."""
    thread, text = visit.get(Thread), visit.text("text", longest=2000)
    if thread.locked:
        raise Refused(403, "This thread is locked.")
    if visit.errors:
        return _show_thread(visit, thread)
    visit.db.add(Post(thread_id=thread.id, member_id=OWNER, text=text, at=visit.now))
    return visit.go(f"/thread/{thread.id}", "Your reply was posted.")


def _own(visit: Visit) -> Post:
    post = visit.get(Post)
    if post.member_id != OWNER:
        raise Refused(403, "This post is not yours.")
    return post


@forum.get("/post/{id:int}/edit")
def post_form(visit: Visit) -> Response:
    """One's own post."""
    return visit.render("edit", post=_own(visit))


@forum.post("/post/{id:int}/edit")
def edit_post(visit: Visit) -> Response:
    """Its text."""
    post, text = _own(visit), visit.text("text", longest=2000)
    if visit.errors:
        return visit.render("edit", post=post)
    post.text = text
    return visit.go(f"/thread/{post.thread_id}", "Your post was changed.")


@forum.post("/post/{id:int}/vote")
def vote(visit: Visit) -> Response:
    """Up or down; the same once more takes it back."""
    post, value = visit.get(Post), 1 if visit.sent("value") == "up" else -1
    mine = visit.db.scalars(select(Vote).where(Vote.post_id == post.id)).first()
    if post.member_id == OWNER:
        raise Refused(403, "Your own posts are for others to vote on.")
    if mine is None:
        visit.db.add(Vote(post_id=post.id, value=value))
    elif mine.value == value:
        visit.db.delete(mine)
    else:
        mine.value = value
    return visit.go(f"/thread/{post.thread_id}")


@forum.get("/profile")
def profile_form(visit: Visit) -> Response:
    """One's own."""
    return visit.render("profile", member=visit.get(Member, OWNER), languages=LANGUAGES)


@forum.post("/profile")
def change_profile(visit: Visit) -> Response:
    """All fields."""
    member = visit.get(Member, OWNER)
    about, signature = visit.text("about", required=False), visit.text("signature", required=False, longest=60)
    language = visit.one_of("language", LANGUAGES)
    if visit.errors:
        return visit.render("profile", member=member, languages=LANGUAGES)
    member.about, member.signature, member.language = about, signature, language
    member.digest = int(bool(visit.sent("digest")))
    return visit.go("/profile", "Your profile was saved.")


# --- moderation -----------------------------------------------------------------------------------------------------


@forum.get("/moderation")
def moderation(visit: Visit) -> Response:
    """Reports that are open."""
    reports = visit.all(select(Report).where(Report.status == "open").order_by(Report.id))
    found = [(report, post := visit.get(Post, report.post_id), _author(visit, post.member_id)) for report in reports]
    return visit.render("moderation", reports=found)


@forum.post("/moderation/{id:int}")
def decide(visit: Visit) -> Response:
    """Take the post down, or dismiss the report."""
    report, status = visit.get(Report), visit.one_of("decision", ("removed", "dismissed"))
    if visit.errors or report.status != "open":
        raise Refused(403, "This report was decided.")
    report.status = status
    if status == "removed":
        visit.get(Post, report.post_id).removed = 1
    return visit.go("/moderation", f"The report {report.id} is {'settled' if status == 'removed' else 'dismissed'}.")


@forum.post("/thread/{id:int}/lock")
def lock(visit: Visit) -> Response:
    """Or unlock."""
    thread = visit.get(Thread)
    thread.locked = 1 - thread.locked
    return visit.go(f"/thread/{thread.id}", "The thread is locked." if thread.locked else "The thread is open.")


@forum.post("/thread/{id:int}/pin")
def pin(visit: Visit) -> Response:
    """Or unpin."""
    thread = visit.get(Thread)
    thread.pinned = 1 - thread.pinned
    return visit.go(f"/thread/{thread.id}", "The thread is pinned." if thread.pinned else "The thread is not pinned.")


@forum.post("/thread/{id:int}/board")
def move_thread(visit: Visit) -> Response:
    """To another board."""
    thread, boards = visit.get(Thread), {board.name: board.id for board in visit.all(select(Board))}
    name = visit.one_of("board", list(boards))
    if visit.errors:
        return _show_thread(visit, thread)
    thread.board_id = boards[name]
    return visit.go(f"/thread/{thread.id}", f"The thread is on the board {name}.")
