"""Prompts of one length through cuDNN's attention: faster than pages where they are not needed.

For whole prompts, and for chunks of one length after prefixes of one length. cuDNN makes a plan
for every new shape (tens of milliseconds), so lengths should come from a short list.
"""

from __future__ import annotations

import torch
from torch import Tensor

from rtp_kernels.merge_attention.triton import merge_attention
from rtp_kernels.paged_attention.plan import Geometry

MAX_HEAD_DIM = 128


def available() -> bool:
    """Whether this device has cuDNN's attention in the form that was measured (sm_90)."""
    return (
        torch.cuda.is_available()
        and torch.backends.cudnn.is_available()
        and torch.cuda.get_device_capability() == (9, 0)
    )


def suits(geometry: Geometry, keys: int) -> bool:
    """Whether cuDNN computes what the geometry asks for on rows of up to `keys` keys."""
    windowed = geometry.window is not None and geometry.window < keys
    return not windowed and geometry.softcap is None and geometry.head_dim <= MAX_HEAD_DIM


def dense_prefill(
    qkv: Tensor, geometry: Geometry, batch: int, length: int, lse: Tensor | None = None
) -> Tensor:
    """Causal attention of `batch` whole prompts of `length` tokens to themselves.

    qkv [batch * length, (heads + 2 * kv_heads) * head_dim], normalised and rotated (`store`), is
    read where it is -> [batch * length, heads * head_dim]. lse float32 [tokens, heads] receives
    the log-sum-exp. CUDA only. Raises ValueError for windows that bite and soft caps.
    """
    _check(geometry, length)
    out, logs = _attend(*_split(qkv, geometry, batch, length), geometry, lse is not None, True)
    if lse is not None:
        lse.view(batch, length, -1).copy_(logs.squeeze(-1).transpose(1, 2))
    return out.transpose(1, 2).reshape(batch * length, -1)


def dense_chunk(  # noqa: PLR0913, PLR0917 - what a chunk and a layer consist of
    qkv: Tensor,
    planes: tuple[Tensor, Tensor],
    block_tables: Tensor,
    geometry: Geometry,
    length: int,
    prefix: int,
    lse: Tensor | None = None,
) -> Tensor:
    """As `dense_prefill` for chunks of `length` tokens, each after `prefix` stored ones.

    block_tables int32 [batch, max_blocks]. The prefix is gathered from its pages and attended to
    as a whole; cuDNN's causal mask starts at the first key, so the chunk's attention to itself is
    computed apart, and the two are merged by their log-sum-exp in float32.
    """
    if not prefix:
        return dense_prefill(qkv, geometry, block_tables.shape[0], length, lse)
    _check(geometry, prefix + length)
    batch = block_tables.shape[0]
    q, k, v = _split(qkv, geometry, batch, length)
    past = tuple(_gather(plane, block_tables, geometry.block_size, prefix) for plane in planes)
    before, before_log = _attend(q, past[0], past[1], geometry, True, False)
    own, own_log = _attend(q, k, v, geometry, True, True)
    parts = torch.stack([part.transpose(1, 2) for part in (before, own)])
    logs = torch.stack([log.squeeze(-1).transpose(1, 2) for log in (before_log, own_log)])
    out, both = merge_attention(parts.flatten(1, 2), logs.flatten(1, 2))
    if lse is not None:
        lse.copy_(both)
    return out.flatten(1)


def _check(geometry: Geometry, keys: int) -> None:
    if not suits(geometry, keys):
        raise ValueError(
            f"window {geometry.window}, softcap {geometry.softcap}, head_dim {geometry.head_dim} "
            f"with {keys} keys: cuDNN's attention has none of these, use `ragged`"
        )


def _split(
    qkv: Tensor, geometry: Geometry, batch: int, length: int
) -> tuple[Tensor, Tensor, Tensor]:
    """q [batch, heads, length, dim], k and v [batch, kv_heads, length, dim]: views."""
    heads, kv_heads = geometry.num_heads, geometry.num_kv_heads
    split = qkv.view(batch, length, heads + 2 * kv_heads, geometry.head_dim).transpose(1, 2)
    q, k, v = split.split((heads, kv_heads, kv_heads), dim=1)
    return q, k, v


def _gather(plane: Tensor, block_tables: Tensor, block_size: int, prefix: int) -> Tensor:
    """First `prefix` keys of each row, [batch, kv_heads, prefix, dim]."""
    blocks = block_tables[:, : -(-prefix // block_size)]
    pages = plane.unflatten(1, (-1, block_size))[:, blocks.long()]
    return pages.flatten(2, 3)[:, :, :prefix].transpose(0, 1)


def _attend(
    q: Tensor, k: Tensor, v: Tensor, geometry: Geometry, logs: bool, causal: bool
) -> tuple[Tensor, Tensor]:
    """(out like q, log-sum-exp float32 [batch, heads, length, 1])."""
    done = torch.ops.aten._scaled_dot_product_cudnn_attention(
        q, k, v, None, logs, 0.0, causal, False, scale=geometry.scale
    )
    return done[0], done[1].view(*q.shape[:3], 1) if logs else done[1]
