"""Token fidelity: what is sampled is what is trained on, masks are right, log-probs agree, calls are read as written.

Two kinds of episodes are examined: demonstrations, which the template writes and an engine "samples" as they are, and,
where the weights are at hand, episodes of the model itself. Both run through the code that training runs. Nothing is
downloaded that `transformers` would not load, and nothing is trained.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import anyio
from pydantic import Field
from rich import box
from rich.console import Group
from rich.table import Table
from rich.text import Text

from agent_rl.chat.codec import ChatCodec
from agent_rl.config import Config
from agent_rl.doctor.checks import (
    LOGPROBS,
    Check,
    check_contexts,
    check_history,
    check_logprobs,
    check_masks,
    check_parser,
    check_round_trip,
    check_sampled_ids,
)
from agent_rl.doctor.conversations import AWKWARD, Replay, scripts
from agent_rl.doctor.episodes import Case, Demonstrator, Played, play
from agent_rl.engine.base import Engine
from agent_rl.environment import Environment
from agent_rl.errors import ModelError, UserError
from agent_rl.evaluate.actor import model_source
from agent_rl.registry import environment_spec
from agent_rl.rollout.limits import RolloutLimits
from agent_rl.seeding import stream
from agent_rl.types import Message, Task

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

_LIMITS = RolloutLimits(max_context_tokens=2**20)  # demonstrations meet no context of a model
_COLORS = {"ok": "green", "note": "yellow", "failed": "bold red", "skipped": "dim"}


class TokensConfig(Config):
    """Prove that a model's sampled tokens, masks and log-probs reach the trainer unchanged."""

    model: str = Field(description="Hub id, model folder, checkpoint, or run folder; a tokenizer alone will do.")
    env: str | None = Field(
        default=None, description="Registered environment whose episodes are examined; none: conversations made for it."
    )
    environment_options: dict[str, int | float | bool | str] = Field(
        default_factory=dict, description="Options of the environment's tasks."
    )
    split: str = Field(default="train", description="Which tasks of the environment.")
    tasks: int = Field(default=4, ge=1, description="Tasks of the environment.")
    tool_parser: str = Field(default="hermes", description="Format of tool calls, by vLLM's name of the parser.")
    max_weights_gib: float = Field(
        default=4.0, ge=0, description="Weights above this are not loaded: then only the tokens are examined."
    )
    tolerance: float = Field(
        default=1e-3, gt=0, description="Largest difference of log-probs (nats); for bfloat16 take 0.1."
    )
    dtype: str = Field(default="float32", description="Type of the weights: float32, bfloat16 or float16.")
    device: str = Field(default="cpu", description="Where the model runs, such as cpu or cuda.")
    seed: int = Field(default=0, ge=0, description="Key of every random stream.")


def run(config: TokensConfig) -> list[Check]:
    """What `agent-rl doctor tokens` does. Raises `UserError` for a model, parser or environment that is not there."""
    model, tokenizer = _load(config)
    codec = ChatCodec(tokenizer, config.tool_parser)
    cases = mock_cases(tokenizer) if config.env is None else _environment_cases(config, config.env)
    return anyio.run(partial(examine, config, codec, cases, model))


async def examine(
    config: TokensConfig,
    codec: ChatCodec,
    cases: Sequence[Case],
    model: PreTrainedModel | None = None,
    make_engine: Callable[[PreTrainedModel, int], Engine] | None = None,
) -> list[Check]:
    """All checks of `codec` and, if there is one, of `model`.

    `make_engine(model, max_context)` makes the engine to examine; by default it is the local one.
    """
    demonstrated, refusals = await _demonstrations(codec, cases, config.seed)
    checks = [
        _check_template(demonstrated, refusals),
        check_round_trip(codec, list(dict.fromkeys([*AWKWARD, *_texts(demonstrated)]))),
        check_contexts(codec, demonstrated),
        check_history(codec, demonstrated),
        check_parser(codec, demonstrated, config.tool_parser),
    ]
    sampled: list[Played] = []
    if model is None:
        logprobs = Check(LOGPROBS, "skipped", f"no weights of at most {config.max_weights_gib:g} GiB on this machine")
    else:
        from agent_rl.doctor.model import forward_logprobs, sampled_by

        try:
            sampled = await sampled_by(model, codec, cases, config.seed, make_engine)
            logprobs = check_logprobs(codec, forward_logprobs(model, sampled), config.tolerance)
        except UserError as error:
            mend = "Train with a model that the engine and the learner support."
            logprobs = Check(LOGPROBS, "failed", str(error), mend)
    episodes = [*demonstrated, *sampled]
    return [*checks, check_sampled_ids(codec, episodes), check_masks(codec, episodes), logprobs]


def to_table(checks: Sequence[Check], title: str = "") -> Group:
    """The verdicts as a table, and below it what to do about those that are not fine, with the evidence."""
    table = Table(title=Text(title) if title else None, box=box.SIMPLE_HEAD, show_edge=False)
    for column in ("check", "", "found"):
        table.add_column(column)
    for check in checks:
        table.add_row(Text(check.name), Text(check.verdict, _COLORS[check.verdict]), Text(check.found))
    remarks: list[Text] = []
    for check in checks:
        if check.mend:
            remarks.append(Text.assemble("\n", (f"{check.name}: ", _COLORS[check.verdict]), check.mend))
            remarks += [Text(f"  {line}") for line in check.evidence.splitlines()]
    return Group(table, *remarks)


# --- what is played -------------------------------------------------------------------------------------------------


def mock_cases(tokenizer: PreTrainedTokenizerBase) -> list[Case]:
    """Conversations that need no environment."""
    special_tokens = [str(token) for token in tokenizer.all_special_tokens]
    return [Case(Task(s.name, s.prompt), partial(Replay, s)) for s in scripts(special_tokens)]


def _environment_cases(config: TokensConfig, name: str) -> list[Case]:
    environment = environment_spec(name, config.environment_options)
    tasks = environment.tasks(config.split, config.tasks, config.seed)
    return [Case(task, partial(environment, task)) for task in tasks]


async def _demonstrations(
    codec: ChatCodec, cases: Iterable[Case], seed: int
) -> tuple[list[Played], list[tuple[str, str]]]:
    """Episodes of the environments' references, and the tasks that the template refuses, with its reasons."""
    played: list[Played] = []
    refusals: list[tuple[str, str]] = []
    for case in cases:
        try:
            played.append(await play(case, partial(_demonstrator, codec, seed), codec, _LIMITS, seed))
        except ModelError as error:
            refusals.append((case.task.id, str(error)))
    return played, refusals


def _demonstrator(codec: ChatCodec, seed: int, environment: Environment) -> Demonstrator:
    """Plays the oracle, or the random agent where there is none."""
    rng = stream(seed, "demonstrations")

    def choose() -> Message:
        try:
            return environment.oracle_action()
        except NotImplementedError:
            pass
        try:
            return environment.random_action(rng)
        except NotImplementedError as error:
            raise UserError(f"{error}, nor an oracle: nobody can demonstrate an episode; leave out --env.") from error

    return Demonstrator(codec, choose)


def _texts(episodes: Iterable[Played]) -> list[str]:
    messages = [
        message
        for played in episodes
        for observed in (played.trajectory.prompt, *(turn.observations for turn in played.trajectory.turns))
        for message in observed
    ]
    return [message.content for message in messages]


def _check_template(demonstrated: Sequence[Played], refusals: Sequence[tuple[str, str]]) -> Check:
    name = "the template writes every conversation"
    total = len(demonstrated) + len(refusals)
    if not refusals:
        return Check(name, "ok" if total else "skipped", f"{total} conversations")
    mend = "Use a template that can, or leave out what it cannot write (tools, system messages) in your environment."
    evidence = "\n".join(f"{task}: {reason}" for task, reason in refusals)
    return Check(name, "failed", f"{len(refusals)} of {total} conversations cannot be written.", mend, evidence)


# --- what is examined -----------------------------------------------------------------------------------------------


def _load(config: TokensConfig) -> tuple[PreTrainedModel | None, PreTrainedTokenizerBase]:
    """Model and tokenizer; no model if there are no weights on this machine, or too many."""
    source = model_source(config.model)
    if 0 < _weight_bytes(source) <= config.max_weights_gib * 2**30:
        from agent_rl.learner.policy import load_policy

        return load_policy(source, dtype=config.dtype, device=config.device)
    from transformers import AutoTokenizer

    try:
        return None, AutoTokenizer.from_pretrained(source)
    except (OSError, ValueError, KeyError) as error:
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise ModelError(f"Cannot load a tokenizer from {source!r}: {reason}") from error


def _weight_bytes(source: str) -> int:
    """Size of the weights in a folder, or of those that the hub's cache holds."""
    folder = Path(source)
    if not folder.is_dir():
        from huggingface_hub import snapshot_download
        from huggingface_hub.errors import LocalEntryNotFoundError

        try:
            folder = Path(snapshot_download(source, local_files_only=True))
        except (LocalEntryNotFoundError, ValueError):  # not in the cache, or not a hub id
            return 0
    return sum(file.stat().st_size for pattern in ("*.safetensors", "*.bin") for file in folder.glob(pattern))
