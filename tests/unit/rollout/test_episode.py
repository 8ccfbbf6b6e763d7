import math
from collections.abc import Sequence

import anyio
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agent_rl.engine.scripted import ScriptedEngine
from agent_rl.errors import ConfigError, GraderFailure, ToolError
from agent_rl.rollout.agent import Action, OracleAgent, PolicyAgent
from agent_rl.rollout.episode import run_episode
from agent_rl.rollout.limits import RolloutLimits
from agent_rl.seeding import derive_seed
from agent_rl.testing.environments import CountUp, CountUpConfig, FaultyEnvironment, GuessNumber
from agent_rl.testing.virtual_time import VIRTUAL_TIME
from agent_rl.types import (
    FinishReason,
    Message,
    Owner,
    SamplingParams,
    Step,
    StepInfo,
    StopReason,
    Task,
    ToolCall,
    Trajectory,
)

pytestmark = pytest.mark.anyio


@pytest.fixture
def anyio_backend():
    return VIRTUAL_TIME


LIMITS = RolloutLimits(max_turns=10, max_response_tokens=32, max_context_tokens=1024)
HURRY = RolloutLimits(
    setup_timeout_s=0.02, generation_timeout_s=0.02, step_timeout_s=0.02, episode_timeout_s=5.0, close_timeout_s=0.02
)


async def play(environment, task, *, engine=None, codec=None, limits=LIMITS, make_agent=None) -> Trajectory:
    """One episode of the policy behind `engine`, or of the oracle."""

    def policy_or_oracle(environment, key):
        if engine is None:
            return OracleAgent(environment)
        return PolicyAgent(engine, codec, SamplingParams(), key)

    return await run_episode(
        lambda task: environment,
        make_agent or policy_or_oracle,
        task,
        group_index=4,
        member=2,
        seed=9,
        limits=limits,
    )


def guessing(*faults, at_turn=0) -> FaultyEnvironment:
    return FaultyEnvironment(GuessNumber(), dict(faults), at_turn=at_turn)


class Scripted(GuessNumber):
    """Steps given by the test: values are returned, exceptions raised."""

    def __init__(self, *steps) -> None:
        self.steps = list(steps)

    async def step(self, action):
        step = self.steps.pop(0)
        if isinstance(step, BaseException):
            raise step
        return step


# --- what an episode is as data -------------------------------------------------------------------------------------


async def test_an_episode_that_ends_by_itself(task, codec, saying):
    hidden = task.data["hidden"]
    engine = saying(["what?", "99", str(hidden)])
    trajectory = await play(GuessNumber(), task, engine=engine, codec=codec)

    assert trajectory.terminated
    assert trajectory.failure is None
    assert (trajectory.task, trajectory.group_index, trajectory.member, trajectory.seed) == (task, 4, 2, 9)
    assert trajectory.prompt == task.prompt
    assert [turn.index for turn in trajectory.turns] == [0, 1, 2]
    assert [turn.action.content for turn in trajectory.turns] == ["what?", "99", str(hidden)]
    assert [turn.observations[0].content for turn in trajectory.turns] == ["Say a number.", "lower", "correct"]
    assert [turn.reward for turn in trajectory.turns] == [0.0, 0.0, 1.0]
    assert trajectory.turns[-1].reward_terms == {"found": 1.0}
    assert [turn.state_key for turn in trajectory.turns] == [(0, 99), (0, 99), (0, 98)]
    assert all(turn.finish_reason is FinishReason.STOP for turn in trajectory.turns)
    assert trajectory.sampled_tokens == engine.sampled_tokens
    assert engine.resident_sessions == 0
    assert trajectory.metrics == {}


async def test_times_are_measured_where_they_pass(task, codec, saying):
    environment = guessing(("setup", "slow"), ("step", "slow"))
    trajectory = await play(environment, task, engine=saying(["1"], latency_s=0.03), codec=codec, limits=LIMITS)
    first, second = trajectory.turns[:2]
    assert trajectory.setup_s >= 0.01
    assert 0.03 <= first.generation_s < 0.3
    assert first.step_s >= 0.01 > second.step_s
    assert trajectory.duration_s >= 0.05


async def test_tool_calls_and_their_results_are_in_the_turns():
    (task,) = CountUp.tasks("train", 1, config=CountUpConfig(turns=3))
    trajectory = await play(CountUp(), task)
    assert trajectory.reward == 1.0
    assert [turn.action.tool_calls[0].name for turn in trajectory.turns[:-1]] == ["add", "add"]
    assert trajectory.tools == tuple(tool.definition for tool in CountUp().tools)
    assert [turn.tool_results[0].content for turn in trajectory.turns[:-1]] == ["The total is 1.", "The total is 2."]


async def test_siblings_reset_with_the_same_seed(task):
    seeds = []

    class Watched(GuessNumber):
        async def reset(self, task, seed):
            seeds.append(seed)
            return await super().reset(task, seed)

    for member in (0, 1):
        await run_episode(
            lambda task: Watched(),
            lambda environment, key: OracleAgent(environment),
            task,
            group_index=0,
            member=member,
            seed=9,
            limits=LIMITS,
        )
    assert seeds == [derive_seed(9, task.id)] * 2


# --- limits ---------------------------------------------------------------------------------------------------------


def limited(**limits) -> RolloutLimits:
    return LIMITS.model_copy(update=limits)


async def test_max_turns(task, codec, saying):
    trajectory = await play(GuessNumber(), task, engine=saying(["1"]), codec=codec, limits=limited(max_turns=3))
    assert trajectory.stop_reason is StopReason.MAX_TURNS
    assert trajectory.truncated
    assert len(trajectory.turns) == 3


async def test_a_task_that_ends_in_its_last_turn_is_not_truncated(task, codec, saying):
    engine = saying(["1", str(task.data["hidden"])])
    trajectory = await play(GuessNumber(), task, engine=engine, codec=codec, limits=limited(max_turns=2))
    assert trajectory.stop_reason is StopReason.TERMINATED


@pytest.mark.parametrize(
    ("allowed", "made", "reason"), [(2, 3, StopReason.MAX_TOOL_CALLS), (4, 5, StopReason.TERMINATED)]
)
async def test_max_tool_calls(allowed, made, reason):
    (task,) = CountUp.tasks("train", 1, config=CountUpConfig(turns=5))
    trajectory = await play(CountUp(), task, limits=limited(max_tool_calls=allowed))
    assert trajectory.stop_reason is reason
    assert len(trajectory.turns) == made
    executed = sum(len(turn.tool_results) for turn in trajectory.turns)
    assert executed == allowed, "the call beyond the limit never runs"


async def test_a_cut_response_ends_the_episode_and_the_environment_never_sees_it(task, codec, saying):
    engine = saying(["1", "2" * 50])
    trajectory = await play(GuessNumber(), task, engine=engine, codec=codec)
    assert trajectory.stop_reason is StopReason.RESPONSE_LENGTH
    last = trajectory.turns[-1]
    assert (last.finish_reason, last.observations, last.reward) == (FinishReason.LENGTH, (), 0.0)
    assert last.end - last.start == LIMITS.max_response_tokens
    assert trajectory.sampled_tokens == sum(turn.end - turn.start for turn in trajectory.turns)


async def test_a_response_cut_by_the_context(task, codec, saying, ids_of):
    prompt_tokens = len(codec.encode_prompt(task.prompt))
    limits = limited(max_context_tokens=prompt_tokens + 10)
    trajectory = await play(GuessNumber(), task, engine=saying(["2" * 50]), codec=codec, limits=limits)
    assert trajectory.stop_reason is StopReason.MAX_TOKENS
    assert len(trajectory.segments[0].token_ids_T) == prompt_tokens + 10


async def test_an_observation_that_overflows_the_context(task, codec, saying):
    environment = Scripted(Step((Message("user", "word " * 2000),)))
    await environment.reset(task, 0)
    trajectory = await play(environment, task, engine=saying(["1"]), codec=codec)
    assert trajectory.stop_reason is StopReason.MAX_TOKENS
    assert len(trajectory.turns) == 1
    (segment,) = trajectory.segments
    assert len(segment.token_ids_T) < 100, "what no response follows is not in the row"


async def test_a_prompt_that_overflows_the_context(codec, saying):
    task = Task("long", (Message("user", "word " * 2000),), {"hidden": 1, "high": 9})
    engine = saying(["1"])
    trajectory = await play(GuessNumber(), task, engine=engine, codec=codec)
    assert trajectory.stop_reason is StopReason.MAX_TOKENS
    assert (trajectory.turns, trajectory.segments, engine.requests) == ((), (), 0)


async def test_time_limit_keeps_the_turns_so_far(task, codec, saying):
    limits = limited(episode_timeout_s=0.1)
    trajectory = await play(GuessNumber(), task, engine=saying(["1"], latency_s=0.04), codec=codec, limits=limits)
    assert trajectory.stop_reason is StopReason.TIME_LIMIT
    assert trajectory.failure is None
    assert len(trajectory.turns) in (1, 2)
    assert trajectory.sampled_tokens == sum(turn.end - turn.start for turn in trajectory.turns) > 0


async def test_time_limit_within_a_step_keeps_the_action(task, codec, saying):
    limits = limited(episode_timeout_s=0.05)
    trajectory = await play(guessing(("step", "hang")), task, engine=saying(["1"]), codec=codec, limits=limits)
    assert trajectory.stop_reason is StopReason.TIME_LIMIT
    (turn,) = trajectory.turns
    assert (turn.action.content, turn.observations) == ("1", ())
    assert trajectory.sampled_tokens == turn.end - turn.start


async def test_setup_is_not_on_the_episodes_clock(task):
    class SlowSetup(GuessNumber):
        async def reset(self, task, seed):
            await anyio.sleep(0.1)
            return await super().reset(task, seed)

    trajectory = await play(SlowSetup(), task, limits=limited(episode_timeout_s=0.05))
    assert trajectory.stop_reason is StopReason.TERMINATED


async def test_truncation_by_the_environment(task):
    environment = Scripted(Step((), 0.5, truncated=True))
    trajectory = await play(environment, task)
    assert trajectory.stop_reason is StopReason.ENVIRONMENT_TRUNCATED
    assert trajectory.reward == 0.5


# --- failures -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("stage", ["setup", "step"])
@pytest.mark.parametrize(("fault", "kind"), [("crash", "crash"), ("hang", "timeout")])
async def test_faults_of_the_environment(task, stage, fault, kind):
    trajectory = await play(guessing((stage, fault), at_turn=1), task, limits=HURRY)
    assert trajectory.stop_reason is StopReason.FAILURE
    assert not trajectory.truncated
    failure = trajectory.failure
    assert (failure.owner, failure.kind, failure.stage) == (Owner.ENVIRONMENT, kind, stage)
    assert failure.retryable
    if stage == "step":
        assert [turn.observations != () for turn in trajectory.turns] == [True, False], "the turns so far are kept"
    if fault == "crash":
        assert "injected crash" in failure.message
        assert "RuntimeError" in failure.traceback


async def test_a_constructor_that_crashes_is_the_environments(task):
    def factory(task):
        raise OSError("no disk")

    trajectory = await run_episode(
        factory, lambda environment, key: OracleAgent(environment), task, group_index=0, member=0, seed=0, limits=LIMITS
    )
    assert (trajectory.failure.owner, trajectory.failure.stage) == (Owner.ENVIRONMENT, "setup")


async def test_a_generation_that_hangs_is_the_providers(task, codec, saying):
    engine = saying(["1"], latency_s=1e9)
    trajectory = await play(GuessNumber(), task, engine=engine, codec=codec, limits=HURRY)
    failure = trajectory.failure
    assert (failure.owner, failure.kind, failure.stage) == (Owner.PROVIDER, "timeout", "generation")
    assert engine.running_requests == engine.resident_sessions == 0


async def test_a_generation_that_crashes_is_the_providers(task, codec):
    def respond(request):
        raise ConnectionError("refused")

    engine = ScriptedEngine(respond)
    trajectory = await play(GuessNumber(), task, engine=engine, codec=codec)
    failure = trajectory.failure
    assert (failure.owner, failure.kind, failure.stage) == (Owner.PROVIDER, "crash", "generation")
    assert engine.resident_sessions == 0


@pytest.mark.parametrize(
    ("step", "message"),
    [
        (None, "must return agent_rl.types.Step, not NoneType"),
        (((), 0.0, True, False, {}), "must return agent_rl.types.Step, not tuple"),
        (Step(("text",)), "expected agent_rl.types.Message, not str"),
        (Step((), math.nan), "the reward is nan"),
        (ToolError("bad query"), "a ToolError escaped from step: bad query"),
    ],
)
async def test_a_wrong_step_is_the_environments_failure_and_not_our_crash(task, step, message):
    trajectory = await play(Scripted(step), task)
    assert trajectory.failure.owner is Owner.ENVIRONMENT
    assert message in trajectory.failure.message


async def test_who_knows_better_keeps_the_blame(task):
    trajectory = await play(Scripted(GraderFailure("judge is down", retryable=False)), task)
    assert trajectory.failure.owner is Owner.GRADER
    assert not trajectory.failure.retryable


async def test_user_errors_and_bugs_propagate(task, codec):
    with pytest.raises(ConfigError, match="wrong path"):
        await play(Scripted(ConfigError("wrong path")), task)

    def broken_agent(environment, key):
        raise AttributeError("our own bug")

    environment = guessing()
    with pytest.raises(AttributeError, match="our own bug"):
        await play(environment, task, make_agent=broken_agent)


# --- release --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fault", "metrics"),
    [
        ("crash", {"environment_close_failed": 1.0}),
        ("hang", {"environment_close_timed_out": 1.0}),
        ("slow", {}),
    ],
)
async def test_a_close_that_fails_is_reported_and_the_episode_counts(task, fault, metrics):
    trajectory = await play(guessing(("close", fault)), task, limits=HURRY)
    assert trajectory.terminated
    assert trajectory.failure is None
    assert trajectory.metrics == metrics


@pytest.mark.parametrize("stage", ["setup", "step"])
async def test_cancellation_releases_everything(task, codec, saying, stage):
    opened = set()
    environment = FaultyEnvironment(GuessNumber(), {stage: "hang", "close": "slow"}, opened)
    engine = saying(["1"])
    closed = False
    with anyio.move_on_after(0.05):
        with pytest.raises(BaseException) as raised:  # noqa: PT011  # the backend's cancellation
            await play(environment, task, engine=engine, codec=codec)
        closed = opened == set()
        raise raised.value
    assert closed, "closed before the cancellation went on"
    assert engine.running_requests == engine.resident_sessions == 0


async def test_the_environment_is_closed_when_the_agent_cannot_be_made(task):
    opened = set()

    class Held(GuessNumber):
        def __init__(self):
            opened.add(self)

        async def close(self):
            opened.discard(self)

    def broken_agent(environment, key):
        raise AttributeError("our own bug")

    with pytest.raises(AttributeError):
        await play(Held(), task, make_agent=broken_agent)
    assert opened == set()


# --- bookkeeping ----------------------------------------------------------------------------------------------------


@settings(max_examples=60)
@given(
    lengths=st.lists(st.integers(0, 40), min_size=1, max_size=8),
    observation_words=st.integers(0, 40),
    max_response_tokens=st.integers(1, 40),
    max_context_tokens=st.integers(50, 300),
    crash_at=st.none() | st.integers(0, 5),
)
def test_every_sampled_token_is_in_exactly_one_turn(
    codec, lengths, observation_words, max_response_tokens, max_context_tokens, crash_at
):
    texts = [[7] * length + [codec.stop_token_ids[0]] for length in lengths]
    engine = ScriptedEngine(lambda request: texts.pop(0) if len(texts) > 1 else texts[0])
    steps: Sequence = [Step((Message("user", "word " * observation_words),))] * 20
    if crash_at is not None:
        steps = [*steps[:crash_at], RuntimeError("crash")]
    limits = RolloutLimits(
        max_turns=6,
        max_response_tokens=min(max_response_tokens, max_context_tokens - 1),
        max_context_tokens=max_context_tokens,
    )
    task = GuessNumber.tasks("test", 1)[0]
    trajectory = anyio.run(lambda: play(Scripted(*steps), task, engine=engine, codec=codec, limits=limits))

    spans = {(turn.segment, at) for turn in trajectory.turns for at in range(turn.start, turn.end)}
    sampled = {
        (index, int(at)) for index, s in enumerate(trajectory.segments) for at in np.flatnonzero(s.response_mask_T)
    }
    assert spans == sampled
    assert sum(turn.end - turn.start for turn in trajectory.turns) == engine.sampled_tokens
    assert all(len(segment.token_ids_T) <= max_context_tokens for segment in trajectory.segments)
    assert all(turn.end - turn.start <= max_response_tokens for turn in trajectory.turns)


# --- corrective turns, the episode's clock, metrics -----------------------------------------------------------------


class Clumsy:
    """An agent that calls a tool that does not exist, except in the turns given."""

    context_tokens = 0

    def __init__(self, environment, good=()) -> None:
        self.environment = environment
        self.good = good

    def start(self, prompt, tools):
        pass

    async def act(self, turn, max_tokens):
        if turn in self.good:
            return Action(self.environment.oracle_action())
        return Action(Message("assistant", "", (ToolCall("c", "ad", {}),)))

    def observe(self, messages):
        pass

    def segments(self):
        return ()

    async def close(self):
        pass


@pytest.mark.parametrize(("allowed", "good", "turns"), [(0, (), 1), (2, (), 3), (2, (2,), 6), (None, (), 10)])
async def test_corrective_turns_in_a_row_are_limited(allowed, good, turns):
    (task,) = CountUp.tasks("train", 1, config=CountUpConfig(turns=50))
    limits = LIMITS.model_copy(update={"max_corrective_turns": allowed})
    trajectory = await play(CountUp(), task, limits=limits, make_agent=lambda environment, _: Clumsy(environment, good))
    assert len(trajectory.turns) == turns
    assert trajectory.stop_reason is (StopReason.MAX_MISTAKES if allowed is not None else StopReason.MAX_TURNS)
    assert trajectory.failure is None, "the model's mistakes are no failures"


async def test_waiting_for_the_engine_can_be_left_out_of_the_episodes_clock(task, codec, saying):
    limits = RolloutLimits(
        generation_timeout_s=5, step_timeout_s=0.05, episode_timeout_s=0.06, clock_runs_while_generating=False
    )
    slow = saying(["100", "100", "100", str(task.data["hidden"])], latency_s=0.04)
    trajectory = await play(GuessNumber(), task, engine=slow, codec=codec, limits=limits)
    assert trajectory.terminated
    assert trajectory.duration_s > 0.15

    dawdling = guessing(("step", "slow"))
    dawdling_limits = limits.model_copy(update={"step_timeout_s": 5.0, "episode_timeout_s": 0.005})
    trajectory = await play(dawdling, task, engine=saying(["100"]), codec=codec, limits=dawdling_limits)
    assert trajectory.stop_reason is StopReason.TIME_LIMIT, "the environment's time still counts"


async def test_a_hanging_engine_is_the_providers_failure_whatever_the_clock(task, codec, saying):
    limits = HURRY.model_copy(update={"clock_runs_while_generating": False})
    trajectory = await play(GuessNumber(), task, engine=saying(["1"], latency_s=10), codec=codec, limits=limits)
    assert trajectory.failure is not None
    assert (trajectory.failure.owner, trajectory.failure.kind) == (Owner.PROVIDER, "timeout")


def test_a_clock_that_stands_still_while_generating_needs_room_for_a_step_only():
    RolloutLimits(episode_timeout_s=60, step_timeout_s=60, clock_runs_while_generating=False)
    with pytest.raises(ValueError, match="raise it to at least step_timeout_s = 60"):
        RolloutLimits(episode_timeout_s=50, step_timeout_s=60, clock_runs_while_generating=False)


async def test_metrics_of_steps_add_up(task):
    steps = [Step((Message("user", "go on"),), info=StepInfo(metrics={"looks": 2.0})) for _ in range(3)]
    last = Step((), 1.0, terminated=True, info=StepInfo(metrics={"looks": 1.0, "finds": 1.0}))
    trajectory = await play(Scripted(*steps, last), task, make_agent=lambda environment, _: Clumsy(environment))
    assert trajectory.metrics == {"looks": 7.0, "finds": 1.0}
