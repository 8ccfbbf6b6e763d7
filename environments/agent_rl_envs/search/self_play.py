"""The `search_self_play` environment: one model asks questions for the search engine, and answers them.

Search Self-play (arXiv:2510.18821) in one episode, a conversation for each role: a proposer is given an answer,
searches, and asks a question that has it; the model has to find the answer in just the documents that the proposer was
shown, or the question does not count; then solvers, who know the question alone, search for it. Solvers earn what they
solve, the proposer what they do not. Tags name the roles (`proposer`, `check`, `solver/0`, ...), for the estimator
`roles`. The split `test` has the questions of `search`, so that what is measured is solving.
"""

from __future__ import annotations

import copy
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal, Self

import numpy as np
from pydantic import Field, model_validator

from agent_rl.rewards.text import tagged
from agent_rl.types import Message, Step, StepInfo, Task
from agent_rl_envs.search import prompts, scoring
from agent_rl_envs.search.config import SearchConfig
from agent_rl_envs.search.environment import SearchEnvironment

_ASK = "Give the question inside <question> and </question>."
_PROPOSE = (
    "You write questions that can only be answered by searching. You are given an answer. Search for what is known of "
    "it, and ask for it by facts that you found, through several of them if you can. Do not name the answer in the "
    f"question; it has to be the only one. {_ASK}"
)
_CHECK = "Answer the question from these documents alone."


class SelfPlayConfig(SearchConfig):
    """Options of `search_self_play`."""

    attempts: int = Field(default=4, ge=2, description="Solvers of each question, which are compared with each other.")
    valid_reward: float = Field(
        default=0.1, ge=0, description="What a question that counts earns its proposer beside the share that failed."
    )
    role_turns: int = Field(default=6, ge=1, description="Turns of a role; one that takes more has failed.")

    @model_validator(mode="after")
    def _answers_are_messages(self) -> Self:
        if self.answer == "submit":
            raise ValueError("self-play reads answers from messages: set answer to tags or plain.")
        return self


_DEFAULTS = SelfPlayConfig()


@dataclass(slots=True)
class _Play:
    """How far an episode has come."""

    role: Literal["proposer", "check", "solver"] = "proposer"
    turns: int = 0  # of this role
    documents: list[str] = field(default_factory=list[str])
    question: str = ""
    solved: list[float] = field(default_factory=list[float])

    @property
    def tag(self) -> str:
        return f"solver/{len(self.solved)}" if self.role == "solver" else self.role


class SelfPlayEnvironment(SearchEnvironment):
    """One answer, a question for it, and several attempts at the question."""

    config_type = SelfPlayConfig

    def __init__(self, config: SelfPlayConfig | None = None) -> None:
        super().__init__(config or _DEFAULTS)
        self._options = config or _DEFAULTS
        self._play: _Play | None = None  # in `test` nobody proposes

    @classmethod
    def tasks(cls, split: str, count: int, seed: int = 0, config: SearchConfig = _DEFAULTS) -> Sequence[Task]:
        """For `train` the answers of `search`'s questions, for `test` the questions."""
        questions = super().tasks(split, count, seed, config)
        return [_proposal(task) for task in questions] if split == "train" else questions

    async def reset(self, task: Task, seed: int) -> Sequence[Message]:
        """Open what is searched."""
        self._play = _Play() if task.data.get("proposing") else None
        return await super().reset(task, seed)

    async def step(self, action: Message) -> Step:
        """One turn of the role whose turn it is; the last one of a role opens the next one's conversation."""
        play = self._play
        if play is None:
            return await super().step(action)
        tag = play.tag
        play.turns += 1
        step = self._check(action) if play.role == "check" else await super().step(action)
        if play.role == "proposer":
            play.documents += [result.content for result in step.info.tool_results if result.error is None]
        if play.tag == tag and play.turns >= self._options.role_turns and not step.terminated:
            ended = self._attempted(0.0) if play.role == "solver" else _invalid()
            step = ended._replace(info=replace(ended.info, tool_results=step.info.tool_results))
        return step._replace(info=replace(step.info, tag=tag))

    async def answer(self, action: Message) -> Step:
        """What a proposer or a solver says without searching."""
        if self._play is None:
            return await super().answer(action)
        if self._play.role == "proposer":
            return self._propose(action)
        final = self._final(action)
        if final is None:
            return Step((Message("user", prompts.reminder(self._options.answer)),))
        return self._attempted(scoring.exact_match(final, self._data["answers"]))

    # --- roles ------------------------------------------------------------------------------------------------------

    def _propose(self, action: Message) -> Step:
        """A question without a search, or with the answer in it, is none."""
        play = self._playing
        question = tagged(action.content, "question")
        if question is None:
            return Step((Message("user", f"Search, or finish. {_ASK}"),))
        named = any(scoring.names(question, gold) for gold in self._data["answers"])
        if not play.documents or named:
            return _invalid()
        play.role, play.turns, play.question = "check", 0, question
        documents = "\n\n".join(dict.fromkeys(play.documents))
        system = f"{_CHECK} {prompts.how_to_answer(self._options.answer)}"
        return Step((Message("system", system), Message("user", f"{documents}\n\n{question}")))

    def _check(self, action: Message) -> Step:
        """The question counts if the documents that the proposer saw give the answer."""
        final = None if action.tool_calls else self._final(action)
        if final is None or not scoring.exact_match(final, self._data["answers"]):
            return _invalid()
        self._playing.role = "solver"
        return Step(self._opening())

    def _attempted(self, solved: float) -> Step:
        """The next solver's conversation, or the end, where it is known what the question was worth."""
        play, options = self._playing, self._options
        play.solved.append(solved)
        if len(play.solved) < options.attempts:
            return Step(self._opening(), solved)
        share = sum(play.solved) / len(play.solved)
        terms = {"valid": 1.0, "solved": share, "proposer": options.valid_reward + 1 - share}
        return Step((), solved, terminated=True, info=StepInfo(reward_terms=terms))

    def _opening(self) -> tuple[Message, ...]:
        self._playing.turns = 0
        self._forget()
        system = prompts.system_prompt(self._options.style, self._options.answer, cite=False)
        return Message("system", system), Message("user", self._playing.question)

    @property
    def _playing(self) -> _Play:
        assert self._play is not None, "somebody proposes"
        return self._play

    # --- references -------------------------------------------------------------------------------------------------

    def state_key(self) -> Hashable:
        """What the role whose turn it is has read."""
        play = self._play
        return super().state_key() if play is None else (play.tag, play.question, super().state_key())

    async def snapshot(self) -> object:
        """What the episode has seen, and how far it has come."""
        return await super().snapshot(), copy.deepcopy(self._play)

    async def restore(self, snapshot: object) -> None:
        """Continue from there, after `reset`."""
        assert isinstance(snapshot, tuple)
        seen, play = snapshot  # pyright: ignore[reportUnknownVariableType]
        await super().restore(seen)
        self._play = copy.deepcopy(play)  # pyright: ignore[reportUnknownArgumentType]

    def oracle_action(self) -> Message:
        """The proposer asks what the answer's own question asks; the others answer it."""
        action = super().oracle_action()
        if self._play is None or self._play.role == "solver":
            return action
        if self._play.role == "check":
            return self._answer(self._data["answers"][0])
        return action if action.tool_calls else self._asking()

    def random_action(self, rng: np.random.Generator) -> Message:
        """As the oracle, but solvers search at random."""
        if self._play is None or self._play.role == "solver":
            return super().random_action(rng)
        return self.oracle_action()

    def cheats(self) -> Mapping[str, Sequence[Message]]:
        """Questions that need no search, or that say their answer."""
        if self._play is None:
            return super().cheats()
        found = self._call("search", query=self._data["queries"][0])
        named = Message("assistant", f"<question>Say {self._data['answers'][0]}.</question>")
        return {"no search": [self._asking()], "the answer in the question": [found, named]}

    def _asking(self) -> Message:
        return Message("assistant", f"<question>{self._data['question']}</question>")


def _invalid() -> Step:
    return Step((), terminated=True, info=StepInfo(reward_terms={"valid": 0.0, "solved": 0.0, "proposer": 0.0}))


def _proposal(task: Task) -> Task:
    prompt = (Message("system", _PROPOSE), Message("user", f"The answer: {task.data['answers'][0]}"))
    data = {**task.data, "proposing": True}
    return replace(task, id=f"{task.id}/proposal", prompt=prompt, data=data, environment="search_self_play")
