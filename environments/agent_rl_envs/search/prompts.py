"""What the model is told: the way of working in the style of two papers or plainly, and how to answer and cite."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal, TypeAlias

PromptStyle: TypeAlias = Literal["plain", "search_r1", "deep_research"]
AnswerFormat: TypeAlias = Literal["tags", "plain", "submit"]

_STYLES: Mapping[PromptStyle, str] = {
    "plain": "Answer the question with the help of the tools. It may take several searches: what one finds can be "
    "what the next has to look for.",
    # after the template of Search-R1 (arXiv:2503.09516, table 1), with tool calls for its <search> tags
    "search_r1": "Answer the given question. You must conduct reasoning first every time you get new information. "
    "After reasoning, if you find you lack some knowledge, call search; its results come back to you. You can search "
    "as many times as you want. If you find no further external knowledge needed, directly provide the answer without "
    "detailed illustrations.",
    # after the way of working of DeepResearcher (arXiv:2504.03160, section 3)
    "deep_research": "You are a researcher. Begin with a short plan of what has to be found out. Search for one thing "
    "at a time, read pages that look right in full, note what you learned, and change the plan when it was wrong. "
    "Check what matters against a second source before you answer.",
}
_ANSWERS: Mapping[AnswerFormat, str] = {
    "tags": "Give the final answer inside <answer> and </answer>, as short as possible, "
    "such as <answer>Beijing</answer>.",
    "plain": "Then reply with nothing but the answer, as short as possible.",
    "submit": "Then call submit with the answer, as short as possible.",
}
_CITE = "After it cite the passages that it rests on by their ids, such as [12] [7]."


def system_prompt(style: PromptStyle, answer: AnswerFormat, *, cite: bool) -> str:
    """The system message."""
    return " ".join([_STYLES[style], _ANSWERS[answer], *([_CITE] if cite else [])])


def how_to_answer(answer: AnswerFormat) -> str:
    """The form of an answer."""
    return _ANSWERS[answer]


def reminder(answer: AnswerFormat) -> str:
    """What a message that is neither a call nor an answer is told."""
    return f"This is no answer yet. Call a tool, or finish. {_ANSWERS[answer]}"
