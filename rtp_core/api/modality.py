"""Media: the API process plans without torch, the engine encodes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True, slots=True)
class MediaItem:
    """One decoded-on-demand media object; travels by digest, never inside step messages."""

    digest: str
    kind: str
    num_tokens: int


class MediaPlanner(Protocol):
    """API-process half: probe, hash, and count the placeholder tokens."""

    def plan(self, data: bytes, kind: str) -> MediaItem:
        """Raises RequestError for unusable media."""
        ...


class ModalityEncoder(Protocol):
    """Engine half: features of whole items, [num_tokens, hidden_size] each."""

    def encode(self, items: Sequence[MediaItem], data: Sequence[bytes]) -> Sequence[torch.Tensor]:
        """A failing item fails its own request."""
        ...
