"""Load and save a causal language model with its tokenizer, with one clear sentence when that cannot work."""

from __future__ import annotations

from collections.abc import Generator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer, PreTrainedModel, PreTrainedTokenizerBase
from transformers.utils import logging

from agent_rl.errors import ModelError

_WORTH_A_BAR = 1 << 29  # bytes of weights; less is loaded before anybody has read the bar


def load_policy(
    source: str | Path, *, dtype: str = "float32", device: str = "cpu"
) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """The model (in evaluation mode) and tokenizer in a folder or under a hub id. `dtype` is a torch dtype by name.

    Raises `ModelError` when the source does not exist or cannot be reached, is not a causal language model, lacks
    weights, or its tokenizer has no chat template or more tokens than the model.
    """
    source = str(source)
    _check_folder(source)
    options: dict[str, Any] = {"dtype": _torch_dtype(dtype), "output_loading_info": True}
    try:
        with _progress_bars(shown=_is_large(Path(source))):
            tokenizer: PreTrainedTokenizerBase = AutoTokenizer.from_pretrained(source)
            loaded: Any = AutoModelForCausalLM.from_pretrained(source, **options)
    except (OSError, ValueError, KeyError) as error:
        raise ModelError(f"Cannot load a causal language model from {source!r}: {_first_line(error)}") from error
    model: PreTrainedModel = loaded[0]
    missing: set[str] = loaded[1]["missing_keys"]
    if missing:
        raise ModelError(f"{source!r} lacks weights of {type(model).__name__}, such as {min(missing)!r}.")
    if not tokenizer.chat_template:
        raise ModelError(f"The tokenizer of {source!r} has no chat template: use an instruction-tuned checkpoint.")
    if len(tokenizer) > model.config.get_text_config().vocab_size:
        raise ModelError(f"The tokenizer of {source!r} has more tokens than the model's vocabulary.")
    return model.to(torch.device(device)).eval(), tokenizer  # pyright: ignore[reportArgumentType]  # decorated by transformers


def check_checkpoint(source: str) -> None:
    """Raises `ModelError` when there is no model in a folder or under a hub id. It reads no weights."""
    _check_folder(source)
    try:
        AutoConfig.from_pretrained(source)
    except (OSError, ValueError, KeyError) as error:
        raise ModelError(f"Cannot load a model from {source!r}: {_first_line(error)}") from error


def save_policy(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    folder: str | Path,
    weights: Mapping[str, torch.Tensor] | None = None,
) -> None:
    """Write what `load_policy` loads; `weights` replace those of the model."""
    with _progress_bars(shown=False):
        model.save_pretrained(folder, state_dict=dict(weights) if weights is not None else None)
    tokenizer.save_pretrained(folder)


def _is_large(folder: Path) -> bool:
    """What is not in a folder has to be downloaded."""
    return not folder.is_dir() or sum(file.stat().st_size for file in folder.glob("*.safetensors")) > _WORTH_A_BAR


@contextmanager
def _progress_bars(shown: bool) -> Generator[None]:
    """transformers draws its own, whatever else is drawing: for a small model they only break up our lines."""
    before = logging.is_progress_bar_enabled()
    if not shown:
        logging.disable_progress_bar()
    try:
        yield
    finally:
        if before:
            logging.enable_progress_bar()


def _check_folder(source: str) -> None:
    """Tell a mistyped path from a hub id, and an empty folder from a model."""
    folder = Path(source)
    if folder.is_dir():
        if not (folder / "config.json").is_file():
            raise ModelError(f"The folder {source!r} holds no model: it has no config.json.")
    elif folder.exists() or folder.is_absolute() or source.startswith((".", "~")) or source.count("/") > 1:
        raise ModelError(f"There is no model folder {source!r}.")


def _torch_dtype(name: str) -> torch.dtype:
    dtype = getattr(torch, name, None)
    if not isinstance(dtype, torch.dtype) or not dtype.is_floating_point:
        raise ModelError(f"{name!r} is not a floating-point dtype: use 'float32', 'bfloat16' or 'float16'.")
    return dtype


def _first_line(error: Exception) -> str:
    """transformers' errors are paragraphs: the first line says what is wrong."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
