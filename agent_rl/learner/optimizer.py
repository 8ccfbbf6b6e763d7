"""AdamW and what belongs to a step: a scheduled learning rate, a clipped gradient, no step on an infinite one."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch

from agent_rl.errors import ConfigError
from agent_rl.learner.config import OptimizerConfig
from agent_rl.learner.parts import copy_into, whole
from agent_rl.learner.schedule import lr_factor


class Optimizer:
    """Changes `parameters` in place. Matrices are decayed, biases and norms are not.

    Raises `ConfigError` for a schedule without an end.
    """

    def __init__(self, parameters: Mapping[str, torch.Tensor], config: OptimizerConfig) -> None:
        if config.schedule != "constant" and config.total_steps is None:
            raise ConfigError(f"The learning-rate schedule {config.schedule!r} needs total_steps.")
        self.steps = 0
        self.skipped = 0
        self._config = config
        self._parameters = dict(parameters)
        matrices = [p for p in parameters.values() if p.ndim >= 2]
        vectors = [p for p in parameters.values() if p.ndim < 2]
        self._adamw = torch.optim.AdamW(
            [{"params": matrices, "weight_decay": config.weight_decay}, {"params": vectors, "weight_decay": 0.0}],
            lr=config.learning_rate,
            betas=config.betas,
            fused=True,
        )
        for parameter in parameters.values():  # as AdamW's first step would, so that a state can be read into it
            self._adamw.state[parameter] = {
                "step": torch.zeros((), dtype=torch.float32, device=parameter.device),
                "exp_avg": torch.zeros_like(parameter),
                "exp_avg_sq": torch.zeros_like(parameter),
            }

    def zero_grad(self) -> None:
        """Forget the gradient."""
        self._adamw.zero_grad()

    def step(self) -> dict[str, float]:
        """One step along the accumulated gradient, and a report: `grad_norm` before clipping, `learning_rate`."""
        config = self._config
        norm = torch.nn.utils.clip_grad_norm_(self._parameters.values(), config.max_grad_norm)
        grad_norm = whole(norm).item()
        if not np.isfinite(grad_norm):
            self.skipped += 1
            return {"grad_norm": grad_norm, "learning_rate": 0.0}
        factor = lr_factor(self.steps, config.schedule, config.warmup_steps, config.total_steps)
        for group in self._adamw.param_groups:
            group["lr"] = config.learning_rate * factor
        self._adamw.step()
        self.steps += 1
        return {"grad_norm": grad_norm, "learning_rate": config.learning_rate * factor}

    def cool_down(self, steps: int) -> None:
        """From here on the learning rate falls linearly to 0, in so many steps."""
        falling = {"schedule": "linear", "warmup_steps": self.steps, "total_steps": max(1, self.steps + steps)}
        self._config = self._config.model_copy(update=falling)

    def state_dict(self) -> dict[str, Any]:
        """The moments of each parameter by its name, and counts. Live tensors: write them before the next step."""
        moments = {name: dict(self._adamw.state[parameter]) for name, parameter in self._parameters.items()}
        return {"adamw": moments, "steps": self.steps, "skipped": self.skipped}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue from `state`, bit for bit."""
        for name, moments in self.state_dict()["adamw"].items():
            for key, own in moments.items():
                copy_into(own, state["adamw"][name][key])
        self.steps, self.skipped = state["steps"], state["skipped"]
