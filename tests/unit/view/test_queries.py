import math
from dataclasses import replace

import pytest

from agent_rl.config import build
from agent_rl.errors import ConfigError, UserError
from agent_rl.store.opening import open_journal
from agent_rl.types import Group, Message
from agent_rl.view import queries
from agent_rl.view.queries import EpisodeQuery

from .conftest import task, trajectory, write_run  # isort: skip


@pytest.fixture
def run_dir(tmp_path, store):
    """In a file and in a PostgreSQL."""
    return write_run(tmp_path / "runs" / "demo", store)


def found(journal, **asked):
    page = queries.episodes(journal, EpisodeQuery(**asked), threshold=1.0)
    assert page["total"] == len(page["rows"])
    return [(row["group"], row["member"]) for row in page["rows"]]


def members(journal, **asked):
    return sorted({member for _, member in found(journal, **asked)})


def groups(journal, **asked):
    return sorted({group for group, _ in found(journal, **asked)})


def test_the_table_has_every_episode_in_order(journal):
    page = queries.episodes(journal, EpisodeQuery(), threshold=1.0)
    assert (page["all"], page["total"]) == (12, 12)
    assert [(row["group"], row["member"]) for row in page["rows"]] == [(g, m) for g in range(3) for m in range(4)]
    assert page["rows"][0] == {
        "group": 0,
        "member": 0,
        "task": "task-0",
        "environment": "env-0",
        "reward": 1.0,
        "stop_reason": "terminated",
        "failure_owner": None,
        "failure_kind": None,
        "turns": 2,
        "tool_calls": 2,
        "tool_errors": 1,
        "tokens": 5,
        "sampled_tokens": 2,
        "attempts": 1,
        "duration_s": 5.0,
        "step": 1,
        "outcome": "success",
    }


@pytest.mark.parametrize(
    ("asked", "expected"),
    [
        ({"outcome": "success"}, [0]),
        ({"outcome": "unsuccessful"}, [1, 2]),
        ({"outcome": "excluded"}, [3]),
        ({"reward_min": 0.5}, [0, 1]),
        ({"reward_max": 0.5, "reward_min": 0.1}, [1]),
        ({"turns_max": 1}, [2, 3]),
        ({"tokens_min": 6}, [1]),
        ({"duration_min": 6.5, "duration_max": 7}, [2]),
        ({"stop": "max_turns"}, [2]),
        ({"owner": "sandbox", "kind": "crash"}, [3]),
        ({"owner": "tool"}, []),
    ],
)
def test_filters_of_episodes(journal, asked, expected):
    assert members(journal, **asked) == expected


@pytest.mark.parametrize(
    ("asked", "expected"),
    [
        ({"task": "TASK-1"}, [1]),
        ({"task": "ten"}, [0]),
        ({"task": "Größe"}, [1]),
        ({"task": 'Say "done"'}, [2]),
        ({"task": "%"}, [1]),
        ({"task": "k_1"}, []),
        ({"tag": "easy"}, [0]),
        ({"tag": "50%_off"}, [1]),
        ({"tag": "50%off"}, []),
        ({"tag": "ten"}, []),
        ({"environment": "env-0"}, [0, 2]),
        ({"step_min": 1}, [0, 1]),
        ({"step_min": 2}, []),
    ],
)
def test_filters_of_tasks(journal, asked, expected):
    assert groups(journal, **asked) == expected


@pytest.mark.parametrize("text", ["\0", "\ud800", "\ud800\ud800\udc00", "\udc00\udc00"])
def test_text_that_a_database_cannot_read_spoils_no_search(run_dir, journal, text):
    broken = replace(task(0), id="broken", prompt=(*task(0).prompt, Message("user", text)), tags=("tagged",))
    whole = replace(task(0), id="whole", prompt=(Message("user", 'to find \U0001f642 \\ "x"'),), tags=("tagged",))
    with open_journal(run_dir) as writer:
        for index, added in enumerate((broken, whole), 7):
            writer.append_group(Group(index, added, (trajectory(added, index, 0),)))
    for said in ("FIND \U0001f642", '\\ "x"', "find"):
        assert groups(journal, task=said) == [8]
    assert 8 in groups(journal, tag="tagged")
    assert groups(journal, task="broken") == [7], "by its id"


def test_a_task_whose_data_is_no_strict_json_spoils_no_search(run_dir, journal):
    odd = replace(task(0), id="odd", data={"answer": math.nan})
    with open_journal(run_dir) as writer:
        writer.append_group(Group(7, odd, (replace(trajectory(task(0), 7, 0), task=odd),)))
    assert groups(journal, tag="easy") == [0]
    assert groups(journal, task="odd") == [7]
    assert queries.episode(journal, 7, 0, 1.0)["task"]["data"] == {"answer": "NaN"}


def test_sorting_puts_what_is_unknown_last_both_ways(journal):
    assert found(journal, sort="-duration_s")[:2] == [(0, 3), (1, 3)]
    assert found(journal, sort="-group")[0] == (2, 0)
    assert groups(journal, sort="step") == [0, 1, 2]
    assert found(journal, sort="step")[-1][0] == found(journal, sort="-step")[-1][0] == 2


def test_pages_follow_each_other(journal):
    pages = [queries.episodes(journal, EpisodeQuery(offset=at, limit=5), 1.0)["rows"] for at in (0, 5, 10)]
    assert [len(page) for page in pages] == [5, 5, 2]
    assert [(row["group"], row["member"]) for page in pages for row in page] == [
        (g, m) for g in range(3) for m in range(4)
    ]


def test_the_histogram_counts_what_was_asked_for(journal):
    histogram = queries.episodes(journal, EpisodeQuery(), 1.0)["histogram"]
    assert len(histogram) == queries.BINS
    assert sum(bar["count"] for bar in histogram) == 12
    assert (histogram[0]["count"], histogram[12]["count"], histogram[-1]["count"]) == (6, 3, 3)
    assert math.isclose(histogram[-1]["high"], 1.0)
    assert queries.episodes(journal, EpisodeQuery(outcome="success"), 1.0)["histogram"] == [
        {"low": 1.0, "high": 2.0, "count": 3}
    ]
    assert queries.episodes(journal, EpisodeQuery(task="nowhere"), 1.0)["histogram"] == []


def test_a_column_that_does_not_exist_is_named(journal):
    with pytest.raises(UserError, match=r"'record'.*group, member"):
        queries.episodes(journal, EpisodeQuery(sort="record"), 1.0)


def test_choices_are_what_occurs(journal):
    assert queries.choices(journal) == {
        "outcome": ["success", "unsuccessful", "excluded"],
        "stop": ["failure", "max_turns", "terminated"],
        "owner": ["sandbox"],
        "kind": ["crash"],
        "environment": ["env-0", "env-1"],
        "tag": ["50%_off", "easy", "hard"],
    }


def test_an_episode_has_its_record_and_its_siblings(journal):
    (earlier,) = queries.episode(journal, 2, 0, threshold=1.0)["earlier_failures"]
    assert (earlier["owner"], earlier["message"]) == ("provider", "too slow")
    episode = queries.episode(journal, 1, 1, threshold=1.0)
    assert (episode["attempts"], episode["earlier_failures"]) == (1, [])
    assert (episode["group"], episode["member"], episode["reward"], episode["step"]) == (1, 1, 0.5, 1)
    assert episode["task"] == {
        "id": "task-1",
        "data": {"answer": 10},
        "environment": "env-1",
        "tags": ["hard", "50%_off"],
    }
    assert episode["prompt"][0]["content"] == "Größe von 5% /tmp?"
    assert [turn["reward"] for turn in episode["turns"]] == [0.25, 0.25]
    assert episode["turns"][0]["tool_results"][0]["error"] == "timeout"
    assert [sibling["outcome"] for sibling in episode["siblings"]] == [
        "success",
        "unsuccessful",
        "unsuccessful",
        "excluded",
    ]
    with pytest.raises(UserError, match="no episode 9 of group 1"):
        queries.episode(journal, 1, 9, threshold=1.0)


def test_totals_leave_out_what_does_not_count(journal):
    totals = queries.totals(journal)
    assert (totals["episodes"], totals["groups"], totals["environments"]) == (12, 3, 2)
    assert totals["reward"] == pytest.approx(0.5)
    assert queries.failures(journal) == [{"owner": "sandbox", "kind": "crash", "count": 3}]
    assert [row["member"] for row in queries.partners(journal, "task-2", 1.0)] == [0, 1, 2, 3]


def test_what_is_asked_is_checked():
    with pytest.raises(ConfigError, match="limit"):
        build(EpisodeQuery, {"limit": "100000"})
    with pytest.raises(ConfigError, match=r"unknown field 'taks'.*'task'"):
        build(EpisodeQuery, {"taks": "x"})
