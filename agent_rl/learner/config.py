"""What a user can choose about learning. Every field is consumed by `Learner`."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import Field, model_validator

from agent_rl.config import Config
from agent_rl.learner.schedule import Schedule


class LoraConfig(Config):
    """Low-rank adapters (arXiv:2106.09685) instead of full fine-tuning; a learning rate about 10x higher suits them."""

    rank: int = Field(default=16, ge=1, description="Rank of the adapters.")
    alpha: float = Field(default=32.0, gt=0, description="The adapters' output is scaled by alpha / rank.")
    targets: tuple[str, ...] = Field(
        default=(), description="Linear layers to adapt, such as q_proj; empty: all but the head."
    )


class MemoryConfig(Config):
    """What saves memory or time, and what is computed more exactly. None of it changes what is computed otherwise."""

    activation_checkpointing: bool = Field(
        default=False, description="Keep each decoder layer's input only, and compute the layer again going backward."
    )
    compile: bool = Field(
        default=False, description="Compile the decoder layer: slow first steps, then fewer passes over memory."
    )
    fp32_head: bool = Field(
        default=False, description="Logits in fp32 from the fp32 weights of the head, also with autocast."
    )


class LpRegConfig(Config):
    """Low-probability regularisation (arXiv:2510.03222): unlikely tokens of bad samples are kept alive."""

    coefficient: float = Field(default=1.0, gt=0, description="Weight of the term.")
    share: float = Field(default=0.01, gt=0, le=1, description="Least likely tokens with A < 0 that are protected.")
    min_p: float = Field(
        default=0.02, gt=0, lt=1, description="Probability, as a share of the likeliest token's, below which is noise."
    )


class ReferenceConfig(Config):
    """What `kl_coefficient` keeps the policy near: by default, for good, the policy that training began with."""

    soup: tuple[str, ...] = Field(
        default=(),
        description="Checkpoints (folders or hub ids) whose weights are averaged with the policy's at first.",
    )
    follow: float = Field(
        default=0.0, ge=0, le=1, description="How far it then moves to the policy's weights, each time; 1: all the way."
    )
    every: int = Field(default=1, ge=1, description="Optimizer steps after which it moves, behind a training step.")

    @model_validator(mode="after")
    def _moves(self) -> Self:
        if self.every > 1 and not self.follow:
            raise ValueError("a reference that does not follow never moves: set follow, or leave out every.")
        return self


class DistillationConfig(Config):
    """On-policy distillation: the policy comes near a teacher on the tokens that it samples itself."""

    teacher: str = Field(description="Folder or hub id of the teacher; its tokenizer has to be the policy's.")
    coefficient: float = Field(default=1.0, gt=0, description="Weight of the divergence from the teacher.")
    divergence: str = Field(
        default="k1", description="k1 (as a reward per token), k2, k3, ... or exact_reverse, exact_forward, exact_js."
    )
    options: dict[str, float] = Field(
        default_factory=dict[str, float], description="The divergence's own options, such as beta 0.5."
    )


class ImitationLossConfig(Config):
    """Supervised learning beside reinforcement learning, in the same optimizer steps."""

    coefficient: float = Field(
        default=0.1, gt=0, description="Total weight of imitated tokens; of sampled ones it is 1."
    )
    loss: str = Field(default="nll", description="Loss of imitated tokens: nll or rl_plus.")
    options: dict[str, float] = Field(
        default_factory=dict[str, float], description="The loss's own options, such as gamma 0.5."
    )


class OptimizerConfig(Config):
    """How gradients become weights."""

    learning_rate: float = Field(default=1e-6, gt=0, description="Peak learning rate of AdamW.")
    schedule: Schedule = Field(default="constant", description="Learning rate after the warm-up.")
    warmup_steps: int = Field(default=0, ge=0, description="Optimizer steps of linear warm-up.")
    total_steps: int | None = Field(
        default=None, ge=1, description="Optimizer step at which linear and cosine reach 0; none: the end of the run."
    )
    betas: tuple[float, float] = Field(default=(0.9, 0.999), description="AdamW's decay rates.")
    weight_decay: float = Field(
        default=0.0, ge=0, description="Decoupled decay of matrices; biases and norms have none."
    )
    max_grad_norm: float = Field(default=1.0, gt=0, description="Gradients are scaled down to this L2 norm.")

    def for_run(self, optimizer_steps: int) -> Self:
        """With an end for a schedule that has none of its own: that of the run."""
        if self.total_steps is not None or self.schedule == "constant":
            return self
        return self.model_copy(update={"total_steps": optimizer_steps})


class LearnerConfig(OptimizerConfig):
    """How rows become weights."""

    loss: str = Field(default="ppo_clip", description="Policy loss: ppo_clip, cispo, ...; docs/credit.md has them all.")
    loss_options: dict[str, float] = Field(
        default_factory=dict[str, float], description="The loss's own options, such as clip_high 0.28."
    )
    old_logprobs: Literal["rollout", "recompute", "interpolate"] = Field(
        default="rollout",
        description="Ratios against the sampler's log-probs, the learner's own before the first update (a forward pass "
        "more), or an interpolation between the sampler's and the current ones by age.",
    )
    advantage_coefficient: float = Field(
        default=1.0, ge=0, description="Weight of the advantages; 0: only distillation and penalties teach."
    )
    correction: str = Field(
        default="none",
        description="For a sampler that differs: importance, truncate, mask or mask_rows; not with rollout log-probs.",
    )
    correction_options: dict[str, float] = Field(
        default_factory=dict[str, float], description="The correction's own options, such as at 2."
    )
    kl_coefficient: float = Field(
        default=0.0, ge=0, description="Weight of the divergence from the policy that training began with; 0: none."
    )
    kl: str = Field(
        default="k2",
        description="Divergence: k1 (as a reward), k2 (reverse KL), k3 (GRPO's), forward, js, or, over the whole "
        "vocabulary, exact_reverse, exact_forward or exact_js.",
    )
    kl_options: dict[str, float] = Field(
        default_factory=dict[str, float], description="The divergence's own options, such as beta 0.5."
    )
    reference: ReferenceConfig = Field(
        default_factory=ReferenceConfig, description="What the policy is kept near, where it is not its own beginning."
    )
    distillation: DistillationConfig | None = Field(default=None, description="Come near a teacher.")
    imitation: ImitationLossConfig | None = Field(default=None, description="Imitate demonstrations or own successes.")
    lp_reg: LpRegConfig | None = Field(default=None, description="Keep unlikely tokens of bad samples alive.")
    entropy_coefficient: float = Field(default=0.0, description="Weight of the entropy bonus of trained tokens.")
    minibatches: int = Field(default=1, ge=1, description="Optimizer steps per pass over a batch.")
    epochs: int = Field(default=1, ge=1, description="Passes over a batch.")
    token_budget: int = Field(
        default=8192, ge=1, description="Tokens forwarded at once; bounds memory, not the gradient."
    )
    autocast: bool = Field(
        default=False,
        description="Matrix products in bf16, as always for a model in bf16; weights and optimizer are in fp32.",
    )
    memory: MemoryConfig = Field(default_factory=MemoryConfig, description="Less memory, or more exact logits.")
    rank_timeout_s: float = Field(
        default=600.0, gt=0, description="Under torchrun: how long a rank waits for a silent one before it gives up."
    )
    lora: LoraConfig | None = Field(default=None, description="Train low-rank adapters instead of all weights.")

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.correction != "none" and self.old_logprobs == "rollout":
            raise ValueError(
                "a correction compares with other log-probs: set old_logprobs to recompute or interpolate."
            )
        if self.lp_reg is not None and self.old_logprobs != "recompute":
            raise ValueError(
                "lp_reg needs the policy's distributions before the update: set old_logprobs to recompute."
            )
        if self.reference != ReferenceConfig() and not self.kl_coefficient:
            raise ValueError("nothing looks at the reference: set kl_coefficient, or leave out reference.")
        if self.reference != ReferenceConfig() and self.lora is not None:
            raise ValueError(
                "with lora the reference is the model without its adapters, for good: leave out reference."
            )
        if not (self.advantage_coefficient or self.kl_coefficient or self.distillation):
            raise ValueError("advantage_coefficient 0 leaves nothing to learn: add distillation, or a kl_coefficient.")
        return self
