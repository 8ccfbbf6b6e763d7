"""What one training run can be told: the options of `agent_rl.train.train`."""

from __future__ import annotations

from typing import Any, Self, cast

from pydantic import Field, model_validator

from agent_rl.chat.parsers import ToolParserName
from agent_rl.cluster_config import ClusterConfig
from agent_rl.config import Config
from agent_rl.credit import get_estimator, get_shaping
from agent_rl.credit.rows import Aggregation
from agent_rl.engine.choose import EngineConfig
from agent_rl.errors import UserError
from agent_rl.guidance.config import GuidanceConfig
from agent_rl.imitation import ImitationConfig
from agent_rl.learner.config import LearnerConfig
from agent_rl.learner.critic_config import CriticConfig
from agent_rl.learner.utterance_critic import UtteranceCriticConfig
from agent_rl.rollout.context import ContextConfig
from agent_rl.rollout.limits import RolloutLimits
from agent_rl.store.url import StoreAddress
from agent_rl.tool.config import ToolsConfig
from agent_rl.trackers.config import TrackersConfig


class TrainConfig(Config):
    """What one training run does with the model and the environment that it is given."""

    steps: int = Field(default=100, ge=1, description="Training steps, one batch of groups each.")
    groups_per_batch: int = Field(default=32, ge=1, description="Groups in one batch.")
    group_size: int = Field(default=8, ge=1, description="Episodes of one task.")
    max_staleness: int = Field(
        default=0, ge=0, description="Steps that a group may lag behind; 0: on-policy, 1: rolls out while it learns."
    )
    overtake: int = Field(
        default=0,
        ge=0,
        description="Running groups that a finished one may overtake into a batch; 0: batches in logical order.",
    )
    min_group_members: int = Field(
        default=2, ge=2, description="Valid members below which a group is not trained on, after failures and retries."
    )
    refills_per_batch: int = Field(
        default=0,
        ge=0,
        description="Groups without learning signal that are replaced in each batch (DAPO's dynamic sampling).",
    )
    estimator: str = Field(default="grpo", description="Credit: grpo, rloo, gigpo, ...; docs/credit.md has them all.")
    estimator_options: dict[str, float] = Field(
        default_factory=dict[str, float], description="The estimator's own options, such as gamma 0.95."
    )
    shaping: str | None = Field(
        default=None,
        description="Rewards that credit sees instead: clip_process, delta_process, concise, role_rewards.",
    )
    shaping_options: dict[str, float | str] = Field(
        default_factory=dict[str, float | str], description="The shaping's own options, such as at 0.5."
    )
    reward_band: tuple[float, float] | None = Field(
        default=None, description="Train on groups whose mean reward is in here only: neither too hard nor too easy."
    )
    aggregation: Aggregation = Field(
        default="token_mean", description="What weighs the same in the loss: tokens, episodes or groups (prompts)."
    )
    temperature: float = Field(default=1.0, gt=0, description="Sampling temperature of rollouts.")
    tool_parser: ToolParserName = Field(
        default="hermes", description="Format of tool calls, by vLLM's name of the parser."
    )
    max_concurrent_episodes: int = Field(default=256, ge=1, description="Episodes in flight; rows of the local engine.")
    max_attempts: int = Field(default=3, ge=1, description="Attempts at an episode that infrastructure failures end.")
    limits: RolloutLimits = Field(default_factory=RolloutLimits, description="Limits of one episode.")
    engine: EngineConfig = Field(default_factory=EngineConfig, description="Where responses are sampled.")
    context: ContextConfig = Field(default_factory=ContextConfig, description="What happens to long contexts.")
    cluster: ClusterConfig | None = Field(
        default=None, description="Processes on one or many machines, with Ray; none: one process."
    )
    tools: ToolsConfig = Field(default_factory=ToolsConfig, description="How the environment's tools are run.")
    learner: LearnerConfig = Field(default_factory=LearnerConfig, description="Loss and optimiser.")
    imitation: ImitationConfig = Field(
        default_factory=ImitationConfig, description="What is imitated, where learner.imitation is set."
    )
    guidance: GuidanceConfig = Field(
        default_factory=GuidanceConfig, description="What groups that failed are given for further attempts."
    )
    critic: CriticConfig = Field(
        default_factory=CriticConfig, description="How values of tokens are learned, for estimators that use them."
    )
    utterance_critic: UtteranceCriticConfig = Field(
        default_factory=UtteranceCriticConfig, description="How values of whole turns are learned, for archer."
    )
    deterministic: bool = Field(
        default=False, description="Batch-invariant engine: slower, the same samples under any load."
    )
    checkpoint_every: int = Field(default=20, ge=1, description="Steps between checkpoints.")
    keep_checkpoints: int = Field(default=2, ge=1, description="Checkpoints that stay on disk.")
    trained_tokens_every: int = Field(
        default=1,
        ge=0,
        description="Every n-th step, keep what the trainer saw of each token: log-prob, advantage, entropy. 0: never.",
    )
    store: StoreAddress = Field(
        default="", description="URL of a PostgreSQL that keeps the episodes; none: store.db in the run's folder."
    )
    store_timeout_s: float = Field(
        default=30.0, gt=0, description="How long the store may be locked or away before the run stops."
    )
    opentelemetry: bool = Field(
        default=False,
        description="Send a span of each episode to where the OTEL_* variables say (needs the extra otel).",
    )
    trackers: TrackersConfig = Field(
        default_factory=TrackersConfig, description="Where metrics go besides metrics.jsonl."
    )
    seed: int = Field(default=0, ge=0, description="Key of every random stream of the run.")

    @model_validator(mode="before")
    @classmethod
    def _options_belong_to_their_estimator(cls, given: Any) -> Any:
        """Where a recipe has an estimator with options, another one that is asked for begins without them."""
        usual = cls.model_fields["estimator"].default
        if isinstance(given, dict) and cast("dict[str, Any]", given).get("estimator", usual) != usual:
            return {"estimator_options": {}, **given}
        return cast("Any", given)

    @model_validator(mode="after")
    def _known_credit(self) -> Self:
        try:
            estimator = get_estimator(self.estimator, self.estimator_options)
            get_shaping(self.shaping, self.shaping_options)
        except UserError as error:  # pydantic explains a `ValueError`
            raise ValueError(str(error)) from error
        if self.reward_band is not None and self.reward_band[0] > self.reward_band[1]:
            raise ValueError(f"reward_band {self.reward_band} holds nothing: write the lower bound first.")
        uses_turns = estimator.critic == "utterance"
        uses_tokens = estimator.critic == "token" or (uses_turns and self.utterance_critic.token_baseline)
        if not uses_tokens and self.critic != CriticConfig():
            raise ValueError(
                f"the estimator {self.estimator} uses no critic of tokens: leave out critic, or take token_gae."
            )
        if uses_turns and self.critic.trunk == "policy":
            raise ValueError("a baseline beside archer has a decoder of its own: leave out critic.trunk.")
        if not uses_turns and self.utterance_critic != UtteranceCriticConfig():
            raise ValueError(
                f"the estimator {self.estimator} uses no critic of turns: leave out utterance_critic, or take archer."
            )
        if self.learner.imitation is None and self.imitation != ImitationConfig():
            raise ValueError(
                "nothing says how to imitate: set learner.imitation, such as learner.imitation.coefficient."
            )
        own_successes = self.learner.imitation is not None and self.imitation.demonstrations is None
        if self.guidance.credit == "imitation" and not own_successes:
            raise ValueError(
                "guided episodes are to be imitated: set learner.imitation, and leave out imitation.demonstrations."
            )
        return self
