"""Tiny, real policies made on the spot: a byte-level BPE tokenizer with a ChatML template, and a random Qwen3 model.

For tests and for recipes that need no download. Both are ordinary transformers objects: `save_pretrained` writes
a folder that any loader or inference server accepts. Knows nothing of environments or training.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

import torch
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerBase, PreTrainedTokenizerFast, Qwen3Config, Qwen3ForCausalLM

from agent_rl.types import Message, Trajectory

if TYPE_CHECKING:
    from agent_rl.tool import Tool

END_OF_TURN = "<|im_end|>"
PADDING = "<|endoftext|>"
SPECIAL_TOKENS = (PADDING, "<|im_start|>", END_OF_TURN)
TOOL_TOKENS = ("<tool_call>", "</tool_call>")  # hermes; as in Qwen2.5, <tool_response> is plain text

# Qwen3's conventions without reasoning: hermes tools in the system message, tool results in a user turn.
CHAT_TEMPLATE = """\
{%- if tools %}
    {{- '<|im_start|>system\\n' }}
    {%- if messages[0].role == 'system' %}{{- messages[0].content + '\\n\\n' }}{%- endif %}
    {{- '# Tools\\n\\nYou may call one or more functions to assist with the user query.\\n\\n' }}
    {{- 'You are provided with function signatures within <tools></tools> XML tags:\\n<tools>' }}
    {%- for tool in tools %}{{- '\\n' + (tool | tojson) }}{%- endfor %}
    {{- '\\n</tools>\\n\\nFor each function call, return a json object with function name and arguments ' }}
    {{- 'within <tool_call></tool_call> XML tags:\\n<tool_call>\\n' }}
    {{- '{"name": <function-name>, "arguments": <args-json-object>}\\n</tool_call><|im_end|>\\n' }}
{%- elif messages[0].role == 'system' %}
    {{- '<|im_start|>system\\n' + messages[0].content + '<|im_end|>\\n' }}
{%- endif %}
{%- for message in messages %}
    {%- if message.role == 'tool' %}
        {%- if loop.first or messages[loop.index0 - 1].role != 'tool' %}{{- '<|im_start|>user' }}{%- endif %}
        {{- '\\n<tool_response>\\n' + message.content + '\\n</tool_response>' }}
        {%- if loop.last or messages[loop.index0 + 1].role != 'tool' %}{{- '<|im_end|>\\n' }}{%- endif %}
    {%- elif message.role != 'system' or not loop.first %}
        {{- '<|im_start|>' + message.role + '\\n' + (message.content or '') }}
        {%- for call in message.tool_calls or [] %}
            {%- if not loop.first or message.content %}{{- '\\n' }}{%- endif %}
            {%- if call.function %}{%- set call = call.function %}{%- endif %}
            {{- '<tool_call>\\n{"name": "' + call.name + '", "arguments": ' + (call.arguments | tojson) }}
            {{- '}\\n</tool_call>' }}
        {%- endfor %}
        {{- '<|im_end|>\\n' }}
    {%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}{{- '<|im_start|>assistant\\n' }}{%- endif %}"""


def make_tokenizer(texts: Iterable[str], words: Sequence[str] = (), vocab_size: int = 2048) -> PreTrainedTokenizerFast:
    """A byte-level BPE tokenizer trained on `texts`; it encodes any text, also what it was not trained on.

    Digits and `words` are never merged with their neighbours, so that a model can copy them; what is between them
    (the fixed text of prompts and tool calls) may merge across spaces, so that a conversation is few tokens.
    """
    tokenizer = Tokenizer(models.BPE())
    alone = "|".join(["[0-9]", *(rf"\b{re.escape(word)}\b" for word in sorted(words, key=len, reverse=True))])
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(  # pyright: ignore[reportAttributeAccessIssue]  # stub lacks setter
        [
            pre_tokenizers.Split(Regex(alone), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()  # pyright: ignore[reportAttributeAccessIssue]
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=[*SPECIAL_TOKENS, *TOOL_TOKENS],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    special = re.compile("|".join(re.escape(token) for token in (*SPECIAL_TOKENS, *TOOL_TOKENS)))
    pieces = (piece for text in texts for piece in special.split(text))
    tokenizer.train_from_iterator([*pieces, *words], trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        eos_token=END_OF_TURN,
        pad_token=PADDING,
        chat_template=CHAT_TEMPLATE,
        clean_up_tokenization_spaces=False,
    )


def make_model(
    tokenizer: PreTrainedTokenizerBase,
    *,
    hidden_size: int = 64,
    layers: int = 2,
    heads: int = 2,
    max_context: int = 1024,
    seed: int = 0,
) -> Qwen3ForCausalLM:
    """A Qwen3 model with random fp32 weights on the CPU, in evaluation mode. Heads have 32 dimensions."""
    config = Qwen3Config(
        vocab_size=len(tokenizer),
        hidden_size=hidden_size,
        intermediate_size=2 * hidden_size,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        num_key_value_heads=heads,
        head_dim=32,
        max_position_embeddings=max_context,
        tie_word_embeddings=True,
        bos_token_id=None,
        eos_token_id=_token_id(tokenizer, END_OF_TURN),
        pad_token_id=_token_id(tokenizer, PADDING),
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return Qwen3ForCausalLM(config).eval()


def _token_id(tokenizer: PreTrainedTokenizerBase, token: str) -> int:
    token_id = tokenizer.convert_tokens_to_ids(token)
    assert isinstance(token_id, int)
    return token_id


def render_episode(episode: Trajectory, tools: Sequence[Tool]) -> str:
    """An episode as text in the tiny models' chat format, to train a tokenizer on."""
    template = PreTrainedTokenizerFast(tokenizer_object=Tokenizer(models.BPE()), chat_template=CHAT_TEMPLATE)
    messages = [*episode.prompt, *(m for turn in episode.turns for m in (turn.action, *turn.observations))]
    text = template.apply_chat_template(
        [_as_dict(message) for message in messages], tools=[dict(tool.definition) for tool in tools], tokenize=False
    )
    return str(text)


def _as_dict(message: Message) -> dict[str, Any]:
    calls = [{"function": {"name": call.name, "arguments": dict(call.arguments)}} for call in message.tool_calls]
    return {"role": message.role, "content": message.content, "tool_calls": calls}
