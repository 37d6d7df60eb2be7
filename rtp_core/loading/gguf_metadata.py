"""Typed access to GGUF metadata: an error names the key."""

from __future__ import annotations

import math
from typing import Any

from rtp_core.errors import ModelError
from rtp_core.loading.gguf import GGUFFile

ARCHITECTURES = {"llama": "LlamaForCausalLM"}
_MISSING = object()


class Metadata:
    """Keys of one architecture. Raises ModelError for files that cannot be read alone."""

    def __init__(self, file: GGUFFile) -> None:
        self._values = file.metadata
        kind = self._values.get("general.architecture")
        if not isinstance(kind, str) or kind not in ARCHITECTURES:
            raise ModelError(
                f"GGUF architecture {kind!r} is not supported",
                remedy=f"supported: {', '.join(ARCHITECTURES)}",
            )
        parts = self._values.get("split.count", 1)
        if parts not in (0, 1):
            raise ModelError(
                f"{file.path} is one of {parts} parts", remedy="merge them with gguf-split --merge"
            )
        self.architecture = kind
        self.hugging_face_architecture = ARCHITECTURES[kind]

    def get(self, key: str, default: Any) -> Any:
        """The architecture's value of `key`, whatever it is."""
        return self._values.get(f"{self.architecture}.{key}", default)

    def count(self, key: str, default: int | None = None) -> int:
        """A positive whole number."""
        value = self._need(key, default)
        if not _whole(value) or value < 1:
            raise self._wrong(key, value, "a positive whole number")
        return value

    def number(self, key: str, default: float | None = None) -> float:
        """A positive, finite number."""
        value = self._need(key, default)
        if not (_whole(value) or isinstance(value, float)) or not 0 < value < math.inf:
            raise self._wrong(key, value, "a positive number")
        return value

    def token_id(self, which: str) -> int | None:
        """The id of a special token ("bos", "eos" …), if it is declared."""
        value = self._values.get(f"tokenizer.ggml.{which}_token_id")
        if value is None or _whole(value):
            return value
        raise ModelError(f"GGUF metadata tokenizer.ggml.{which}_token_id is {value!r}, not an id")

    def items(self, key: str) -> list[Any]:
        """A list, by its full key; empty if it is missing."""
        value = self._values.get(key, [])
        if isinstance(value, list):
            return value
        raise ModelError(f"GGUF metadata {key} is {value!r}, not a list")

    def _need(self, key: str, default: Any) -> Any:
        value = self.get(key, _MISSING if default is None else default)
        if value is _MISSING:
            raise ModelError(f"GGUF metadata lacks {self.architecture}.{key}")
        return value

    def _wrong(self, key: str, value: Any, wanted: str) -> ModelError:
        return ModelError(f"GGUF metadata {self.architecture}.{key} is {value!r}, not {wanted}")


def _whole(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)
