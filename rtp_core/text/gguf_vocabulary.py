"""The ``tokenizer.`` metadata of a GGUF file, checked: an error names key, found and expected."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NoReturn, TypeVar

from rtp_core.errors import ModelError
from rtp_core.text.gguf_pretokenizers import IGNORES_MERGES

NORMAL, UNKNOWN, CONTROL, USER_DEFINED, BYTE = 1, 2, 3, 4, 6
"""Types of tokens."""
KEY = "tokenizer.ggml."
REMEDY = (
    "put the model's tokenizer.json in a directory and name it as model.tokenizer (--tokenizer DIR)"
)
_TEMPLATE = "tokenizer.chat_template"
_T = TypeVar("_T")


class Vocabulary:
    """Raises ModelError, here or when a value is asked for, for what no tokenizer has."""

    def __init__(self, metadata: Mapping[str, Any]) -> None:
        self._metadata = metadata
        self.tokens = self._items("tokens", str)
        if not self.tokens:
            raise ModelError(f"GGUF metadata lack {KEY}tokens", remedy=REMEDY)
        self.kinds = self._items("token_type", int) or [NORMAL] * len(self.tokens)
        self.ids = {text: number for number, text in enumerate(self.tokens)}
        if len(self.kinds) != len(self.tokens):
            raise ModelError(
                f"GGUF metadata: {len(self.tokens)} tokens but {len(self.kinds)} token types",
                remedy=REMEDY,
            )
        if len(self.ids) != len(self.tokens):
            raise ModelError(f"GGUF metadata: {KEY}tokens has repetitions", remedy=REMEDY)

    @property
    def model(self) -> str:
        """``gpt2`` is byte-level BPE, ``llama`` SentencePiece-style BPE."""
        return str(self._get("model"))

    @property
    def pre(self) -> str:
        """How words are split; files older than the key mean ``default``."""
        return str(self._get("pre") or "default")

    def merges(self) -> list[str]:
        """Two tokens with a space between, in the order they are made."""
        found = self._items("merges", str)
        if not found:
            raise ModelError(f"GGUF metadata lack {KEY}merges", remedy=REMEDY)
        return found

    def scores(self) -> list[float]:
        """One a token; the best piece is made first."""
        found = self._items("scores", float)
        if len(found) != len(self.tokens):
            raise ModelError(f"GGUF metadata lack a {KEY}scores for each token", remedy=REMEDY)
        return found

    def flag(self, key: str, usual: bool) -> bool:
        """True or false, `usual` where the key is missing."""
        value = self._get(key)
        if value is not None and not isinstance(value, bool):
            _refuse(KEY + key, value, "true or false")
        return usual if value is None else value

    def role(self, name: str) -> str | None:
        """Text of the token with this role, such as ``bos``."""
        number, most = self._get(f"{name}_token_id"), len(self.tokens)
        if number is None:
            return None
        if not isinstance(number, int) or isinstance(number, bool) or not 0 <= number < most:
            _refuse(f"{KEY}{name}_token_id", number, f"an id below {most}")
        return self.tokens[number]

    def adds(self, name: str) -> bool:
        """True when texts get this token (``bos``, ``eos``) at their border."""
        usual = name == "bos" and (self.model == "llama" or self.pre in IGNORES_MERGES)
        return self.flag(f"add_{name}_token", usual) and self.role(name) is not None

    def chat_templates(self) -> dict[str, str]:
        """Templates by name; the one without a name is ``default``."""
        found = {
            key.removeprefix(f"{_TEMPLATE}."): text
            for key, text in self._metadata.items()
            if key.startswith(f"{_TEMPLATE}.")
        }
        if _TEMPLATE in self._metadata:
            found["default"] = self._metadata[_TEMPLATE]
        for name, text in found.items():
            if not isinstance(text, str):
                _refuse(f"{_TEMPLATE} ({name})", text, "text")
        return found

    def _get(self, key: str) -> Any:
        return self._metadata.get(KEY + key)

    def _items(self, key: str, kind: type[_T]) -> list[_T]:
        value = self._get(key)
        if value is None:
            return []
        if not isinstance(value, list) or any(type(one) is not kind for one in value):
            _refuse(KEY + key, value, f"a list of {kind.__name__}")
        return value


def _refuse(key: str, found: Any, expected: str) -> NoReturn:
    raise ModelError(f"GGUF metadata {key} is {found!r:.80}, expected {expected}", remedy=REMEDY)
