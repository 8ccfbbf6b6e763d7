import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent_rl.credit import ESTIMATORS, get_estimator, row_groups, to_rows
from agent_rl.types import Failure, FinishReason, Group, Message, Owner, Segment, StopReason, Task, Trajectory, Turn

TASK = Task(id="t", prompt=(Message("user", "?"),))
CRASH = Failure("crash", Owner.SANDBOX, "step", "lost")


def segment(mask):
    mask_T = np.array(mask, dtype=np.bool_)
    return Segment(
        np.arange(len(mask), dtype=np.int32),
        mask_T,
        np.zeros(len(mask), np.float32),
        np.where(mask_T, 0, -1).astype(np.int32),
    )


def episode(member, reward, masks, failed=False):
    turn = Turn(0, 0, 0, 0, Message("assistant", ""), (), reward, {}, (), FinishReason.STOP)
    stop = StopReason.FAILURE if failed else StopReason.TERMINATED
    failure = CRASH if failed else None
    return Trajectory(TASK, 0, member, 0, TASK.prompt, tuple(map(segment, masks)), (turn,), stop, failure)


masks = st.lists(st.booleans(), min_size=1, max_size=8).map(lambda mask: [False, *mask])  # a context token comes first
members = st.tuples(
    st.sampled_from([0.0, 0.5, 1.0, -2.0]),
    st.lists(masks, min_size=1, max_size=3),
    st.integers(0, 9).map(lambda n: not n),
)
groups = st.lists(members, min_size=1, max_size=6).map(
    lambda ms: Group(0, TASK, tuple(episode(i, *m) for i, m in enumerate(ms)))
)


def credited_rows(batch, estimator, aggregation):
    return to_rows(batch, [get_estimator(estimator)(group) for group in batch], aggregation)


def token_terms(rows):
    """(weight, advantage) of every trained token, in order."""
    return [
        (weight, advantage)
        for row in rows
        for weight, advantage in zip(row.weights_T.tolist(), row.advantages_T.tolist(), strict=True)
        if weight
    ]


estimators = st.sampled_from(sorted(ESTIMATORS))
aggregations = st.sampled_from(["token_mean", "sequence_mean"])


@given(st.lists(groups, max_size=4), estimators, aggregations)
def test_weights_of_a_batch_sum_to_one(batch, estimator, aggregation):
    rows = credited_rows(batch, estimator, aggregation)
    trained = sum(row.response_mask_T.sum() for row in rows)
    assert sum(row.weights_T.sum(dtype=np.float64) for row in rows) == pytest.approx(1.0 if trained else 0.0, rel=1e-5)
    assert len(row_groups(batch)) == len(rows)


@given(groups, estimators, aggregations, st.data())
def test_splitting_episodes_into_segments_changes_no_token(group, estimator, aggregation, data):
    def split(trajectory):
        pieces = []
        for whole in trajectory.segments:
            mask = whole.response_mask_T.tolist()
            cut = data.draw(st.integers(1, len(mask)))
            # A rewritten history: the second segment starts with context that nobody sampled.
            pieces += [mask[:cut], [False, False, *mask[cut:]]]
        return episode(trajectory.member, trajectory.reward, pieces, trajectory.failure is not None)

    forked = Group(group.index, TASK, tuple(split(trajectory) for trajectory in group.trajectories))
    whole = credited_rows([group], estimator, aggregation)
    assert token_terms(credited_rows([forked], estimator, aggregation)) == token_terms(whole)


def scalar_advantages(group, estimator):
    """The advantage of each valid member that sampled a token, by member."""
    advantages = {}
    for trajectory, credit in zip(group.valid, get_estimator(estimator)(group), strict=True):
        for segment, advantages_T in zip(trajectory.segments, credit, strict=True):
            for advantage in advantages_T[segment.response_mask_T]:
                advantages[trajectory.member] = float(advantage)
    return advantages


@given(groups, estimators, st.randoms())
def test_order_of_siblings_does_not_matter(group, estimator, random):
    order = list(group.trajectories)
    random.shuffle(order)
    shuffled = Group(group.index, TASK, tuple(order))
    assert scalar_advantages(shuffled, estimator) == pytest.approx(scalar_advantages(group, estimator), abs=1e-6)


@given(groups)
def test_rloo_is_the_leave_one_out_loop(group):
    rewards = {trajectory.member: trajectory.reward for trajectory in group.valid}
    for member, advantage in scalar_advantages(group, "rloo").items():
        others = [reward for other, reward in rewards.items() if other != member]
        baseline = sum(others) / len(others) if others else rewards[member]
        assert advantage == pytest.approx(rewards[member] - baseline, abs=1e-6)
