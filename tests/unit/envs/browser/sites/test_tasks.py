"""Templates, their worlds and their checks, without a browser."""

import json
from pathlib import Path

import pytest

from agent_rl.errors import UserError
from agent_rl.seeding import stream
from agent_rl_envs.browser import BrowserEnvConfig, BrowserEnvironment
from agent_rl_envs.browser.sites.checks import Change, Outcome, added, changed, changes, compare, removed, says
from agent_rl_envs.browser.sites.mail.records import Contact
from agent_rl_envs.browser.sites.problems import Unsuitable, only, pick, some
from agent_rl_envs.browser.sites.source import SitesConfig, difficulty
from agent_rl_envs.browser.sites.templates import TEMPLATES
from agent_rl_envs.browser.sites.world import make_world


def tasks(split="train", count=1, seed=0, **options):
    options = {"worlds": 9, **options}
    return BrowserEnvironment.tasks(split, count, seed, BrowserEnvConfig(source="sites", sites=SitesConfig(**options)))


def problems(name, worlds=8, draws=2):
    """Some of a template's."""
    found = []
    for number in range(worlds):
        for draw in range(draws):
            try:
                found.append((make_world(number), TEMPLATES[name][1](make_world(number), stream(name, number, draw))))
            except Unsuitable:
                continue
    return found


def done(world, wanted):
    """The state of a world with these changes."""
    tables = {name: dict(rows) for name, rows in world.tables.items()}
    for change in wanted:
        rows = tables[change.table]
        if change.what == "removed":
            del rows[change.id]
        elif change.what == "changed":
            rows[change.id] = {**rows[change.id], **change.values}
        else:
            id = 1000 + max(rows, default=0)
            rows[id] = {"id": id, **change.values}
    return tables


@pytest.mark.parametrize("name", TEMPLATES)
def test_what_a_template_wants_is_a_change_of_the_database_or_an_answer(name):
    found = problems(name)
    assert found, "no world has such a task"
    for world, problem in found:
        assert problem.wanted or problem.answer
        assert problem.way
        assert problem.actions < 30
        total = len(problem.wanted)
        assert compare(world.tables, done(world, problem.wanted), problem.wanted) == Outcome(total, total, 0)
        if problem.wanted:
            assert compare(world.tables, world.tables, problem.wanted) == Outcome(0, total, 0)
            assert len(changes(world.tables, done(world, problem.wanted))) == total
        assert says(problem.answer, problem.answer)
        assert not says(problem.instruction, problem.answer or "?")
        assert not says("1", problem.answer or "?")
    assert len({problem.instruction for _, problem in found}) > 1


def test_what_is_not_there_or_not_the_only_one_makes_no_task():
    rng = stream("x")
    assert only([7]) == pick(rng, [7]) == some(rng, [7], 1)[0] == 7
    for wrong in (lambda: only([]), lambda: only([1, 2]), lambda: pick(rng, []), lambda: some(rng, [1], 2)):
        with pytest.raises(Unsuitable):
            wrong()


def test_there_are_templates_of_all_kinds():
    apps = [app for app, _ in TEMPLATES.values()]
    assert len(apps) >= 45
    assert {app: apps.count(app) >= 6 for app in set(apps)} == dict.fromkeys(
        ("shop", "forum", "mail", "admin", "forms", "calendar", "cross"), True
    )


def test_tasks_are_many_distinct_reproducible_and_split():
    train = tasks(count=1000, worlds=20)
    assert len({(task.data["world"], task.prompt[0].content) for task in train}) == len(train) == 1000
    assert {task.tags[0] for task in train} == set(TEMPLATES)
    assert {task.data["world"] % 2 for task in train} == {0}
    assert {task.data["world"] % 2 for task in tasks("test", 20)} == {1}
    assert tasks(count=20, worlds=20) == train[:20]
    assert tasks(count=20, worlds=20, seed=1) != train[:20]
    assert json.loads(json.dumps(train[0].data)) == train[0].data
    assert len({task.id for task in train}) == 1000


def test_there_are_no_more_than_there_are():
    few = tasks(count=500, worlds=1, templates="take_from_cart")
    assert 2 <= len(few) <= 3  # the lines of one cart


def test_tasks_are_chosen_by_app_template_and_difficulty():
    assert {task.tags[1] for task in tasks(count=20, templates="mail, star_mail, lock_thread")} == {"mail", "forum"}
    easy = tasks(count=40, max_actions=4)
    assert {task.tags[2] for task in easy} == {"difficulty_1"}
    assert {task.tags[2] for task in tasks(count=100)} == {"difficulty_1", "difficulty_2", "difficulty_3"}
    with pytest.raises(UserError, match="Did you mean 'star_mail'"):
        tasks(templates="star_mial")
    with pytest.raises(UserError, match=r"raise sites\.max_actions"):
        tasks(templates="change_role", max_actions=3)


def test_difficulty_is_the_number_of_actions():
    for name in ("phone_of_contact", "write_mail", "register_with_dinner"):
        for _, problem in problems(name):
            assert difficulty(problem) == (1 if problem.actions <= 4 else 2 if problem.actions <= 9 else 3)
    assert {difficulty(problem) for _, problem in problems("phone_of_contact")} == {1}
    assert {difficulty(problem) for _, problem in problems("register_with_dinner")} == {3}


def test_worlds_are_reproducible_and_different():
    fresh = make_world.__wrapped__(4)
    assert fresh.tables == make_world(4).tables
    assert fresh.tables != make_world(6).tables
    assert sum(map(len, fresh.tables.values())) > 300


# --- checks ---------------------------------------------------------------------------------------------------------

WORLD = make_world(0)
ANN, BEN = WORLD.mail.contacts[:2]
WANTED = [changed(ANN, phone="1"), removed(BEN), added(Contact(name="Zed", email="z@example.com", phone=""))]


def after(*more):
    return compare(WORLD.tables, done(WORLD, [*WANTED, *more]), WANTED)


def test_all_that_is_wanted_and_nothing_else():
    assert after() == Outcome(3, 3, 0)
    assert compare(WORLD.tables, done(WORLD, WANTED[:2]), WANTED) == Outcome(2, 3, 0)


def test_whoever_does_more_is_seen():
    other = WORLD.mail.contacts[2]
    assert after(changed(other, phone="1")) == Outcome(3, 3, 1)
    assert after(removed(other)) == Outcome(3, 3, 1)
    assert after(WANTED[2]) == Outcome(3, 3, 1)  # twice
    assert after(changed(ANN, name="Anna")) == Outcome(2, 3, 1)  # another column of the right row
    assert after(changed(WORLD.shop.orders[0], note="x")) == Outcome(3, 3, 1)  # on another site


def test_what_is_almost_right_is_wrong():
    almost = [changed(ANN, phone="2"), removed(WORLD.mail.contacts[2]), added(Contact(name="Zed", email="", phone=""))]
    assert compare(WORLD.tables, done(WORLD, almost), WANTED) == Outcome(0, 3, 3)


def test_texts_are_compared_as_people_read_them():
    assert Change("added", "t", 1, {"a": "Red  hat."}).same(Change("added", "t", 9, {"a": " red hat"}))
    assert not Change("changed", "t", 1, {"a": 1}).same(Change("changed", "t", 2, {"a": 1}))
    assert not Change("changed", "t", 1, {"a": 1}).same(Change("changed", "t", 1, {"a": 1, "b": 1}))


def test_what_changes_in_passing_does_not_count():
    assert "seen" not in WORLD.tables["mails"][1]
    assert "starred" in WORLD.tables["mails"][1]


@pytest.mark.parametrize(
    ("reply", "answer", "right"),
    [
        ("88.70", "88.70", True),
        ("It costs 88.7 euros.", "88.70", True),
        ("1,088.70", "1088.70", True),
        ("88.70 or 90", "88.70", False),
        ("", "88.70", False),
        (" 'Birch Rake'. ", "Birch rake", True),
        ("Birch Rake, Fjord Rake", "Birch Rake", False),
        ("b, a", "a, b", True),
        ("a, b, c", "a, b", False),
        ("a, a, b", "a, b", False),
        ("12", "2", False),
        ("2026-03-18", "2026-03-18", True),
        ("2026-03-19", "2026-03-18", False),
        ("10:00 or 10:30", "10:00", False),
    ],
)
def test_answers(reply, answer, right):
    assert says(reply, answer) is right


def test_the_docs_list_these_templates():
    page = (Path(__file__).parents[5] / "docs/environments/sites.md").read_text("utf-8")
    for app in dict.fromkeys(app for app, _ in TEMPLATES.values()):
        row = next(line for line in page.splitlines() if line.startswith(f"| `{app}` |"))
        assert row.split("|")[3].strip() == ", ".join(f"`{name}`" for name, (of, _) in TEMPLATES.items() if of == app)
    assert f"\n{len(TEMPLATES)} templates." in page
