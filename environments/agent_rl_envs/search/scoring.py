"""What an answer is worth: pure functions from texts to numbers in [0, 1].

Texts are normalised as the SQuAD evaluation does (Rajpurkar et al. 2016): lower case, without punctuation and articles.
"""

from __future__ import annotations

import re
import string
from collections import Counter
from collections.abc import Collection, Mapping, Sequence

COVER_SLACK = 10
"""Words that an answer may have beyond the gold one for `cover_exact_match`, so that a list of guesses is none."""

_ARTICLES = re.compile(r"\b(a|an|the)\b")
_PUNCTUATION = str.maketrans("", "", string.punctuation)
_CITATION = re.compile(r"\[([^\[\]\n]{1,300})\]")


def words_of(text: str) -> list[str]:
    """The normalised words of a text."""
    return _ARTICLES.sub(" ", text.lower().translate(_PUNCTUATION)).split()


def exact_match(answer: str, golds: Sequence[str]) -> float:
    """1 if the answer is one of the gold answers (any alias)."""
    return float(any(words_of(answer) == words_of(gold) for gold in golds))


def f1(answer: str, golds: Sequence[str]) -> float:
    """Harmonic mean of precision and recall of words, the best over the gold answers.

    `yes`, `no` and `noanswer` are right or wrong as a whole, as in HotpotQA's evaluation (Yang et al. 2018).
    """
    return max((_f1(words_of(answer), words_of(gold)) for gold in golds), default=0.0)


def _f1(answer: list[str], gold: list[str]) -> float:
    whole = (["yes"], ["no"], ["noanswer"])
    if answer in whole or gold in whole:
        return float(answer == gold)
    shared = sum((Counter(answer) & Counter(gold)).values())
    return 2 * shared / (len(answer) + len(gold)) if shared else 0.0


def cover_exact_match(answer: str, golds: Sequence[str]) -> float:
    """1 if the answer contains a gold answer as a run of whole words and is not longer by more than `COVER_SLACK`."""
    said = words_of(answer)
    return float(any(_covers(said, words_of(gold)) for gold in golds))


def names(text: str, gold: str) -> bool:
    """Whether a text has a gold answer as a run of whole words."""
    return _has(words_of(text), words_of(gold))


def _covers(said: list[str], gold: list[str]) -> bool:
    return len(said) <= len(gold) + COVER_SLACK and _has(said, gold)


def _has(said: list[str], gold: list[str]) -> bool:
    return bool(gold) and any(said[i : i + len(gold)] == gold for i in range(len(said) - len(gold) + 1))


def citation_scores(text: str, shown: Mapping[str, str], support: Collection[str]) -> tuple[float, float]:
    """Precision and recall of citations against `support`: ids of passages, or titles of pages, that give the answer.

    Everything in brackets counts for precision, made up or not. Raises `ValueError` without support.
    """
    if not support:
        raise ValueError("there is nothing that could be cited")
    wanted = {_key(name) for name in support}
    names = {id: {_key(id), _key(title)} & wanted for id, title in shown.items()}
    brackets = _CITATION.findall(text)
    cited = {part.strip() for bracket in brackets for part in ([bracket] if bracket in shown else bracket.split(","))}
    cited -= {""}
    found = set[str]().union(*(names.get(id, set()) for id in cited))
    right = sum(bool(names.get(id)) for id in cited)
    return right / len(cited) if cited else 0.0, len(found) / len(wanted)


def _key(name: str) -> str:
    return " ".join(name.split()).casefold()


def without_citations(text: str) -> str:
    """The text without its citations, which are no part of an answer."""
    return " ".join(_CITATION.sub(" ", text).split())
