"""Dense KV memory: layer- and head-major planes, so that adjacent blocks are one view."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from rtp_core.api import BlockCopy, KVFormatId, KVGroup, KVMemory, KVSpace
from rtp_core.kv.block_space import BlockSpace
from rtp_kernels.block_copy.reference import block_copy


class DenseStore:
    """Blocks in the model's dtype; see `api.KVStore`."""

    formats = (KVFormatId.DENSE,)

    def block_bytes(self, group: KVGroup, block_size: int) -> int:
        """K and V of all layers of the group."""
        per_token = sum(
            plane.num_heads * plane.head_dim * getattr(torch, plane.dtype).itemsize
            for plane in group.planes
        )
        return len(group.layers) * block_size * per_token

    def open(
        self, groups: Sequence[KVGroup], num_blocks: Sequence[int], block_size: int, device: str
    ) -> KVMemory:
        """Zeroed planes; the system commits pages as they are used."""
        return DenseMemory(groups, num_blocks, block_size, device)


class DenseMemory:
    """Per group two tensors [layers, kv_heads, num_blocks * block_size, head_dim]."""

    def __init__(
        self, groups: Sequence[KVGroup], num_blocks: Sequence[int], block_size: int, device: str
    ) -> None:
        self._block_size = block_size
        self._spaces = [BlockSpace(count) for count in num_blocks]
        self._planes: list[tuple[torch.Tensor, torch.Tensor]] = []
        self._where: dict[int, tuple[int, int]] = {}
        for number, (group, count) in enumerate(zip(groups, num_blocks, strict=True)):
            keys, values = (
                torch.zeros(
                    (len(group.layers), plane.num_heads, count * block_size, plane.head_dim),
                    dtype=getattr(torch, plane.dtype),
                    device=device,
                )
                for plane in group.planes
            )
            self._planes.append((keys, values))
            for index, layer in enumerate(group.layers):
                self._where[layer] = (number, index)

    @property
    def num_bytes(self) -> int:
        """Bytes reserved on the device."""
        return sum(plane.nbytes for pair in self._planes for plane in pair)

    def space(self, group: int) -> KVSpace:
        """Allocator of a group."""
        return self._spaces[group]

    def planes(self, layer: int) -> tuple[torch.Tensor, torch.Tensor]:
        """K and V of a layer, [kv_heads, slots, head_dim] views."""
        group, index = self._where[layer]
        keys, values = self._planes[group]
        return keys[index], values[index]

    def copy(self, copies: Sequence[BlockCopy]) -> None:
        """Whole blocks, in order."""
        for one in copies:
            for plane in self._planes[one.group]:
                block_copy(plane, ((one.source, one.destination),), self._block_size)

    def export_block(self, group: int, block: int) -> bytes:
        """Canonical blob: layer, K then V, head, token, dim."""
        parts = torch.stack([part.cpu() for part in self._parts(group, block)], dim=1)
        return parts.contiguous().view(torch.uint8).numpy().tobytes()

    def import_block(self, group: int, block: int, blob: bytes) -> None:
        """Inverse of `export_block`; raises ValueError on a wrong length."""
        keys, values = self._parts(group, block)
        if len(blob) != keys.nbytes + values.nbytes:
            raise ValueError(f"a block has {keys.nbytes + values.nbytes} bytes, not {len(blob)}")
        flat = torch.frombuffer(bytearray(blob), dtype=keys.dtype)
        both = flat.view(keys.shape[0], 2, *keys.shape[1:])
        keys.copy_(both[:, 0])
        values.copy_(both[:, 1])

    def _parts(self, group: int, block: int) -> tuple[torch.Tensor, torch.Tensor]:
        start = block * self._block_size
        keys, values = (plane.narrow(2, start, self._block_size) for plane in self._planes[group])
        return keys, values
