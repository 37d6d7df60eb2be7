"""A step as attention on the device takes it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Protocol

import torch

from rtp_core.api import BoundAttention


@dataclass(frozen=True, slots=True)
class Rows:
    """Rows of a step, in static tensors.

    tables: int32 [rows, width] a KV group. lengths int32 [rows]: keys, new ones included.
    starts int32 [rows + 1]: first token of each row among `tokens`.
    max_new: most new tokens of a row; context: a bound of all lengths.
    runs: (new tokens, cached tokens before them) of every row, where the host knows and there
    are no padding rows.
    """

    num_tokens: int
    tables: tuple[torch.Tensor, ...]
    lengths: torch.Tensor
    starts: torch.Tensor
    max_new: int
    context: int
    runs: tuple[tuple[int, int], ...] | None = None


@dataclass(frozen=True, slots=True)
class DeviceStep:
    """Rows with one new token each, then rows with several; either may be missing."""

    single: Rows | None
    several: Rows | None


class DeviceAttention(BoundAttention, Protocol):
    """Attention whose `run` takes a DeviceStep for its plan, and nothing from the host."""

    def reserve(self, shapes: Iterable[tuple[int, int, int]]) -> None:
        """Work space for all decoding to come: (rows, new tokens a row, context)."""
        ...

    def reset(self) -> None:
        """After a step that was aborted half way."""
        ...
