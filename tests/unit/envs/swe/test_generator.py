"""Made-up tasks: seeded, split by function, and each of the bugs that ship really breaks its tests."""

import pytest

from agent_rl_envs.swe.factory.bugs import bug_from, bug_to_data
from agent_rl_envs.swe.generator import _known, make_problems
from agent_rl_envs.swe.patches import is_protected, touched, unified_diff
from agent_rl_envs.swe.problems import from_data, to_data
from agent_rl_envs.swe.repositories import Repositories
from agent_rl_envs.swe.sources import SAMPLE

BUGS, TESTS = _known()


def test_there_are_enough_bugs_in_enough_functions():
    assert len(BUGS) >= 100
    assert len({bug.place for bug in BUGS}) >= 50
    assert len({bug.mutation.kind for bug in BUGS}) >= 15


def test_bugs_fit_the_package_that_ships():
    for bug in BUGS:
        source = (SAMPLE / bug.path).read_bytes()
        assert bug.mutation.is_possible(source), bug.place
        assert bug.failing
        assert set(bug.failing) <= set(bug.covering) <= set(TESTS)
        assert bug_from(bug_to_data(bug)) == bug


def test_a_seed_gives_the_same_tasks_and_another_gives_others():
    one = make_problems("train", 10, 0, (1, 2))
    assert one == make_problems("train", 10, 0, (1, 2))
    assert one != make_problems("train", 10, 1, (1, 2))
    assert len({problem.id for problem in one}) == 10


def test_no_function_is_in_both_splits():
    train, test = (make_problems(split, 60, 0, (1,)) for split in ("train", "test"))
    places = [{bug.place for bug in BUGS if any(_is_of(bug, problem) for problem in some)} for some in (train, test)]
    assert places[0]
    assert places[1]
    assert not places[0] & places[1]


def _is_of(bug, problem) -> bool:
    broken = bug.mutation.applied((SAMPLE / bug.path).read_bytes()).decode()
    return problem.bug_patch == unified_diff(bug.path, (SAMPLE / bug.path).read_text(), broken)


def test_single_bugs_run_out():
    few = make_problems("test", 10_000, 0, (1,))
    assert 10 < len(few) < len(BUGS)


@pytest.mark.parametrize("size", [1, 2, 3])
def test_problems_are_whole(size: int, tmp_path):
    """The bug's patch and the solution are each other's reverse, and leave the tests alone."""
    repositories = Repositories(tmp_path, None, 60.0)  # type: ignore[arg-type]  # no sandbox is opened
    for problem in make_problems("train", 3, 0, (size,)):
        assert problem.tags[0] == f"bugs:{size}"
        assert from_data(to_data(problem)) == problem
        assert not set(problem.fail_to_pass) & set(problem.pass_to_pass)
        assert {*problem.fail_to_pass, *problem.pass_to_pass} == set(TESTS)
        assert not any(map(is_protected, touched(problem.patch)))
        broken = repositories._layer(problem.source, [problem.bug_patch])
        mended = repositories._layer(problem.source, [problem.bug_patch, problem.patch])
        for path in touched(problem.patch):
            assert (broken / path).read_bytes() != (SAMPLE / path).read_bytes()
            assert (mended / path).read_bytes() == (SAMPLE / path).read_bytes()
