"""What a user can choose about a critic."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import Field, model_validator

from agent_rl.learner.config import OptimizerConfig


class ValueConfig(OptimizerConfig):
    """What critics of every kind have in common."""

    learning_rate: float = Field(default=1e-5, gt=0, description="Peak learning rate of AdamW.")
    low: float = Field(default=0.0, description="Least return that hl_gauss can express.")
    high: float = Field(default=1.0, description="Greatest return that hl_gauss can express.")
    bins: int = Field(default=51, ge=2, description="Classes of hl_gauss.")
    spread: float = Field(default=0.75, gt=0, description="Deviation of hl_gauss's targets, in bins.")
    alone_steps: int = Field(
        default=0, ge=0, description="First training steps in which only the critic learns (value pretraining)."
    )
    token_budget: int = Field(default=8192, ge=1, description="Tokens forwarded at once; bounds memory.")

    @model_validator(mode="after")
    def _a_range(self) -> Self:
        if self.low >= self.high:
            raise ValueError(f"low {self.low} has to be below high {self.high}.")
        return self


class CriticConfig(ValueConfig):
    """How values of tokens are learned."""

    trunk: Literal["separate", "policy"] = Field(
        default="separate",
        description="A decoder and an optimizer of its own, or a head on the policy's decoder that learns with it.",
    )
    coefficient: float = Field(default=0.5, gt=0, description="Weight of the value loss on the policy's trunk.")
    stop_gradient: bool = Field(
        default=False, description="On the policy's trunk: the head learns, but the policy does not feel it."
    )
    loss: Literal["squared", "clipped", "hl_gauss"] = Field(
        default="squared", description="Squared error, PPO's clipped one, or classification (HL-Gauss)."
    )
    clip: float = Field(default=0.2, gt=0, description="How far from its old value the clipped loss lets a value go.")
    gamma: float = Field(default=1.0, ge=0, le=1, description="Discount of the critic's targets, per token.")
    lam: float = Field(default=1.0, ge=0, le=1, description="Lambda of the critic's targets; 1: returns.")
    minibatches: int = Field(default=1, ge=1, description="Optimizer steps per pass over a batch.")
    epochs: int = Field(default=1, ge=1, description="Passes over a batch.")

    @model_validator(mode="after")
    def _of_the_trunk(self) -> Self:
        shared = {"coefficient", "stop_gradient"}
        own = {*OptimizerConfig.model_fields, "minibatches", "epochs", "alone_steps", "token_budget"}
        foreign = own if self.trunk == "policy" else shared
        for name in sorted(foreign):
            if getattr(self, name) != type(self).model_fields[name].get_default(call_default_factory=True):
                raise ValueError(f"{name} has no meaning for a critic whose trunk is {self.trunk}: leave it out.")
        return self
