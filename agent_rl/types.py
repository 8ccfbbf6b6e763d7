"""The vocabulary: frozen records that the other modules exchange. No behaviour beyond small derived properties.

Messages follow the OpenAI chat format. Arrays carry their shape in the name: `T` tokens of one segment, `R` tokens
of one response, `G` members of one group. Nothing here imports torch.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import field
from enum import StrEnum
from typing import Any, Literal, NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray

from agent_rl.frozen import record

JSON: TypeAlias = Mapping[str, Any]
IntArray: TypeAlias = NDArray[np.int32]
FloatArray: TypeAlias = NDArray[np.float32]
BoolArray: TypeAlias = NDArray[np.bool_]
Role: TypeAlias = Literal["system", "user", "assistant", "tool"]


# --- messages -------------------------------------------------------------------------------------------------------


@record
class ToolCall:
    """A request by the model to run one tool. `error` is set when it could not be parsed (`name` may be empty then)."""

    id: str
    name: str
    arguments: JSON
    error: str | None = None


@record
class Message:
    """One chat message (OpenAI chat format). Tool results have role `tool` and the `tool_call_id` they answer."""

    role: Role
    content: str
    tool_calls: tuple[ToolCall, ...] = ()
    tool_call_id: str | None = None
    reasoning_content: str | None = None


def opens_conversation(messages: Sequence[Message]) -> bool:
    """Whether what an environment says begins a conversation: its first message has the role `system`.

    Another role of the same model takes over, which sees nothing of what was said before.
    """
    return bool(messages) and messages[0].role == "system"


# --- tasks ----------------------------------------------------------------------------------------------------------


@record
class Task:
    """One problem. `data` is for the environment and its scorer; the model never sees it."""

    id: str
    prompt: tuple[Message, ...]
    data: JSON = field(default_factory=dict[str, Any])
    environment: str = ""
    tags: tuple[str, ...] = ()


@record
class Guidance:
    """Help for one attempt, given because others had failed: a text to read, or actions that are played beforehand.

    `kind` says what made it. `round` counts from 1 how often the group had been guided, more strongly each time.
    """

    kind: str
    text: str = ""
    actions: tuple[Message, ...] = ()
    round: int = 1


# --- failures -------------------------------------------------------------------------------------------------------


class Owner(StrEnum):
    """Who is to blame for a failure."""

    MODEL = "model"
    TOOL = "tool"
    ENVIRONMENT = "environment"
    SANDBOX = "sandbox"
    PROVIDER = "provider"
    GRADER = "grader"
    FRAMEWORK = "framework"


@record
class Failure:
    """A failure as data: what happened (`timeout`, `crash`, ...), in which stage, and who owns it."""

    kind: str
    owner: Owner
    stage: str
    message: str
    traceback: str = ""
    retryable: bool = True


# --- one step of an environment -------------------------------------------------------------------------------------


@record
class ToolResult:
    """What became of one tool call. `error` names the model's mistake or a timeout; the model reads `content`."""

    call: ToolCall
    content: str
    error: str | None
    duration_s: float

    @property
    def malformed(self) -> bool:
        """Whether no tool could be called at all: the model has to write the call anew."""
        return self.error in ("parse_error", "unknown_tool", "bad_arguments")


@record
class StepInfo:
    """What an environment reports beside the reward.

    `reward_terms` are what the reward is made of, by name, before weights. `metrics` add up over the steps of an
    episode into its trajectory's.
    `tag` says what kind of action this was (`plan`, `explore`) or whose (`proposer`, `solver`), for credit that
    compares like with like.
    """

    tool_results: tuple[ToolResult, ...] = ()
    reward_terms: Mapping[str, float] = field(default_factory=dict[str, float])
    metrics: Mapping[str, float] = field(default_factory=dict[str, float])
    tag: str = ""


class Step(NamedTuple):
    """What `Environment.step` returns; unpacks like gymnasium's five-tuple."""

    messages: tuple[Message, ...]
    reward: float = 0.0
    terminated: bool = False
    truncated: bool = False
    info: StepInfo = StepInfo()


# --- generation -----------------------------------------------------------------------------------------------------


class FinishReason(StrEnum):
    """Why one generation ended. `STOP`: a stop token or string was sampled (it is the last of `token_ids`)."""

    STOP = "stop"
    LENGTH = "length"
    ABORT = "abort"


@record
class SamplingParams:
    """How to sample. `temperature` 0 is greedy. `stop` strings are matched on decoded text and kept in the output."""

    max_tokens: int = 512
    temperature: float = 1.0
    top_p: float = 1.0
    top_k: int = 0
    stop_token_ids: tuple[int, ...] = ()
    stop: tuple[str, ...] = ()


@record(eq=False)
class Generation:
    """What an engine sampled: ids, log-probs at the sampling temperature (fp32), weight version of each token."""

    token_ids_R: IntArray
    logprobs_R: FloatArray
    weight_versions_R: IntArray
    finish_reason: FinishReason


@record
class Usage:
    """What one response cost, in tokens: the whole prompt that it continues, and what was sampled."""

    prompt_tokens: int
    sampled_tokens: int


# --- trajectories ---------------------------------------------------------------------------------------------------


class StopReason(StrEnum):
    """Why an episode ended. Only `TERMINATED` is an end of the task itself; all others are truncations or failures."""

    TERMINATED = "terminated"
    ENVIRONMENT_TRUNCATED = "environment_truncated"
    MAX_TURNS = "max_turns"
    MAX_TOKENS = "max_tokens"
    MAX_TOOL_CALLS = "max_tool_calls"
    MAX_MISTAKES = "max_mistakes"
    TIME_LIMIT = "time_limit"
    RESPONSE_LENGTH = "response_length"
    FAILURE = "failure"


@record(eq=False)
class Segment:
    """One unbroken token row of an episode. An episode has several when its history was rewritten.

    `response_mask_T` is true exactly on sampled tokens; there `rollout_logprobs_T` and `weight_versions_T` are those
    of the sampler, elsewhere 0 and -1.
    """

    token_ids_T: IntArray
    response_mask_T: BoolArray
    rollout_logprobs_T: FloatArray
    weight_versions_T: IntArray


@record(eq=False)
class Turn:
    """One action of the model and what the environment said to it.

    `start:end` is the span of the sampled tokens in segment `segment` (equal when the agent has no tokens).
    `state_key` identifies the environment state the action was taken in, for credit that groups by state.
    `began_s` counts from the beginning of the episode. `internal` turns are the agent's own, such as a summary of what
    came before: the environment never saw them. `tag` is what the environment called the action.
    """

    index: int
    segment: int
    start: int
    end: int
    action: Message
    observations: tuple[Message, ...]
    reward: float
    reward_terms: Mapping[str, float]
    tool_results: tuple[ToolResult, ...]
    finish_reason: FinishReason
    state_key: Hashable | None = None
    began_s: float = 0.0
    generation_s: float = 0.0
    step_s: float = 0.0
    internal: bool = False
    tag: str = ""


@record(eq=False)
class Trajectory:
    """One episode as data. `reward` is the sum over turns; `failure` is set when it must not count at all.

    `earlier_failures` ended the attempts before this one. `began_at` is in Unix seconds. `tools` are the definitions
    that the model was shown, OpenAI function dictionaries. `guidance` is what helped it, as no episode outside of
    training is helped.
    """

    task: Task
    group_index: int
    member: int
    seed: int
    prompt: tuple[Message, ...]
    segments: tuple[Segment, ...]
    turns: tuple[Turn, ...]
    stop_reason: StopReason
    failure: Failure | None = None
    began_at: float = 0.0
    setup_s: float = 0.0
    duration_s: float = 0.0
    earlier_failures: tuple[Failure, ...] = ()
    metrics: Mapping[str, float] = field(default_factory=dict[str, float])
    tools: tuple[JSON, ...] = ()
    guidance: Guidance | None = None

    @property
    def reward(self) -> float:
        """Sum of the turns' rewards."""
        return sum(turn.reward for turn in self.turns)

    @property
    def attempts(self) -> int:
        """How often it was begun."""
        return len(self.earlier_failures) + 1

    @property
    def failures(self) -> tuple[Failure, ...]:
        """Of all attempts, in their order."""
        return self.earlier_failures if self.failure is None else (*self.earlier_failures, self.failure)

    @property
    def steps(self) -> int:
        """Turns that the environment saw."""
        return sum(not turn.internal for turn in self.turns)

    @property
    def terminated(self) -> bool:
        """Whether the task itself ended."""
        return self.stop_reason is StopReason.TERMINATED

    @property
    def truncated(self) -> bool:
        """Whether a limit ended it, so that more could have come."""
        return not self.terminated and self.failure is None

    @property
    def interrupted(self) -> bool:
        """Whether a critic should say what was to come: a limit ended it, and not one that the agent itself broke.

        Where a response without an end, or mistake after mistake, ends an episode, nothing comes any more: if a critic
        guessed what might have, rambling would be worth as much as going on.
        """
        return self.truncated and self.stop_reason not in (StopReason.RESPONSE_LENGTH, StopReason.MAX_MISTAKES)

    @property
    def sampled_tokens(self) -> int:
        """Tokens that the model sampled, in all segments."""
        return sum(int(segment.response_mask_T.sum()) for segment in self.segments)


@record(eq=False)
class Group:
    """The siblings of one task. `index` is the logical order in which groups are consumed."""

    index: int
    task: Task
    trajectories: tuple[Trajectory, ...]

    @property
    def valid(self) -> tuple[Trajectory, ...]:
        """Members that count: infrastructure failures are excluded from statistics and training."""
        return tuple(t for t in self.trajectories if t.failure is None)


# --- training -------------------------------------------------------------------------------------------------------


@record(eq=False)
class TrainingRow:
    """One segment with its credit: what the learner sees. All arrays have one entry per token of the segment.

    `weights_T` is the explicit weight of each token in the loss (0 on tokens that are not trained). A plain sum of
    `weights_T * loss_T` over all rows of a batch is the batch's loss, however rows are split, packed or padded.
    `turns_T` numbers the turn of each sampled token (none: a row is one turn), `returns_T` is what a value head on the
    policy learns.
    """

    token_ids_T: IntArray
    response_mask_T: BoolArray
    rollout_logprobs_T: FloatArray
    advantages_T: FloatArray
    weights_T: FloatArray
    weight_versions_T: IntArray
    turns_T: IntArray | None = None
    returns_T: FloatArray | None = None
