"""Text that spells a special token, kept from becoming one.

`<|im_end|>` written by a chat template ends a turn; the same characters inside a user's
message are only characters. Two means: a twin tokenizer in which every special token has an
unguessable name, so that nothing a user writes can match one; and marks, inserted into the
spellings inside messages before a template is rendered, by which the template's own special
tokens are told apart afterwards.
"""

from __future__ import annotations

import json
import re
import secrets
import threading
from collections.abc import Mapping
from typing import Any

import tokenizers


class ControlText:
    """Spellings of one tokenizer's special tokens. Thread-safe.

    Tokens of a single character cannot be marked; inside chats they count as text.
    """

    def __init__(self, backend: tokenizers.Tokenizer, special: Mapping[str, Any]) -> None:
        self._backend = backend
        self._special = dict(special)
        long = sorted((text for text in special if len(text) > 1), key=len, reverse=True)
        self._pattern = re.compile(
            "|".join(_spelling(text, special[text]) for text in long) or "(?!)"
        )
        self._openings = frozenset(text[:end] for text in long for end in range(1, len(text)))
        self._longest = max(map(len, long), default=0)
        self._normalizer = None
        if any(token.normalized for token in special.values()):
            self._normalizer = backend.normalizer
        self._twin: _Twin | None = None
        self._lock = threading.Lock()

    def encode_plain(self, text: str) -> list[int]:
        """Ids of `text` with no special token among them; `text` holds no surrogate."""
        if not self._special:
            return encode_one(self._backend, text)
        return encode_one(self._renamed().backend, text)

    def occurs_in(self, value: Any) -> bool:
        """True when a string in this JSON-like value spells a special token or begins one.

        A beginning counts because a template may join two strings of a message.
        """
        if isinstance(value, str):
            return self._spells(value) or self._open_end(value) > 0
        if isinstance(value, Mapping):
            return any(self.occurs_in(key) or self.occurs_in(item) for key, item in value.items())
        if isinstance(value, (list, tuple)):
            return any(self.occurs_in(item) for item in value)
        return False

    def hide(self, value: Any, mark: str) -> Any:
        """A copy of `value` with `mark` inside each spelling.

        The mark never stands at the border of a string, where it would shield white space
        from a template's `trim`.
        """
        if isinstance(value, str):
            return self._hide_text(value, mark)
        if isinstance(value, Mapping):
            return {self.hide(key, mark): self.hide(item, mark) for key, item in value.items()}
        if isinstance(value, (list, tuple)):
            return [self.hide(item, mark) for item in value]
        return value

    def encode_hidden(self, text: str, mark: str) -> list[int]:
        """Ids of rendered text: special tokens where no mark stands, text everywhere else.

        One pass of the twin over the whole text, so that merges across the borders of
        messages are those of an ordinary encoding.
        """
        twin = self._renamed()
        named = self._pattern.sub(lambda match: twin.names[match[0]], text)
        return encode_one(twin.backend, named.replace(mark, ""))

    def _spells(self, text: str) -> bool:
        if self._pattern.search(text):
            return True
        if self._normalizer is None:
            return False
        return self._pattern.search(self._normalizer.normalize_str(text)) is not None

    def _open_end(self, text: str) -> int:
        """Position after an unfinished spelling at the end of `text`, or 0."""
        end = len(text.rstrip())
        tail = text[max(0, end - self._longest) : end]
        if any(tail[-length:] in self._openings for length in range(1, len(tail) + 1)):
            return end
        return 0

    def _hide_text(self, text: str, mark: str) -> str:
        end = self._open_end(text)
        if end:
            text = f"{text[:end]}{mark}{text[end:]}"
        return self._pattern.sub(lambda match: f"{match[0][0]}{mark}{match[0][1:]}", text)

    def _renamed(self) -> _Twin:
        with self._lock:
            if self._twin is None:
                self._twin = _Twin(self._backend, self._special)
            return self._twin


def encode_one(backend: tokenizers.Tokenizer, text: str) -> list[int]:
    """Ids of `text`. Unlike the library's `encode`, its batch call lets other threads run."""
    return backend.encode_batch_fast([text], add_special_tokens=False)[0].ids


def new_mark() -> str:
    """A string that nobody can guess and that JSON, case and trimming filters leave alone."""
    return str(secrets.randbelow(9 * 10**38) + 10**38)


def _spelling(text: str, token: Any) -> str:
    pattern = re.escape(text)
    return rf"(?<!\w){pattern}(?!\w)" if token.single_word else pattern


class _Twin:
    """The same tokenizer with secret names for its special tokens; `names` by old content."""

    def __init__(self, backend: tokenizers.Tokenizer, special: Mapping[str, Any]) -> None:
        secret = new_mark()
        self.names = {text: f"<{secret}.{number}>" for number, text in enumerate(special)}
        state = json.loads(backend.to_str())
        for token in state["added_tokens"]:
            token["content"] = self.names.get(token["content"], token["content"])
        _rename_vocabulary(state["model"], self.names)
        state["post_processor"] = None  # its tokens are added by the caller
        self.backend = tokenizers.Tokenizer.from_str(json.dumps(state, ensure_ascii=False))


def _rename_vocabulary(model: dict[str, Any], names: Mapping[str, str]) -> None:
    """Also drops the merges that spell a special token: some vocabularies have them."""
    vocab = model["vocab"]
    if isinstance(vocab, dict):
        model["vocab"] = {names.get(text, text): number for text, number in vocab.items()}
    else:
        model["vocab"] = [[names.get(text, text), score] for text, score in vocab]
    if model.get("unk_token") in names:
        model["unk_token"] = names[model["unk_token"]]
    if "merges" in model:
        pairs = [one.split(" ", 1) if isinstance(one, str) else one for one in model["merges"]]
        model["merges"] = [
            pair for pair in pairs if names.keys().isdisjoint((*pair, "".join(pair)))
        ]
