"""Text to token ids and back, over the `tokenizers` library."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Self

import tokenizers

from rtp_core.errors import ModelError, RequestError
from rtp_core.text.control_text import ControlText, encode_one
from rtp_core.text.token_bytes import ByteRule, byte_rule
from rtp_core.text.tokenizer_files import (
    TOKENIZER,
    named_special_tokens,
    read_config,
    read_tokenizer,
    token_content,
)

_MAX_ID = 2**32 - 1


class Tokenizer:
    """A model's tokenizer. Nothing in it changes after construction; any thread may use it.

    `backend` is owned from here on. `config` is tokenizer_config.json; its
    ``add_bos_token`` and ``add_eos_token``, if false, switch off what tokenizer.json adds.
    `named` holds the special tokens that have a role, such as ``bos_token``.
    """

    def __init__(
        self,
        backend: tokenizers.Tokenizer,
        config: Mapping[str, Any] | None = None,
        named: Mapping[str, str] | None = None,
    ) -> None:
        backend.no_truncation()  # tokenizer.json may carry the settings of a training run
        backend.no_padding()
        _mark_special(backend, config or {}, named or {})
        self._backend = backend
        added = backend.get_added_tokens_decoder()
        special = {number: token for number, token in added.items() if token.special}
        self.special_ids = frozenset(special)
        self._vocab_size = max(backend.get_vocab_size(), max(added, default=-1) + 1)
        self._prefix, self._suffix = _border_tokens(backend, config or {}, named or {})
        self._bytes: dict[int, bytes] = {}
        self.byte_rule: ByteRule | None = byte_rule(backend.decoder)
        self.control_text = ControlText(
            backend, {token.content: token for token in special.values()}
        )

    @classmethod
    def load(cls, directory: Path) -> Self:
        """From tokenizer.json and, where there, tokenizer_config and special_tokens_map.

        Raises ModelError with a remedy when a file is missing, truncated or malformed.
        """
        text = read_tokenizer(directory)
        try:
            backend = tokenizers.Tokenizer.from_str(text)
        except Exception as error:  # the library raises nothing more specific
            raise ModelError(
                f"{directory / TOKENIZER} is no usable tokenizer: {error}",
                remedy="it may be truncated; download it again",
            ) from error
        return cls(backend, read_config(directory), named_special_tokens(directory))

    @property
    def vocab_size(self) -> int:
        """One more than the largest id with a text. A model's output layer may be wider."""
        return self._vocab_size

    def encode(
        self, text: str, *, add_special_tokens: bool, allow_special: bool, param: str = "prompt"
    ) -> list[int]:
        """Ids of `text`.

        `add_special_tokens` adds what the model's texts begin and end with (BOS). With
        `allow_special` false, text that spells a special token stays text. Raises
        RequestError for `param` when `text` is not valid Unicode.
        """
        _check_text(text, param)
        if allow_special:
            ids = encode_one(self._backend, text)
        else:
            ids = self.control_text.encode_plain(text)
        return [*self._prefix, *ids, *self._suffix] if add_special_tokens else ids

    def encode_batch(
        self,
        texts: Sequence[str],
        *,
        add_special_tokens: bool,
        allow_special: bool,
        param: str = "prompt",
    ) -> list[list[int]]:
        """As `encode` for many texts, on several cores where there are some."""
        if not allow_special:
            return [
                self.encode(
                    text, add_special_tokens=add_special_tokens, allow_special=False, param=param
                )
                for text in texts
            ]
        for text in texts:
            _check_text(text, param)
        encodings = self._backend.encode_batch_fast(list(texts), add_special_tokens=False)
        if not add_special_tokens:
            return [encoding.ids for encoding in encodings]
        return [[*self._prefix, *encoding.ids, *self._suffix] for encoding in encodings]

    def encode_chat_text(self, text: str, mark: str | None) -> list[int]:
        """Ids of a rendered chat; special tokens with `mark` inside count as text.

        See `ControlText.hide`. Raises RequestError when `text` is not valid Unicode.
        """
        if mark is None:
            return self.encode(text, add_special_tokens=False, allow_special=True, param="messages")
        _check_text(text, "messages")
        return self.control_text.encode_hidden(text, mark)

    def decode(
        self, ids: Sequence[int], *, skip_special_tokens: bool = True, param: str = "tokens"
    ) -> str:
        """Text of `ids`; bytes that are not UTF-8 give U+FFFD, ids without a text nothing.

        Raises RequestError for `param` when an id is negative or beyond 32 bits.
        """
        if any(not 0 <= number <= _MAX_ID for number in ids):
            raise RequestError(param, f"a token id is between 0 and {self._vocab_size - 1}")
        return self._backend.decode_batch([ids], skip_special_tokens=skip_special_tokens)[0]

    def token_bytes(self, token_id: int) -> bytes:
        """Raw bytes of one token, possibly part of a character; empty for an unknown id."""
        found = self._bytes.get(token_id)
        if found is None:
            found = self._bytes[token_id] = self._find_bytes(token_id)
        return found

    def token_text(self, token_id: int) -> str:
        """Text of one token; bytes that are only part of a character give U+FFFD."""
        return self.token_bytes(token_id).decode("utf-8", errors="replace")

    def to_json(self) -> str:
        """As tokenizer.json, with everything special that is special here."""
        return self._backend.to_str()

    def is_special(self, token_id: int) -> bool:
        """True for control tokens, which `skip_special_tokens` leaves out of texts."""
        return token_id in self.special_ids

    def ids_of(self, texts: Iterable[str]) -> frozenset[int]:
        """Ids of those texts that are single tokens."""
        found = map(self._backend.token_to_id, texts)
        return frozenset(one for one in found if one is not None)

    def _find_bytes(self, token_id: int) -> bytes:
        text = self._backend.id_to_token(token_id) if 0 <= token_id <= _MAX_ID else None
        if text is None:
            return b""
        if self.byte_rule is not None:
            return self.byte_rule.to_bytes(text)
        return self._backend.decode([token_id], skip_special_tokens=False).encode()


def _check_text(text: str, param: str) -> None:
    if not isinstance(text, str):
        raise RequestError(param, f"{param} must be text")
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise RequestError(
            param,
            f"{param} is not valid Unicode: a lone surrogate at character {error.start}",
            remedy="send text that can be written as UTF-8",
        ) from error


def _mark_special(
    backend: tokenizers.Tokenizer, config: Mapping[str, Any], named: Mapping[str, str]
) -> None:
    """Make special what the configuration files call special and the vocabulary holds.

    Older models list their control tokens there only. A token without an id gets none: the
    model has no embedding for it.
    """
    added: Mapping[str, Any] = config.get("added_tokens_decoder") or {}
    listed = [one for one in added.values() if isinstance(one, dict) and one.get("special")]
    listed += config.get("additional_special_tokens") or []
    contents = dict.fromkeys([*named.values(), *filter(None, map(token_content, listed))])
    known = {one.content for one in backend.get_added_tokens_decoder().values() if one.special}
    backend.add_special_tokens(
        [
            tokenizers.AddedToken(text, normalized=False, special=True)
            for text in contents
            if text not in known and backend.token_to_id(text) is not None
        ]
    )


def _border_tokens(
    backend: tokenizers.Tokenizer, config: Mapping[str, Any], named: Mapping[str, str]
) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """What the post-processor puts before and after a text, unless the config forbids it."""
    probe = "a"
    bare = backend.encode(probe, add_special_tokens=False).ids
    full = backend.encode(probe, add_special_tokens=True).ids
    width = len(bare)
    starts = (at for at in range(len(full)) if width and full[at : at + width] == bare)
    start = next(starts, len(full))
    prefix, suffix = full[:start], full[start + width :]
    refused = {
        backend.token_to_id(named[f"{role}_token"])
        for role in ("bos", "eos")
        if config.get(f"add_{role}_token") is False and f"{role}_token" in named
    }
    return (
        tuple(number for number in prefix if number not in refused),
        tuple(number for number in suffix if number not in refused),
    )
