"""Cost of tokens per turn against the length of the context: ours, the limit, and rendering the conversation again.

One turn: append a sampled tool call, parse it, encode the tool's result and the next header. The limit is what no
scheme avoids: the tokenizer's bare calls, one decode of the response and one encode of the new text. CPU time of one
thread; the variants take turns so that a slow moment hits all of them; the fastest round counts.

    python benchmarks/encoding.py
"""

import statistics
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

from agent_rl.chat import ChatCodec, Conversation
from agent_rl.testing.tiny import CHAT_TEMPLATE, END_OF_TURN, PADDING, SPECIAL_TOKENS, TOOL_TOKENS
from agent_rl.types import FinishReason, Generation, Message

CONTEXTS = [1 << 10, 1 << 13, 1 << 15, 1 << 17]
RENDERED_UP_TO = 1 << 15
TURNS, ROUNDS = 20, 9
CALL = '<tool_call>\n{"name": "query", "arguments": {"sql": "SELECT name FROM cities LIMIT 3"}}\n</tool_call>'
LIBRARY = Path(statistics.__file__).parent
RESULTS = {"short": '[["Oslo"], ["Lima"], ["Rome"]]', "long": (LIBRARY / "statistics.py").read_text()[:2400]}


def make_tokenizer() -> PreTrainedTokenizerFast:
    """A byte-level BPE of 16k tokens, trained on the standard library's source, as ordinary models have it."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    files = sorted(str(path) for path in LIBRARY.glob("*.py"))
    specials = [*SPECIAL_TOKENS, *TOOL_TOKENS]
    tokenizer.train(files, trainers.BpeTrainer(vocab_size=16_000, special_tokens=specials, show_progress=False))
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, eos_token=END_OF_TURN, pad_token=PADDING, chat_template=CHAT_TEMPLATE
    )


def sampled_call(codec: ChatCodec, tokenizer: PreTrainedTokenizerFast) -> Generation:
    ids = np.array(tokenizer.backend_tokenizer.encode(CALL + END_OF_TURN).ids, np.int32)
    return Generation(ids, np.zeros(len(ids), np.float32), np.zeros(len(ids), np.int32), FinishReason.STOP)


def question_of(context: int, tokenizer: PreTrainedTokenizerFast) -> Message:
    text = "".join(path.read_text() for path in sorted(LIBRARY.glob("a*.py")))
    text *= 1 + 5 * context // len(text)
    ids = tokenizer.backend_tokenizer.encode(text).ids[:context]
    return Message("user", tokenizer.decode(ids))


def cpu_us(run: Callable[[], object]) -> float:
    start = time.process_time_ns()
    run()
    return (time.process_time_ns() - start) / 1000


def our_round(codec: ChatCodec, prompt: Message, generation: Generation, result: str) -> float:
    conversation = Conversation(codec)
    conversation.start([prompt])
    messages = [Message("tool", result, tool_call_id="call_0")]

    def turns() -> None:
        for _ in range(TURNS):
            conversation.append_response(generation)
            conversation.append_observations(messages)

    return cpu_us(turns) / TURNS


def limit_round(codec: ChatCodec, tokenizer: PreTrainedTokenizerFast, generation: Generation, result: str) -> float:
    backend = tokenizer.backend_tokenizer
    ids = generation.token_ids_R.tolist()
    suffix = codec.decode(codec.encode_observations([Message("tool", result)], closed=True))

    def turns() -> None:
        for _ in range(TURNS):
            backend.decode(ids, skip_special_tokens=False)
            _ = backend.encode(suffix, add_special_tokens=False).ids

    return cpu_us(turns) / TURNS


def rendering_round(tokenizer: PreTrainedTokenizerFast, prompt: Message, result: str) -> float:
    conversation = [
        {"role": "user", "content": prompt.content},
        {"role": "assistant", "content": CALL},
        {"role": "tool", "content": result},
    ]
    return cpu_us(lambda: tokenizer.apply_chat_template(conversation, add_generation_prompt=True))


def measure(kind: str, result: str, codec: ChatCodec, tokenizer: PreTrainedTokenizerFast) -> None:
    generation = sampled_call(codec, tokenizer)
    prompts = {context: question_of(context, tokenizer) for context in CONTEXTS}
    ours: dict[int, list[float]] = {context: [] for context in CONTEXTS}
    rendering: dict[int, list[float]] = {context: [] for context in CONTEXTS}
    limit: list[float] = []
    for _ in range(ROUNDS):
        for context, prompt in prompts.items():
            ours[context].append(our_round(codec, prompt, generation, result))
            limit.append(limit_round(codec, tokenizer, generation, result))
            if context <= RENDERED_UP_TO:
                rendering[context].append(rendering_round(tokenizer, prompt, result))
    report(kind, result, codec, ours, rendering, min(limit))


def report(
    kind: str,
    result: str,
    codec: ChatCodec,
    ours: dict[int, list[float]],
    rendering: dict[int, list[float]],
    limit_us: float,
) -> None:
    new = len(codec.encode_observations([Message("tool", result)], closed=True))
    print(f"\n{kind} turns: {new} new tokens of context each")
    print(f"{'context':>9} {'ours us/turn':>13} {'limit us/turn':>14} {'ours/limit':>11} {'rendering us':>13}")
    for context, rounds in ours.items():
        cost = min(rounds)
        again = f"{min(rendering[context]):13,.0f}" if rendering[context] else f"{'-':>13}"
        print(f"{context:9,} {cost:13.1f} {limit_us:14.1f} {cost / limit_us:11.2f} {again}")
    growth = min(ours[CONTEXTS[-1]]) / min(ours[CONTEXTS[0]])
    print(f"cost at {CONTEXTS[-1] >> 10}k / cost at {CONTEXTS[0] >> 10}k of context: {growth:.2f}")


def main() -> None:
    tokenizer = make_tokenizer()
    codec = ChatCodec(tokenizer)
    for kind, result in RESULTS.items():
        measure(kind, result, codec, tokenizer)


if __name__ == "__main__":
    main()
