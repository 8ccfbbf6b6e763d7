"""WebArena's checks of answers, addresses and page contents (arXiv:2307.13854, section 3.2), as its evaluator
does them.

Pure. What only a model can judge (`fuzzy_match`) is in `source.py`.
"""

from __future__ import annotations

import html
import re
from collections.abc import Mapping, Sequence
from urllib.parse import parse_qs, urlsplit

_OR = " |OR| "


def clean(text: str) -> str:
    """Lower case, without blanks around and without one pair of quotation marks."""
    text = text.strip()
    for mark in ("'", '"'):
        if text.startswith(mark) and text.endswith(mark):
            return text[1:-1].lower()
    return text.lower()


def exact_match(answer: str, reference: str) -> bool:
    """Whether they are the same."""
    return clean(answer) == clean(reference)


def must_include(answer: str, references: Sequence[str]) -> bool:
    """Whether all are in the answer. A single character that is alone has to be a word: 1 is not in 10."""
    answer = clean(answer)
    if len(references) == 1 and len(clean(references[0])) == 1:
        return clean(references[0]) in re.findall(r"\w+(?:[.,]\w+)*|[^\w\s]", answer)
    return all(clean(reference) in answer for reference in references)


def url_match(url: str, reference: str) -> bool:
    """Whether `url` has one of the addresses in it, and for each query parameter of theirs one of the values."""
    references = [urlsplit(one.rstrip("/")) for one in reference.split(_OR)]
    parts = urlsplit(url.rstrip("/"))
    queries: dict[str, set[str]] = {}
    for one in references:
        for name, values in parse_qs(one.query).items():
            queries.setdefault(name, set()).update(values)
    asked = parse_qs(parts.query)
    return any(one.netloc + one.path in parts.netloc + parts.path for one in references) and all(
        values & set(asked.get(name, [])) for name, values in queries.items()
    )


def content_match(content: str, required: Mapping[str, object]) -> bool:
    """Whether a part of a page is as `required_contents` says. Raises `ValueError` for another kind of requirement."""
    content = html.unescape(content)
    match required:
        case {"exact_match": str(reference)}:
            return exact_match(content, reference)
        case {"must_include": [*texts]}:
            content = clean(content)
            return all(any(clean(one) in content for one in str(text).split(_OR)) for text in texts)
        case _:
            raise ValueError(f"contents can be required by exact_match or must_include, not {list(required)}")
