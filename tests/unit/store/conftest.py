"""An example of a group as the rollout produces it. Also imported by the processes that the tests start and kill."""

import uuid
from collections.abc import Iterator

import numpy as np
import pytest
from sqlalchemy import create_engine, text

from agent_rl.types import (
    Failure,
    FinishReason,
    Group,
    Message,
    Owner,
    Segment,
    StopReason,
    Task,
    ToolCall,
    ToolResult,
    Trajectory,
    Turn,
)


def example_segment(rng: np.random.Generator, tokens: int, vocabulary: int = 151_936) -> Segment:
    """Half context, half sampled, in spans of 32 tokens."""
    mask_T = np.arange(tokens) // 32 % 2 == 1
    return Segment(
        rng.integers(0, vocabulary, tokens).astype(np.int32),
        mask_T,
        np.where(mask_T, -rng.exponential(size=tokens), 0).astype(np.float32),
        np.where(mask_T, 7, -1).astype(np.int32),
    )


def example_trajectory(task: Task, index: int, member: int, turns: int, tokens: int) -> Trajectory:
    rng = np.random.default_rng([index, member])
    call = ToolCall("call_0", "run_sql", {"query": "select count(*) from orders where city = 'Köln'", "limit": 10})
    error = "no such table: orders"
    turn = {
        "segment": 0,
        "action": Message("assistant", "Let me look.", (call,), reasoning_content="orders?"),
        "observations": (Message("tool", error, tool_call_id="call_0"),),
        "reward_terms": {"format": 0.1},
        "tool_results": (ToolResult(call, error, error, 0.002), ToolResult(call, "3", None, 0.001)),
        "finish_reason": FinishReason.STOP,
    }
    failure = Failure("timeout", Owner.SANDBOX, "step", "took too long", "Traceback ...") if member == 1 else None
    return Trajectory(
        task=task,
        group_index=index,
        member=member,
        seed=2**62 + member,
        prompt=task.prompt,
        segments=tuple(example_segment(rng, tokens // 2) for _ in range(2)),
        turns=tuple(
            Turn(i, start=i, end=i + 1, reward=0.1 * member, state_key=("at", i, b"\x00"), step_s=0.5, **turn)
            for i in range(turns)
        ),
        stop_reason=StopReason.FAILURE if failure else StopReason.TERMINATED,
        failure=failure,
        setup_s=0.25,
        duration_s=float(rng.random()),
        earlier_failures=tuple(Failure("crash", Owner.SANDBOX, "setup", f"attempt {i}") for i in range(1, member + 1)),
        metrics={"rows": 3.0},
    )


def example_group(index: int, members: int = 3, turns: int = 2, tokens: int = 128) -> Group:
    prompt = (Message("system", "You query a database."), Message("user", "How many orders from Köln?\x00\n🙂"))
    task = Task(f"sql-{index}", prompt, {"answer": 3, "tables": ["orders", None]}, "sql", ("two_query",))
    return Group(index, task, tuple(example_trajectory(task, index, m, turns, tokens) for m in range(members)))


@pytest.fixture(scope="session")
def server() -> Iterator[str]:
    """The URL of a PostgreSQL of the test suite's own."""
    from tests.unit.envs.sql.servers import postgres

    try:
        with postgres() as url:
            yield url
    except RuntimeError as reason:
        pytest.skip(f"PostgreSQL: {reason}")


@pytest.fixture
def postgresql(server: str) -> Iterator[str]:
    """The URL of a database for one test."""
    name, engine = f"test_{uuid.uuid4().hex}", create_engine(server, isolation_level="AUTOCOMMIT")
    with engine.connect() as connection:
        connection.execute(text(f"CREATE DATABASE {name}"))
        yield server.rpartition("/")[0] + "/" + name
        connection.execute(text(f"DROP DATABASE {name} WITH (FORCE)"))
    engine.dispose()


@pytest.fixture(params=["sqlite", "postgresql"])
def store(request) -> str:
    """Where the journals of a test are, as the option `store` says it."""
    return "" if request.param == "sqlite" else request.getfixturevalue("postgresql")


@pytest.fixture
def make_group():
    return example_group


@pytest.fixture
def make_segment():
    return example_segment
