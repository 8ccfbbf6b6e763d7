import dataclasses
import json

import numpy as np
import pytest

from agent_rl.errors import UserError
from agent_rl.store import records


def test_a_trajectory_survives_with_every_field(make_group):
    group = make_group(5)
    for trajectory in group.trajectories:
        text = records.trajectory_to_json(trajectory)
        again = records.trajectory_from_json(text, group.task, trajectory.segments)
        for field in dataclasses.fields(trajectory):
            if field.name != "turns":
                assert getattr(again, field.name) == getattr(trajectory, field.name), field.name
        for old, new in zip(trajectory.turns, again.turns, strict=True):
            assert dataclasses.astuple(new) == dataclasses.astuple(old)
            assert type(new.state_key) is tuple
            assert new.finish_reason is old.finish_reason
        assert again.reward == trajectory.reward
        assert again.stop_reason is trajectory.stop_reason


def test_the_record_is_plain_json(make_group):
    record = json.loads(records.trajectory_to_json(make_group(0).trajectories[1]))
    assert record["failure"]["owner"] == "sandbox"
    assert record["turns"][0]["action"]["tool_calls"][0]["name"] == "run_sql"
    assert "segments" not in record
    assert "task" not in record


def test_a_task_survives(make_group):
    task = make_group(3).task
    assert records.task_from_json(records.task_to_json(task)) == task


def test_numpy_scalars_are_stored_by_value(make_group):
    trajectory = make_group(0).trajectories[0]
    turn = dataclasses.replace(trajectory.turns[0], reward=np.float32(0.1), state_key=(np.int64(3),))
    text = records.trajectory_to_json(dataclasses.replace(trajectory, turns=(turn,)))
    again = records.trajectory_from_json(text, trajectory.task, ()).turns[0]
    assert again.reward == float(np.float32(0.1))
    assert again.state_key == (3,)


def test_an_older_row_without_a_new_field_takes_its_default(make_group):
    trajectory = make_group(0).trajectories[2]
    record = json.loads(records.trajectory_to_json(trajectory))
    del record["earlier_failures"], record["setup_s"]
    again = records.trajectory_from_json(json.dumps(record), trajectory.task, ())
    assert (again.attempts, again.setup_s) == (1, 0.0)


def test_an_older_row_counted_its_attempts_and_kept_no_failure_of_them(make_group):
    trajectory = make_group(0).trajectories[2]
    record = json.loads(records.trajectory_to_json(trajectory))
    del record["earlier_failures"]
    again = records.trajectory_from_json(json.dumps({**record, "attempts": 3}), trajectory.task, ())
    assert again.attempts == 3
    assert [failure.kind for failure in again.earlier_failures] == ["not_recorded"] * 2


@pytest.mark.parametrize("data", [{"rows": {1, 2}}, {"blob": b"x"}, {"nested": [object()]}])
def test_data_that_is_not_json_is_refused_with_the_name_of_the_task(make_group, data):
    task = dataclasses.replace(make_group(0).task, data=data)
    with pytest.raises(UserError, match="Task 'sql-0' cannot be stored"):
        records.task_to_json(task)


def test_an_opaque_state_key_is_refused(make_group):
    trajectory = make_group(0).trajectories[0]
    turn = dataclasses.replace(trajectory.turns[0], state_key=("at", frozenset({1})))
    with pytest.raises(UserError, match="state key of type frozenset"):
        records.trajectory_to_json(dataclasses.replace(trajectory, turns=(turn,)))


def test_at_most_12_bytes_per_token_even_when_all_are_sampled(make_segment):
    segment = make_segment(np.random.default_rng(0), 4096)
    all_sampled = dataclasses.replace(
        segment,
        response_mask_T=np.ones(4096, np.bool_),
        rollout_logprobs_T=-np.random.default_rng(1).exponential(size=4096).astype(np.float32),
        weight_versions_T=np.arange(4096, dtype=np.int32) // 64,
    )
    for one in (segment, all_sampled):
        assert len(records.segments_to_blob([one])) / 4096 < 8
    assert len(records.segments_to_blob([all_sampled] * 3)) / (3 * 4096) < 8


def test_a_trajectory_without_tokens(make_group):
    assert records.segments_from_blob(records.segments_to_blob([])) == ()


@pytest.mark.parametrize(
    "broken",
    [
        {"rollout_logprobs_T": np.full(64, -0.0, np.float32)},
        {"weight_versions_T": np.full(64, 7, np.int32)},
        {"token_ids_T": np.zeros(63, np.int32)},
        {"token_ids_T": np.zeros(64, np.int64)},
    ],
)
def test_a_malformed_segment_is_refused_rather_than_altered(make_segment, broken):
    segment = dataclasses.replace(make_segment(np.random.default_rng(0), 64), **broken)
    with pytest.raises(ValueError, match="malformed segment"):
        records.segments_to_blob([segment])
