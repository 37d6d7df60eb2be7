"""Media whose tokens are its bytes."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import TYPE_CHECKING

from rtp_core.api import MediaItem
from rtp_core.errors import RequestError

if TYPE_CHECKING:
    import torch


class BytePlanner:
    """`api.MediaPlanner`: anything that starts and ends like a PNG is an image of four tokens."""

    def plan(self, data: bytes, kind: str) -> MediaItem:
        """Raises RequestError for other bytes or kinds."""
        whole = data.startswith(b"\x89PNG") and b"IEND" in data
        if kind != "image" or not whole:
            raise RequestError("image_url", f"these bytes are not a usable {kind}")
        return MediaItem(hashlib.blake2b(data, digest_size=16).hexdigest(), kind, num_tokens=4)


class ConstantEncoder:
    """`api.ModalityEncoder`: every feature of an item is one number made from its bytes."""

    def __init__(self, hidden_size: int) -> None:
        self._hidden_size = hidden_size

    def encode(self, items: Sequence[MediaItem], data: Sequence[bytes]) -> Sequence[torch.Tensor]:
        """[num_tokens, hidden_size] an item."""
        import torch

        return [
            torch.full((item.num_tokens, self._hidden_size), sum(raw) % 251 / 251)
            for item, raw in zip(items, data, strict=True)
        ]
