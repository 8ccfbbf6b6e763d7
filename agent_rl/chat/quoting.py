"""Text to ids such that data never turns into special tokens.

Data (messages, tool results, tool descriptions) may spell `<|im_end|>`; written into a template as it is, it would end
the turn. So data is quoted before the template sees it, and what is quoted is encoded as plain text. Almost no data
needs it: then quoting is one regex search and encoding one call. Knows nothing of messages and templates.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any, TypeVar, cast

import numpy as np

from agent_rl.types import IntArray

T = TypeVar("T")

# Unicode non-characters: they do not occur in real text, and are quoted themselves where they do.
_OPEN, _CLOSE = "\ufdd0", "\ufdd1"


class QuotingEncoder:
    """Wraps a Rust tokenizer (`tokenizers.Tokenizer`) of which it keeps a private copy: no padding, no truncation."""

    def __init__(self, backend: Any) -> None:
        self._backend = _private_copy(backend)
        self._plain_backend: Any = None
        added: dict[int, Any] = self._backend.get_added_tokens_decoder()
        self.special_ids = frozenset(i for i, token in added.items() if token.special)
        longest_first = sorted((added[i].content for i in self.special_ids), key=len, reverse=True)
        self.special_pattern = re.compile("|".join(map(re.escape, longest_first)) or "(?!)")
        self._unsafe = re.compile(f"{self.special_pattern.pattern}|[{_OPEN}{_CLOSE}]")
        self._quoted = re.compile(f"{_OPEN}({self._unsafe.pattern}){_CLOSE}|[{_OPEN}{_CLOSE}]")

    def quote(self, data: T) -> T:
        """A copy of a JSON value with every special token quoted that its strings spell."""
        return cast(T, self._quote(data))

    def count_unsafe(self, text: str) -> int:
        """How many pieces of `text` quoting would quote."""
        return len(self._unsafe.findall(text))

    def encode(self, text: str) -> IntArray:
        """Ids of text, parts of which are quoted."""
        if _OPEN not in text and _CLOSE not in text:
            return np.array(_ids(self._backend, text), np.int32)
        ids: list[int] = []
        # split() alternates between ordinary text and the quoted group (None for a stray mark, which is dropped)
        for index, piece in enumerate(self._quoted.split(text)):
            if piece:
                ids += self._encode_plain(piece) if index % 2 else _ids(self._backend, piece)
        return np.array(ids, np.int32)

    def ends(self, text: str, head: int, tail: int) -> tuple[int, int]:
        """Where the first `head` tokens of plain text end and the last `tail` begin, in characters, never inside one.

        The former is not less than the latter when `text` has no more tokens than that.
        """
        encoding = _encoding(self._plain, text)
        offsets: list[tuple[int, int]] = encoding.offsets
        if len(offsets) <= head + tail:
            return len(text), len(text)
        # A character may take several tokens, each with the character's offsets: where one is cut, all of it is.
        return offsets[head][0], offsets[len(offsets) - tail - 1][1]

    def decode(self, ids: IntArray | Sequence[int]) -> str:
        """Text of `ids`, special tokens included."""
        return self._backend.decode(np.asarray(ids).tolist(), skip_special_tokens=False)

    def _quote(self, data: Any) -> Any:
        if isinstance(data, str):
            if self.special_pattern.search(data) is None and _OPEN not in data and _CLOSE not in data:
                return data  # three quick searches instead of the slow one for all at once
            return self._unsafe.sub(f"{_OPEN}\\g<0>{_CLOSE}", data)
        if isinstance(data, dict):
            items = cast(dict[Any, Any], data).items()
            return {self._quote(key): self._quote(value) for key, value in items}
        if isinstance(data, list | tuple):
            return [self._quote(value) for value in cast(list[Any], data)]
        return data

    @property
    def _plain(self) -> Any:
        """The tokenizer without special tokens."""
        if self._plain_backend is None:
            self._plain_backend = _private_copy(self._backend)
            self._plain_backend.encode_special_tokens = True
        return self._plain_backend

    def _encode_plain(self, text: str) -> list[int]:
        ids = _ids(self._plain, text)
        if self.special_ids.isdisjoint(ids):
            return ids
        # The vocabulary itself spells the token (Unigram models): no two of its characters may meet.
        return [i for character in text for i in _ids(self._plain, character)]


def _ids(backend: Any, text: str) -> list[int]:
    return _encoding(backend, text).ids


def _encoding(backend: Any, text: str) -> Any:
    try:
        return backend.encode(text, add_special_tokens=False)
    except TypeError:  # lone surrogates, for example from a tool that read a file with `surrogateescape`
        return backend.encode(text.encode("utf-8", "replace").decode(), add_special_tokens=False)


def _private_copy(backend: Any) -> Any:
    copy: Any = cast(Any, type(backend)).from_str(backend.to_str())
    copy.no_padding()
    copy.no_truncation()
    return copy
