"""The `search` environment: a question, `search` and `visit`, and an answer that may cite what it rests on.

The reward is a weighted sum of terms on the answer (`scoring`). What a search shows becomes part of the context but is
never sampled, so that it is never trained on. An index that cannot be read or an engine that does not answer is a
failure of the tool, never a reward of 0.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from agent_rl.errors import not_found
from agent_rl.grading import grade
from agent_rl.rewards import weighted
from agent_rl.rewards.judge import shared_judge
from agent_rl.rewards.text import tagged
from agent_rl.rows import sample_rows
from agent_rl.seeding import stream
from agent_rl.tool import ToolEnvironment
from agent_rl.tool.toolset import OffersTools
from agent_rl.types import JSON, Message, Step, StepInfo, Task, ToolCall
from agent_rl_envs.search import prompts, scoring
from agent_rl_envs.search.backends import backend_of, index_of_rows
from agent_rl_envs.search.config import SearchConfig
from agent_rl_envs.search.formats import Question, question_of
from agent_rl_envs.search.world import make_chain, make_world
from agent_rl_tools.search import SearchTool
from agent_rl_tools.submit import SubmitTool
from agent_rl_tools.visit import VisitTool

_DEFAULTS = SearchConfig()
_HEADER = re.compile(r"^\[([^\[\]\n]+)\](?: (.*))?$", re.MULTILINE)
_YES = "yes"
_PATIENCE = 200  # questions in a row that were asked already


class SearchEnvironment(ToolEnvironment):
    """One question that is answered by searching and reading."""

    config_type = SearchConfig

    def __init__(self, config: SearchConfig | None = None) -> None:
        self._config = config or _DEFAULTS
        self._data: JSON = {}
        self._shown: dict[str, str] = {}  # titles of passages by id
        self._read: list[str] = []  # digests of what the tools said
        self._asked: list[str] = []  # the queries
        self._well_formed = True

    @classmethod
    def tasks(cls, split: str, count: int, seed: int = 0, config: SearchConfig = _DEFAULTS) -> Sequence[Task]:
        """`count` questions, generated or drawn from the rows; tags say how many hops, or the row's own type.

        An index of the rows' own passages is built here, when there is none: that may take longer than a setup may.
        """
        if split not in ("train", "test"):
            raise not_found("split", split, ("train", "test"))
        if not config.rows.source:
            return _generated(split, count, seed, config)
        tasks = [_task(config, question, split) for question in _drawn(split, count, seed, config)]
        if config.corpus.kind == "own":
            index_of_rows(config, split)
        return tasks

    async def reset(self, task: Task, seed: int) -> Sequence[Message]:
        """Open what is searched. `seed` is not used: siblings have one corpus."""
        config, self._data = self._config, task.data
        backend = await backend_of(task, config)
        search = SearchTool(backend.retriever, results=config.results, max_chars=config.max_passage_chars)
        toolsets: list[OffersTools] = [search]
        if config.visit and backend.pages is not None:
            toolsets.append(VisitTool(backend.pages, max_chars=config.max_page_chars))
        if config.answer == "submit":
            toolsets.append(SubmitTool())
        self.toolsets = toolsets
        return task.prompt

    async def step(self, action: Message) -> Step:
        """As every environment with tools; notes which passages were shown, also where a result came from a cache."""
        step = await super().step(action)
        results = [result for result in step.info.tool_results if result.error is None]
        for result in results:
            self._shown |= {id: title or "" for id, title in _HEADER.findall(result.content)}
            self._read.append(hashlib.blake2b(result.content.encode(errors="replace"), digest_size=8).hexdigest())
        names = [result.call.name for result in results]
        self._asked += [str(result.call.arguments["query"]) for result in results if result.call.name == "search"]
        metrics = {"searches": float(names.count("search")), "visits": float(names.count("visit"))}
        return step._replace(info=replace(step.info, metrics={**metrics, **step.info.metrics}))

    def _forget(self) -> None:
        """Begin to search anew."""
        self._shown, self._read, self._asked, self._well_formed = {}, [], [], True

    async def answer(self, action: Message) -> Step:
        """Score the answer; what is none is answered with a reminder of how to give one."""
        final = self._final(action)
        if final is None:
            self._well_formed = False
            return Step((Message("user", prompts.reminder(self._config.answer)),))
        terms = dict(await grade(self._terms, action.content, final))
        if self._config.judge is not None:
            judge = await shared_judge(self._config.judge)
            terms["judge"] = await judge.score(self._data["question"], final, self._data["answers"][0])
        return Step((), weighted(terms, self._config.weights), terminated=True, info=StepInfo(reward_terms=terms))

    def _final(self, action: Message) -> str | None:
        """The answer that a message states, without its citations; `None` where it states none."""
        if self._config.answer == "tags":
            text = tagged(action.content, "answer")
        elif self._config.answer == "submit":
            submitted = any(getattr(toolset, "submitted", None) is not None for toolset in self.toolsets)
            text = action.content if submitted else None
        else:
            text = action.content
        return (scoring.without_citations(text) or None) if text is not None else None

    def _terms(self, text: str, final: str) -> Mapping[str, float]:
        golds, support = self._data["answers"], self._data["support"]
        terms = {
            "exact_match": scoring.exact_match(final, golds),
            "f1": scoring.f1(final, golds),
            "cover_exact_match": scoring.cover_exact_match(final, golds),
            "format": float(self._well_formed),
        }
        if support and self._config.cite:
            precision, recall = scoring.citation_scores(text, self._shown, support)
            terms |= {"citation_precision": precision, "citation_recall": recall}
        return terms

    # --- references -------------------------------------------------------------------------------------------------

    def state_key(self) -> Hashable:
        """What has been read so far: the corpus never changes."""
        return (*self._read, self._well_formed)

    async def snapshot(self) -> object:
        """What the episode has seen."""
        return dict(self._shown), list(self._read), list(self._asked), self._well_formed

    async def restore(self, snapshot: object) -> None:
        """Continue from there, after `reset`."""
        state: Any = snapshot
        shown, read, asked, self._well_formed = state
        self._shown, self._read, self._asked = dict(shown), list(read), list(asked)

    def oracle_action(self) -> Message:
        """Search for each link of the chain (or each page that gives the answer), then answer and cite them."""
        queries: Sequence[str] = self._data["queries"]
        if len(self._asked) < len(queries):
            return self._call("search", query=queries[len(self._asked)])
        support = {name.casefold() for name in self._data["support"]}
        cited = [id for id, title in self._shown.items() if {id.casefold(), title.casefold()} & support]
        return self._answer(self._data["answers"][0], cited if self._config.cite else ())

    def random_action(self, rng: np.random.Generator) -> Message:
        """In the made-up world as many searches as there are hops, but for any relation; then what these led to.

        Elsewhere a search for words of the question or for a title that was shown, a visit, or a title as the answer.
        """
        if "world" in self._data:
            return self._wander(rng)
        titles = sorted({title for title in self._shown.values() if title})
        move = rng.random()
        if not titles or move < 0.4:
            words = self._data["question"].split()
            chosen = sorted(rng.permutation(len(words))[: int(rng.integers(2, 6))])
            return self._call("search", query=" ".join(words[i] for i in chosen))
        title = titles[int(rng.integers(len(titles)))]
        if move < 0.6:
            return self._call("search", query=title)
        if move < 0.7 and any(tool.name == "visit" for tool in self.tools):
            return self._call("visit", page=title)
        return self._answer(title, list(self._shown)[:1] if self._config.cite else ())

    def _wander(self, rng: np.random.Generator) -> Message:
        world = make_world(**self._data["world"])
        place = next(entity for entity in world.entities if entity.name in self._data["question"])
        for query in self._asked:
            place = next((fact.object for fact in world.about[place] if fact.query == query), place)
        if len(self._asked) == len(self._data["queries"]):
            return self._answer(place.name, list(self._shown) if self._config.cite else ())
        facts = world.about[place]
        return self._call("search", query=facts[int(rng.integers(len(facts)))].query)

    def cheats(self) -> Mapping[str, Sequence[Message]]:
        """Answers that know nothing: the question, yes, and every name there is, for terms that look for a part."""
        names = [entity.name for entity in make_world(**self._data["world"]).entities] if "world" in self._data else []
        made_up = [f"p{i}" for i in range(1_000)]
        return {
            "the question": [self._answer(self._data["question"])],
            "yes": [self._answer(_YES)],
            "every name": [self._answer(", ".join([*names, *self._data["answers"]] if names else [_YES]))],
            "citing everything": [self._answer(_YES, made_up)],
        }

    def _answer(self, text: str, cited: Sequence[str] = ()) -> Message:
        brackets = "".join(f" [{id}]" for id in cited)
        if self._config.answer == "submit":
            return self._call("submit", answer=text + brackets)
        return Message("assistant", (f"<answer>{text}</answer>" if self._config.answer == "tags" else text) + brackets)

    def _call(self, name: str, **arguments: str) -> Message:
        return Message("assistant", "", (ToolCall(f"call_{len(self._read)}", name, arguments),))


def _generated(split: str, count: int, seed: int, config: SearchConfig) -> Sequence[Task]:
    """Questions over one world, none twice; fewer where the world has no more."""
    origin = {"split": split, "seed": seed, "size": config.entities}
    world = make_world(**origin)
    rng = stream("search", "questions", split, seed, config.hops)
    tasks: dict[str, Task] = {}
    missed = 0
    while len(tasks) < count and missed < _PATIENCE:
        chain = make_chain(world, config.hops, rng)
        data = {
            "world": origin,
            "question": chain.question,
            "answers": [chain.answer],
            "support": [fact.id for fact in chain.facts],
            "queries": [fact.query for fact in chain.facts],
        }
        missed = missed + 1 if chain.question in tasks else 0
        if not missed:
            tag = f"{config.hops}_hop{'s' if config.hops > 1 else ''}"
            id = f"search/{split}/{seed}/{config.hops}/{len(tasks)}"
            tasks[chain.question] = Task(id, _prompt(config, chain.question), data, "search", (tag,))
    return list(tasks.values())


def _drawn(split: str, count: int, seed: int, config: SearchConfig) -> Sequence[Question]:
    """`count` questions of the rows; more rows are drawn where some cannot be answered."""
    rows = count
    while True:
        drawn = sample_rows(config.rows, split, rows, seed)
        read = [question_of(row, config.format) for row in drawn]
        questions = [question for question in read if question is not None]
        if len(questions) >= count or len(drawn) < rows:
            return questions[:count]
        rows *= 2


def _task(config: SearchConfig, question: Question, split: str) -> Task:
    data = {
        "split": split,
        "question": question.text,
        "answers": list(question.answers),
        "support": list(question.support),
        "queries": list(question.support),
    }
    tags = (config.format, question.kind)
    return Task(f"search/{config.format}/{question.id}", _prompt(config, question.text), data, "search", tags)


def _prompt(config: SearchConfig, question: str) -> tuple[Message, ...]:
    system = prompts.system_prompt(config.style, config.answer, cite=config.cite)
    return Message("system", system), Message("user", question)
