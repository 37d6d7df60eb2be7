"""Texts the model wrote, and the files they are kept in."""

from __future__ import annotations

from pathlib import Path

import msgspec

from rtp_core.errors import WeightLoadError
from rtp_core.training.tensor_file import save_bytes

SOURCES = ("chat", "own", "code", "edit")
"""Where prompts come from: patterns and topics, the model itself, the standard library's code,
and tasks that repeat most of their prompt."""


class Text(msgspec.Struct, frozen=True, array_like=True):
    """`token_ids` begin with a prompt of `num_prompt` tokens; `ended` with a stop token."""

    token_ids: list[int]
    num_prompt: int
    source: str
    temperature: float
    seed: int
    ended: bool

    @property
    def answer(self) -> list[int]:
        """What the model wrote."""
        return self.token_ids[self.num_prompt :]


def write_texts(path: Path, texts: list[Text]) -> None:
    """Whole under its name, or not there."""
    save_bytes(path, msgspec.msgpack.encode(texts))


def read_texts(path: Path) -> list[Text]:
    """Raises WeightLoadError for a damaged file."""
    try:
        return msgspec.msgpack.decode(path.read_bytes(), type=list[Text])
    except msgspec.DecodeError as error:
        raise WeightLoadError(
            f"not a file of texts: {error}", file=str(path), remedy="remove it: it is made again"
        ) from error
