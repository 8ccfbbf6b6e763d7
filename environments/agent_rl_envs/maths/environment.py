"""The `maths` environment: think, run Python as often as it helps, and end with the answer in a box.

ReTool (arXiv:2504.11536): code is written and run inside the reasoning, and only the answer is rewarded. What the
interpreter prints is part of the context but never sampled, so that it is never trained on.
"""

from __future__ import annotations

import functools
from collections.abc import Hashable, Sequence

import numpy as np
from pydantic import Field, field_validator

from agent_rl.config import Config
from agent_rl.errors import not_found
from agent_rl.rewards import Weights, check_weights, weighted
from agent_rl.rows import Row, RowsConfig, sample_rows
from agent_rl.sandbox import Sandbox, SandboxConfig, open_sandbox
from agent_rl.seeding import stream
from agent_rl.tool import ToolEnvironment
from agent_rl.types import Message, Step, StepInfo, Task, ToolCall
from agent_rl_envs.maths.answers import boxed, same_answer, stated_answer
from agent_rl_envs.maths.problems import Problem, make_problem
from agent_rl_tools.python import PythonTool

TERMS = ("correct", "format", "code")
_HOW = "Put the final answer into \\boxed{}."
_SYSTEM = f"Solve the problem step by step. Use python wherever computing or trying out helps. {_HOW}"


class MathsConfig(Config):
    """Options of `maths`."""

    rows: RowsConfig = Field(default=RowsConfig(), description="Problems of a data set; empty source: made up.")
    question_field: str = Field(default="question", description="The rows' field with the question.")
    answer_field: str = Field(
        default="answer", description="The rows' field with the answer: as it is, in a box, or behind ####."
    )
    changes: int = Field(
        default=1, ge=1, le=3, description="Of problems that are made up: how many things may be done to each number."
    )
    sandbox: SandboxConfig = Field(default=SandboxConfig(), description="Where code runs.")
    run_timeout_s: float = Field(default=30.0, gt=0, description="Deadline of one run of code.")
    weights: Weights = Field(default={"correct": 1.0}, description=f"Weight of each reward term: {', '.join(TERMS)}.")

    @field_validator("weights")
    @classmethod
    def _terms_exist(cls, weights: Weights) -> Weights:
        return check_weights(weights, TERMS)


_DEFAULTS = MathsConfig()


class MathsEnvironment(ToolEnvironment):
    """One problem, with an interpreter of its own."""

    config_type = MathsConfig

    def __init__(self, config: MathsConfig | None = None) -> None:
        self._config = config or _DEFAULTS
        self._sandbox: Sandbox | None = None
        self._read: list[str] = []  # what the interpreter said
        self._well_formed = True

    @classmethod
    def tasks(cls, split: str, count: int, seed: int = 0, config: MathsConfig = _DEFAULTS) -> Sequence[Task]:
        """`count` problems, made up or drawn from the rows."""
        if split not in ("train", "test"):
            raise not_found("split", split, ("train", "test"))
        if config.rows.source:
            return [_row_task(row, split, config) for row in sample_rows(config.rows, split, count, seed)]
        return [_made_up_task(split, seed, index, changes=config.changes) for index in range(count)]

    async def reset(self, task: Task, seed: int) -> Sequence[Message]:
        """Open the interpreter's sandbox. `seed` is not used: siblings have one problem."""
        self._data = task.data
        self._sandbox = await open_sandbox(self._config.sandbox)
        self.toolsets = (PythonTool(self._sandbox, timeout_s=self._config.run_timeout_s),)
        return task.prompt

    async def step(self, action: Message) -> Step:
        """As every environment with tools; notes what was read."""
        step = await super().step(action)
        self._read += [result.content for result in step.info.tool_results if result.error is None]
        return step

    async def answer(self, action: Message) -> Step:
        """Compare the boxed answer; a message without one is reminded of it."""
        found = boxed(action.content)
        if found is None:
            self._well_formed = False
            return Step((Message("user", f"Go on, or finish. {_HOW}"),))
        terms = {
            "correct": float(same_answer(found, self._data["answer"])),
            "format": float(self._well_formed),
            "code": float(bool(self._read)),
        }
        return Step((), weighted(terms, self._config.weights), terminated=True, info=StepInfo(reward_terms=terms))

    async def close(self) -> None:
        """End the interpreter and its sandbox."""
        try:
            await super().close()
        finally:
            if self._sandbox is not None:
                await self._sandbox.close()

    def state_key(self) -> Hashable:
        """What the interpreter said: all that an agent learned beside its own thoughts."""
        return (*self._read, self._well_formed)

    def oracle_action(self) -> Message:
        """The program that the question calls for, then its result; of rows the answer at once."""
        problem = self._problem()
        if problem is None:
            return _final(self._data["answer"])
        return _run(problem.programs[problem.right]) if not self._read else _final(self._read[-1])

    def random_action(self, rng: np.random.Generator) -> Message:
        """Like the oracle, but with any of the plausible programs; of rows, any small number."""
        problem = self._problem()
        if problem is None:
            return _final(str(int(rng.integers(100))))
        return (
            _run(problem.programs[int(rng.integers(len(problem.programs)))]) if not self._read else self.oracle_action()
        )

    def _problem(self) -> Problem | None:
        made = self._data.get("made")
        return None if made is None else _made(**made)


def _run(code: str) -> Message:
    return Message("assistant", "", (ToolCall("call_0", "python", {"code": code}),))


def _final(value: str) -> Message:
    return Message("assistant", f"\\boxed{{{value}}}")


@functools.lru_cache(maxsize=4096)  # siblings play the same problem, and a problem never changes
def _made(split: str, seed: int, index: int, changes: int) -> Problem:
    return make_problem(stream("maths", split, seed, index), test=split == "test", changes=changes)


def _made_up_task(split: str, seed: int, index: int, *, changes: int) -> Task:
    made = {"split": split, "seed": seed, "index": index, "changes": changes}
    problem = _made(**made)
    return _task(f"maths/{split}/{seed}/{index}", problem.question, {"answer": problem.answer, "made": made})


def _row_task(row: Row, split: str, config: MathsConfig) -> Task:
    answer = stated_answer(str(row.field(config.answer_field, object)))
    return _task(f"maths/{split}/{row.where}", row.field(config.question_field, str), {"answer": answer})


def _task(id: str, question: str, data: dict[str, object]) -> Task:
    return Task(id, (Message("system", _SYSTEM), Message("user", question)), data, environment="maths")
