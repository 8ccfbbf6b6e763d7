"""Low-rank adapters in place (peft), and the full weights that they amount to."""

from __future__ import annotations

from collections.abc import Generator, Iterator
from contextlib import contextmanager

import torch
from transformers import PreTrainedModel

from agent_rl.errors import ConfigError
from agent_rl.learner.config import LoraConfig
from agent_rl.seeding import derive_seed

ADAPTER = "default"


def add_lora(model: PreTrainedModel, config: LoraConfig, seed: int) -> None:
    """Put adapters into `model`, which keeps its class; only they are trainable afterwards. Starts at no change.

    Raises `ConfigError` when peft is missing or `targets` name no layer.
    """
    try:
        import peft
    except ImportError as error:
        raise ConfigError("LoRA needs peft: pip install 'agent-rl[lora]'.") from error
    adapter = peft.LoraConfig(
        r=config.rank,
        lora_alpha=config.alpha,  # pyright: ignore[reportArgumentType]  # annotated int, but only ever divided
        target_modules=list(config.targets) or "all-linear",
    )
    with torch.random.fork_rng([model.device] if model.device.type == "cuda" else []):
        torch.manual_seed(derive_seed(seed, "lora"))
        try:
            peft.inject_adapter_in_model(adapter, model, ADAPTER)
        except ValueError as error:
            raise ConfigError(
                f"LoRA targets {list(config.targets)} match nothing in {type(model).__name__}."
            ) from error


@contextmanager
def without_lora(model: PreTrainedModel) -> Generator[None]:
    """The model as it was before its adapters."""
    from peft.tuners.tuners_utils import BaseTunerLayer

    layers = [module for module in model.modules() if isinstance(module, BaseTunerLayer)]
    trainable = [parameter for parameter in model.parameters() if parameter.requires_grad]
    for layer in layers:
        layer.enable_adapters(False)
    for parameter in trainable:  # peft freezes them: shards that first compute here would stay without gradients
        parameter.requires_grad_()
    try:
        yield
    finally:
        for layer in layers:
            layer.enable_adapters(True)


def merged_weight(layer: torch.nn.Module) -> torch.Tensor:
    """The weight that a linear layer amounts to: with its adapter, where it has one that is not switched off."""
    base = getattr(layer, "base_layer", None)
    if base is None:
        return layer.weight  # pyright: ignore[reportReturnType]  # of a module, torch knows no attribute
    if layer.disable_adapters:
        return base.weight
    return base.weight + layer.get_delta_weight(ADAPTER).to(base.weight.dtype)  # pyright: ignore[reportCallIssue]


def full_weights(model: PreTrainedModel) -> Iterator[tuple[str, torch.Tensor]]:
    """The weights of `model` by the names of the plain model; those with an adapter come merged, as new tensors.

    The others are views of the live parameters: copy them before the next update. Tied weights come once.
    """
    modules = dict(model.named_modules())
    for name, parameter in model.named_parameters():
        if ".lora_" in name:
            continue
        owner, _, adapted = name.rpartition(".base_layer.")
        weight = parameter.detach()
        if adapted == "weight":
            weight = merged_weight(modules[owner]).detach()
        yield name.replace(".base_layer.", "."), weight
