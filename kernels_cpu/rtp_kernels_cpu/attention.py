"""Attention over paged keys in bfloat16, straight from the block tables.

`PagedAttention` has the signature of `rtp_kernels.paged_attention`, with a `PagedPlan`. Keys
are taken in splits of 256 aligned at key 0, which threads share; softmax and sums are float32.
A query has the same bits whatever rows share the step, however many of its sequence's tokens
are new, on every number of threads and every instruction set.

Rows with more than 16 new tokens (trees excepted) are taken in matrix products where the
processor has a prefill kernel: scores and sums are float32, weights are rounded to bfloat16.
Their queries have the same bits in any such chunk, any company and on every number of threads,
but other last bits than in chunks of fewer tokens, with another kernel, or without one.
"""

from __future__ import annotations

import ctypes
from typing import NamedTuple

import torch

from rtp_kernels.paged_attention.plan import Geometry
from rtp_kernels_cpu.attention_plan import PagedPlan
from rtp_kernels_cpu.library import AttentionShape, library, unlocked

Planes = tuple[torch.Tensor, torch.Tensor]
Norms = tuple[torch.Tensor, torch.Tensor, float] | None
_ROTATE, _ATTEND = 1, 2
_MOST_TOKENS_LOCKED = 256
"""Attention of more new tokens, over long contexts, keeps other threads from running too long."""


class _Call(NamedTuple):
    """Arguments of `PagedAttention`; without qkv when queries are rotated already."""

    qkv: torch.Tensor | None
    planes: Planes
    plan: PagedPlan
    geometry: Geometry
    norms: Norms = None
    lse: torch.Tensor | None = None


class PagedAttention:
    """Attention of a model family.

    `softcap` > 0 bounds scores to softcap * tanh(score / softcap); `norm_offset` is added to
    the weights of the head norms.
    """

    def __init__(self, softcap: float = 0.0, norm_offset: float = 0.0) -> None:
        self._softcap = softcap
        self._norm_offset = norm_offset
        self._shapes: dict[Geometry, AttentionShape] = {}

    def __call__(
        self,
        qkv: torch.Tensor,
        planes: Planes,
        plan: PagedPlan,
        geometry: Geometry,
        norms: Norms = None,
        lse: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """qkv [tokens, (heads + 2 * kv_heads) * dim] -> [tokens, heads * dim].

        Keys, normalised if `norms` (q_norm, k_norm, eps; both bfloat16 or both float32) are
        given and rotated, and values are stored in planes [kv_heads, slots, dim] first. `lse`
        float32 [tokens, heads], if given, receives the log-sum-exp of each query's scores.
        """
        out = self._output(qkv, plan, geometry)
        call = _Call(qkv, planes, plan, geometry, norms, lse)
        self._run(_ROTATE | _ATTEND, call, out)
        return out

    def rope_write(
        self,
        qkv: torch.Tensor,
        planes: Planes,
        plan: PagedPlan,
        geometry: Geometry,
        norms: Norms = None,
    ) -> torch.Tensor:
        """The first half: store keys and values, return rotated queries [tokens, heads * dim]."""
        out = self._output(qkv, plan, geometry)
        self._run(_ROTATE, _Call(qkv, planes, plan, geometry, norms), out)
        return out

    def attend(
        self,
        queries: torch.Tensor,
        planes: Planes,
        plan: PagedPlan,
        geometry: Geometry,
        lse: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """The second half, of rotated queries [tokens, heads * dim], over stored keys."""
        out = queries.clone(memory_format=torch.contiguous_format)
        self._run(_ATTEND, _Call(None, planes, plan, geometry, None, lse), out)
        return out

    def _output(self, qkv: torch.Tensor, plan: PagedPlan, geometry: Geometry) -> torch.Tensor:
        heads = geometry.num_heads + 2 * geometry.num_kv_heads
        _check("qkv", qkv, (plan.num_tokens, heads * geometry.head_dim))
        return qkv.new_empty(plan.num_tokens, geometry.num_heads * geometry.head_dim)

    def _shape(self, geometry: Geometry) -> AttentionShape:
        if (shape := self._shapes.get(geometry)) is None:
            shape = _described(geometry, self._softcap, self._norm_offset)
            self._shapes[geometry] = shape
        return shape

    def _run(self, phases: int, call: _Call, out: torch.Tensor) -> None:
        qkv, (keys, values), plan, geometry, norms, lse = call
        q_norm, k_norm, eps = norms or (None, None, 0.0)
        for plane in call.planes:
            _check_plane(plane, keys.stride(0), geometry, plan)
        _check("queries", out, (plan.num_tokens, geometry.num_heads * geometry.head_dim))
        wide = q_norm is not None and q_norm.dtype == torch.float32
        for norm in (q_norm, k_norm):
            if norm is not None:
                dtype = torch.float32 if wide else torch.bfloat16
                _check("norm", norm, (geometry.head_dim,), dtype)
        if lse is not None:
            _check("lse", lse, (plan.num_tokens, geometry.num_heads), torch.float32)
        held = plan.num_tokens <= _MOST_TOKENS_LOCKED
        failed = (library() if held else unlocked()).rtp_attention(
            ctypes.addressof(self._shape(geometry)),
            plan.address,
            _address(qkv),
            keys.data_ptr(),
            values.data_ptr(),
            keys.stride(0),
            _address(q_norm),
            _address(k_norm),
            wide,
            eps,
            out.data_ptr(),
            _address(lse),
            phases,
        )
        if failed:
            raise MemoryError("no memory for partial attention results")


paged_attention = PagedAttention()
"""For families without soft cap and norm offset."""


def fits(geometry: Geometry) -> bool:
    """Whether the library can do a layer of this shape: head_dim a multiple of 16 up to 256."""
    return geometry.head_dim % 16 == 0 and geometry.head_dim <= 256


def _described(geometry: Geometry, softcap: float, norm_offset: float) -> AttentionShape:
    if not fits(geometry):
        raise ValueError(f"head_dim must be a multiple of 16 up to 256, not {geometry.head_dim}")
    return AttentionShape(
        geometry.num_heads,
        geometry.num_kv_heads,
        geometry.head_dim,
        geometry.block_size,
        geometry.window or 0,
        geometry.scale,
        softcap,
        norm_offset,
    )


def _address(tensor: torch.Tensor | None) -> int | None:
    return None if tensor is None else tensor.data_ptr()


def _check(
    name: str,
    tensor: torch.Tensor,
    shape: tuple[int, ...],
    dtype: torch.dtype = torch.bfloat16,
) -> None:
    usable = tensor.is_cpu and tensor.is_contiguous()
    if not usable or tensor.dtype != dtype or tensor.shape != shape:
        raise ValueError(
            f"{name} must be contiguous {dtype} {list(shape)} on the CPU, not {tensor.dtype} "
            f"{list(tensor.shape)}"
        )


def _check_plane(plane: torch.Tensor, stride: int, geometry: Geometry, plan: PagedPlan) -> None:
    heads, slots, dim = plane.shape
    if not plane.is_cpu or plane.dtype != torch.bfloat16 or plane.stride() != (stride, dim, 1):
        raise ValueError(
            f"planes must be bfloat16 of the same layout with whole slots, not {plane.dtype} "
            f"of strides {plane.stride()}"
        )
    if (heads, dim) != (geometry.num_kv_heads, geometry.head_dim) or slots < plan.num_slots:
        raise ValueError(
            f"planes {list(plane.shape)} are not [{geometry.num_kv_heads}, "
            f"{plan.num_slots} or more, {geometry.head_dim}]"
        )
