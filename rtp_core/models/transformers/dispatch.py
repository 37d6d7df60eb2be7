"""Our attention under the name ``rtp`` in transformers' registries.

Models call `attend` in every layer and `describe_mask` once for every kind of mask. Both are
plain functions without an engine; the forward pass they belong to is found in a context
variable, so that engines in other threads do not meet.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any, Protocol

import torch

NAME = "rtp"


@dataclass(frozen=True, slots=True)
class Visibility:
    """Takes the place of a mask. A token sees itself and what precedes it.

    `window` counts visible tokens, None means all; `problem` says what else a mask would do.
    """

    window: int | None = None
    problem: str | None = None


class ForwardPass(Protocol):
    """Who answers while a model runs."""

    def mask(self, function: Callable[..., Any]) -> Visibility:
        """`function(batch, head, query, key)` says whether the key is visible to the query."""
        ...

    def attend(
        self,
        module: torch.nn.Module,
        heads: tuple[torch.Tensor, torch.Tensor, torch.Tensor],
        mask: Any,
        options: Mapping[str, Any],
    ) -> torch.Tensor:
        """Query, key, value [1, heads, tokens, dim] -> [1, tokens, heads, value dim]."""
        ...


_CURRENT: ContextVar[ForwardPass] = ContextVar("rtp_forward_pass")


@contextmanager
def answering(forward_pass: ForwardPass) -> Iterator[None]:
    """Models run inside by this thread ask `forward_pass`."""
    token = _CURRENT.set(forward_pass)
    try:
        yield
    finally:
        _CURRENT.reset(token)


def attend(
    module: torch.nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: Any,
    **options: Any,
) -> tuple[torch.Tensor, None]:
    """transformers' attention function; no attention weights are returned."""
    heads = (query, key, value)
    return _CURRENT.get().attend(module, heads, attention_mask, options), None


def describe_mask(*, mask_function: Callable[..., Any], **shape: Any) -> Visibility:
    """transformers' mask function; nothing of the size of tokens x tokens is made."""
    del shape
    return _CURRENT.get().mask(mask_function)


def register() -> None:
    """Make the name known; doing it again changes nothing."""
    from transformers import AttentionInterface, AttentionMaskInterface

    AttentionInterface.register(NAME, attend)
    AttentionMaskInterface.register(NAME, describe_mask)  # pyright: ignore[reportArgumentType]
