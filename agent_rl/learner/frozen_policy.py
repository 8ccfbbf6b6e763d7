"""Policies that do not learn, which a learner stays near or comes near: a reference or a teacher."""

from __future__ import annotations

import copy
from collections.abc import Callable
from contextlib import AbstractContextManager

from transformers import PreTrainedModel, PreTrainedTokenizerBase

from agent_rl.errors import ConfigError
from agent_rl.learner.attention import packed_attention
from agent_rl.learner.config import DistillationConfig, LearnerConfig
from agent_rl.learner.logprobs import Precision, frozen_tokens
from agent_rl.learner.lora import without_lora
from agent_rl.learner.moving_reference import average_into
from agent_rl.learner.policy import load_policy
from agent_rl.learner.tensors import FrozenTokens, PackedTensors


class FrozenPolicy:
    """A model, and the context in which it is called. `exact`: distributions are wanted, not only tokens' log-probs."""

    def __init__(
        self,
        model: PreTrainedModel,
        context: Callable[[PreTrainedModel], AbstractContextManager[None]],
        temperature: float,
        precision: Precision,
        *,
        exact: bool,
    ) -> None:
        self.model = model
        self.exact = exact
        self._context = context
        self._temperature = temperature
        self._precision = precision

    def __call__(self, batch: PackedTensors) -> FrozenTokens:
        """What it says of the trained tokens of `batch`."""
        with self._context(self.model):
            return frozen_tokens(self.model, batch, self._temperature, self._precision, exact=self.exact)


def reference_of(model: PreTrainedModel, config: LearnerConfig, temperature: float, *, exact: bool) -> FrozenPolicy:
    """The policy as it is now: the model itself where adapters can be switched off, else a copy, or a soup with it."""
    if config.lora is not None:
        return FrozenPolicy(model, without_lora, temperature, Precision.of(config), exact=exact)
    frozen = copy.deepcopy(model).requires_grad_(False)
    if config.reference.soup and frozen.device.type != "meta":  # else rank 0 has the values
        average_into(frozen, config.reference.soup)
    return FrozenPolicy(frozen, packed_attention, temperature, Precision.of(config), exact=exact)


def teacher_of(
    model: PreTrainedModel,
    teacher: PreTrainedModel | None,
    config: LearnerConfig,
    temperature: float,
    *,
    exact: bool,
) -> FrozenPolicy:
    """The teacher of a policy `model`. Raises `ConfigError` when there is none or its vocabulary has another size."""
    if teacher is None:
        raise ConfigError("Distillation needs the teacher's model: give it to the learner.")
    ours, theirs = (m.config.get_text_config().vocab_size for m in (model, teacher))
    if exact and ours != theirs:
        raise ConfigError(
            f"An exact divergence needs equal vocabularies: the teacher's has {theirs} entries, not {ours}."
        )
    teacher.requires_grad_(False).eval()
    return FrozenPolicy(teacher, packed_attention, temperature, Precision.of(config), exact=exact)


def load_teacher(
    config: DistillationConfig | None, policy: PreTrainedModel, tokenizer: PreTrainedTokenizerBase
) -> PreTrainedModel | None:
    """The teacher that a config names, in the policy's dtype and on its device; `None` without a config.

    Raises `ModelError`, and `ConfigError` when its tokens are not ours.
    """
    if config is None:
        return None
    dtype, device = str(policy.dtype).removeprefix("torch."), str(policy.device)
    model, its_tokenizer = load_policy(config.teacher, dtype=dtype, device=device)
    if its_tokenizer.get_vocab() != tokenizer.get_vocab():
        raise ConfigError(
            f"The teacher {config.teacher!r} has another tokenizer than the policy: their log-probs do not compare."
        )
    return model
