"""Dense KV memory: layer- and head-major planes, so that adjacent blocks are one view."""

from __future__ import annotations

import math
import mmap
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
        state = group.block_state * getattr(torch, group.planes[0].dtype).itemsize
        return len(group.layers) * block_size * per_token + state

    def open(
        self, groups: Sequence[KVGroup], num_blocks: Sequence[int], block_size: int, device: str
    ) -> KVMemory:
        """Zeroed planes; the system commits pages as they are used."""
        return DenseMemory(groups, num_blocks, block_size, device)


class DenseMemory:
    """Per group two tensors [layers, kv_heads, num_blocks * block_size, head_dim], and states."""

    def __init__(
        self, groups: Sequence[KVGroup], num_blocks: Sequence[int], block_size: int, device: str
    ) -> None:
        self._block_size = block_size
        self._spaces = [BlockSpace(count) for count in num_blocks]
        self._planes: list[tuple[torch.Tensor, torch.Tensor]] = []
        self._states: list[torch.Tensor] = []
        self._where: dict[int, tuple[int, int]] = {}
        for number, (group, count) in enumerate(zip(groups, num_blocks, strict=True)):
            keys, values = (
                _zeros(
                    (len(group.layers), plane.num_heads, count * block_size, plane.head_dim),
                    getattr(torch, plane.dtype),
                    device,
                )
                for plane in group.planes
            )
            self._planes.append((keys, values))
            state = torch.zeros(count, group.block_state, dtype=keys.dtype, device=device)
            self._states.append(state)
            for index, layer in enumerate(group.layers):
                self._where[layer] = (number, index)

    @property
    def num_bytes(self) -> int:
        """Bytes reserved on the device."""
        planes = sum(plane.nbytes for pair in self._planes for plane in pair)
        return planes + sum(state.nbytes for state in self._states)

    def space(self, group: int) -> KVSpace:
        """Allocator of a group."""
        return self._spaces[group]

    def planes(self, layer: int) -> tuple[torch.Tensor, torch.Tensor]:
        """K and V of a layer, [kv_heads, slots, head_dim] views."""
        group, index = self._where[layer]
        keys, values = self._planes[group]
        return keys[index], values[index]

    def states(self, group: int) -> torch.Tensor:
        """[num_blocks, block_state] of a group."""
        return self._states[group]

    def copy(self, copies: Sequence[BlockCopy]) -> None:
        """Whole blocks, in order."""
        for one in copies:
            states = self._states[one.group]
            states[one.destination] = states[one.source]
            for plane in self._planes[one.group]:
                block_copy(plane, ((one.source, one.destination),), self._block_size)

    def export_block(self, group: int, block: int) -> bytes:
        """Canonical blob: layer, K then V, head, token, dim; then the state."""
        flat = [_as_bytes(part.cpu().contiguous()) for part in self._parts(group, block)]
        state = _as_bytes(self._states[group][block : block + 1].cpu())
        return torch.cat(flat, dim=1).numpy().tobytes() + state.numpy().tobytes()

    def import_block(self, group: int, block: int, blob: bytes) -> None:
        """Inverse of `export_block`; raises ValueError on a wrong length."""
        parts, state = self._parts(group, block), self._states[group][block]
        keys_and_values = sum(part.nbytes for part in parts)
        wanted = keys_and_values + state.nbytes
        if len(blob) != wanted:
            raise ValueError(f"a block has {wanted} bytes, not {len(blob)}")
        num_layers = parts[0].shape[0]
        raw = torch.frombuffer(bytearray(blob), dtype=torch.uint8)
        state.copy_(raw[keys_and_values:].clone().view(state.dtype))
        rows = raw[:keys_and_values].view(num_layers, -1)
        at = 0
        for part in parts:
            end = at + part.nbytes // num_layers
            part.copy_(rows[:, at:end].contiguous().view(part.dtype).view(part.shape))
            at = end

    def _parts(self, group: int, block: int) -> tuple[torch.Tensor, torch.Tensor]:
        """K and V of a block, [layers, kv_heads, block_size, head_dim] views."""
        start = block * self._block_size
        keys, values = (plane.narrow(2, start, self._block_size) for plane in self._planes[group])
        return keys, values


def _as_bytes(part: torch.Tensor) -> torch.Tensor:
    """[layers, …] to uint8 [layers, bytes a layer]."""
    return part.view(part.shape[0], -1).view(torch.uint8)


def _zeros(shape: tuple[int, ...], dtype: torch.dtype, device: str) -> torch.Tensor:
    """Zeros whose pages the system commits when they are first used.

    torch.zeros writes them all at once on a CPU, which takes memory and start-up time for a
    cache that may never be full.
    """
    num_bytes = math.prod(shape) * dtype.itemsize
    if device != "cpu" or not num_bytes or not hasattr(mmap, "MAP_ANONYMOUS"):
        return torch.zeros(shape, dtype=dtype, device=device)
    pages = mmap.mmap(-1, num_bytes, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    return torch.frombuffer(pages, dtype=dtype).view(shape)
