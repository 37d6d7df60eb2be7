"""Token ids to text, piece by piece: only whole characters leave, none is lost at the end."""

from __future__ import annotations

import codecs
from collections.abc import Sequence, Set
from typing import Protocol

from rtp_core.text.token_bytes import ByteRule
from rtp_core.text.tokenizer import Tokenizer

_PROMPT_TOKENS = 5
"""Prompt tokens given as context where a token's text depends on those before it."""
_MAX_HELD = 8
"""Tokens after which text that still looks unfinished is let go; UTF-8 needs four."""


class Detokenizer(Protocol):
    """One output's text as it grows. Constant work a token, on average."""

    def push(self, token_ids: Sequence[int]) -> str:
        """The text these tokens complete; an unfinished character waits."""
        ...

    def finish(self) -> str:
        """What still waits, with U+FFFD for an unfinished character."""
        ...


def make_detokenizer(
    tokenizer: Tokenizer,
    *,
    skip_special_tokens: bool = True,
    prompt_token_ids: Sequence[int] = (),
    shown: Set[int] = frozenset(),
) -> Detokenizer:
    """The detokenizer that fits this tokenizer.

    With a vocabulary that spells bytes the pieces joined are `tokenizer.decode` of all ids;
    only where SentencePiece-style bytes are invalid the number of U+FFFD may differ.
    `prompt_token_ids` says whether the output begins a text, whose first space is dropped.
    `shown` are special tokens that are not skipped.
    """
    hidden = tokenizer.special_ids - shown if skip_special_tokens else frozenset()
    if tokenizer.byte_rule is None:
        return _WindowDetokenizer(tokenizer, hidden, prompt_token_ids)
    return _ByteDetokenizer(tokenizer, tokenizer.byte_rule, hidden, prompt_token_ids)


class _ByteDetokenizer:
    """Joins the tokens' bytes and lets whole characters through."""

    def __init__(
        self, tokenizer: Tokenizer, rule: ByteRule, hidden: Set[int], prompt: Sequence[int]
    ) -> None:
        self._tokenizer = tokenizer
        self._hidden = hidden
        self._utf8 = codecs.getincrementaldecoder("utf-8")("replace")
        self._strip = rule.strips_start and not any(map(self._bytes_of, reversed(prompt)))

    def push(self, token_ids: Sequence[int]) -> str:
        data = b"".join(map(self._bytes_of, token_ids))
        if self._strip and data:
            self._strip = False
            data = data.removeprefix(b" ")
        return self._utf8.decode(data)

    def finish(self) -> str:
        return self._utf8.decode(b"", final=True)

    def _bytes_of(self, token_id: int) -> bytes:
        if token_id in self._hidden:
            return b""
        return self._tokenizer.token_bytes(token_id)


class _WindowDetokenizer:
    """Decodes the newest tokens twice, without and with the new one, and emits the difference.

    For decoders that look at neighbours (WordPiece, Metaspace). `_ids[:_read]` is context
    whose text is out already.
    """

    def __init__(self, tokenizer: Tokenizer, hidden: Set[int], prompt: Sequence[int]) -> None:
        self._tokenizer = tokenizer
        self._hidden = hidden
        self._ids = [number for number in prompt[-_PROMPT_TOKENS:] if self._visible(number)]
        self._read = len(self._ids)

    def push(self, token_ids: Sequence[int]) -> str:
        return "".join(map(self._push_one, token_ids))

    def finish(self) -> str:
        return self._emit(self._decode(self._ids))

    def _push_one(self, token_id: int) -> str:
        if not self._visible(token_id):
            return ""
        self._ids.append(token_id)
        text = self._decode(self._ids)
        if text.endswith("\ufffd") and len(self._ids) - self._read < _MAX_HELD:
            return ""
        return self._emit(text)

    def _emit(self, text: str) -> str:
        """The newest tokens become the context of the next ones."""
        known = self._decode(self._ids[: self._read])
        self._ids = self._ids[self._read :]
        self._read = len(self._ids)
        return text[len(known) :]

    def _visible(self, token_id: int) -> bool:
        return token_id not in self._hidden

    def _decode(self, ids: Sequence[int]) -> str:
        return self._tokenizer.decode(ids, skip_special_tokens=False)
