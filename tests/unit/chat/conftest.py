"""A real byte-level BPE tokenizer, trained on the spot, with Qwen3-style ChatML templates."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

from agent_rl.chat import ChatCodec
from agent_rl.types import FinishReason, Generation

CHATML = """
{%- if tools %}
{{- '<|im_start|>system\\n' }}
{%- if messages[0].role == 'system' %}{{- messages[0].content + '\\n\\n' }}{%- endif %}
{{- '# Tools\\n\\n<tools>' }}
{%- for tool in tools %}{{- '\\n' + (tool | tojson) }}{%- endfor %}
{{- '\\n</tools>\\n\\nReturn a json object within <tool_call></tool_call> tags.<|im_end|>\\n' }}
{%- elif messages[0].role == 'system' %}
{{- '<|im_start|>system\\n' + messages[0].content + '<|im_end|>\\n' }}
{%- endif %}
{%- set ns = namespace(last_query=-1) %}
{%- for message in messages %}
{%- if message.role == 'user' %}{%- set ns.last_query = loop.index0 %}{%- endif %}
{%- endfor %}
{%- for message in messages %}
{%- if message.role == 'user' or (message.role == 'system' and not loop.first) %}
{{- '<|im_start|>' + message.role + '\\n' + message.content + '<|im_end|>\\n' }}
{%- elif message.role == 'assistant' %}
{%- set content = message.content %}
{%- if message.reasoning_content is string %}
{%- set content = '<think>\\n' + message.reasoning_content + '\\n</think>\\n\\n' + content %}
{%- endif %}
{%- if REWRITES and loop.index0 < ns.last_query %}
{%- set content = content.split('</think>')[-1].lstrip('\\n') %}
{%- endif %}
{{- '<|im_start|>assistant\\n' + content }}
{%- for call in message.tool_calls or [] %}
{%- if content or not loop.first %}{{- '\\n' }}{%- endif %}
{{- '<tool_call>\\n{"name": "' + call.function.name + '", "arguments": ' + (call.function.arguments | tojson) }}
{{- '}\\n</tool_call>' }}
{%- endfor %}
{{- '<|im_end|>\\n' }}
{%- elif message.role == 'tool' %}
{%- if loop.first or messages[loop.index0 - 1].role != 'tool' %}{{- '<|im_start|>user' }}{%- endif %}
{{- '\\n<tool_response>\\n' + message.content + '\\n</tool_response>' }}
{%- if loop.last or messages[loop.index0 + 1].role != 'tool' %}{{- '<|im_end|>\\n' }}{%- endif %}
{%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}{{- '<|im_start|>assistant\\n' }}{%- endif %}
"""

APPENDING = CHATML.replace("REWRITES", "false")
REWRITING = CHATML.replace("REWRITES", "true")  # Qwen3: reasoning before the last user message is dropped

_CORPUS = [
    "the quick brown fox asks how many rows the table has and looks for an answer in the database",
    '<tool_call>\n{"name": "look", "arguments": {"at": "1"}}\n</tool_call>',
    "<tool_response>\n[[1, 2], [3, 4]]\n</tool_response> user assistant system",
    "<think>\nI should look at the schema first.\n</think>\n\nthe answer is 42",
]


def make_tokenizer(template: str) -> PreTrainedTokenizerFast:
    backend = Tokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    specials = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    backend.train_from_iterator(
        _CORPUS * 8,
        trainers.BpeTrainer(vocab_size=420, special_tokens=specials, initial_alphabet=alphabet, show_progress=False),
    )
    backend.add_tokens([AddedToken(tag, normalized=False) for tag in ("<tool_call>", "</tool_call>", "<think>")])
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=backend, eos_token="<|im_end|>", pad_token="<|endoftext|>")
    tokenizer.chat_template = template
    return tokenizer


@dataclass(frozen=True)
class StandInTool:
    definition: dict[str, Any]


@pytest.fixture(scope="session")
def tool() -> StandInTool:
    parameters = {"type": "object", "properties": {"at": {"type": "string"}}}
    return StandInTool({"type": "function", "function": {"name": "look", "parameters": parameters}})


@pytest.fixture(scope="session")
def tokenizer() -> PreTrainedTokenizerFast:
    return make_tokenizer(APPENDING)


@pytest.fixture(scope="session")
def codec(tokenizer: PreTrainedTokenizerFast) -> ChatCodec:
    return ChatCodec(tokenizer)


@pytest.fixture(scope="session")
def rewriting_tokenizer() -> PreTrainedTokenizerFast:
    return make_tokenizer(REWRITING)


@pytest.fixture(scope="session")
def rewriting_codec(rewriting_tokenizer: PreTrainedTokenizerFast) -> ChatCodec:
    return ChatCodec(rewriting_tokenizer)


@pytest.fixture(scope="session")
def sample(tokenizer: PreTrainedTokenizerFast) -> Callable[..., Generation]:
    """`sample(text, version=0)`: the canonical tokens of `text` as if an engine had sampled them."""

    def sampled(text: str | list[int], version: int = 0) -> Generation:
        ids = tokenizer.backend_tokenizer.encode(text).ids if isinstance(text, str) else text
        count = len(ids)
        reason = FinishReason.STOP if ids and ids[-1] == tokenizer.eos_token_id else FinishReason.LENGTH
        logprobs = -np.arange(1, count + 1, dtype=np.float32)
        return Generation(np.array(ids, np.int32), logprobs, np.full(count, version, np.int32), reason)

    return sampled


@pytest.fixture(scope="session")
def with_template() -> Callable[[str], PreTrainedTokenizerFast]:
    return make_tokenizer
