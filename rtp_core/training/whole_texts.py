"""Attention within whole texts, without a cache: what training runs the target through."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch.nn import functional

from rtp_core.api import HeadNorms, ModelSpec, PlanRow, RopeSpec, Scoring
from rtp_core.errors import ModelError
from rtp_core.models.rope import inverse_frequencies
from rtp_kernels.norm_linear.reference import rms_norm
from rtp_kernels.paged_attention.rotary import rotary_tables, rotate

Tables = tuple[torch.Tensor, torch.Tensor]


class WholeTexts:
    """`api.BoundAttention` of a model over `num_texts` texts of `length` tokens, padded at the
    end: tokens are [num_texts * length], text after text."""

    def __init__(self, spec: ModelSpec, num_texts: int, length: int, device: torch.device) -> None:
        self._spec = spec
        self._shape = (num_texts, length)
        self._position_ids = torch.arange(length, device=device).repeat(num_texts)
        self._scale = spec.attention_scale or spec.head_dim**-0.5
        ropes = {spec.rope_of(layer) for layer in range(spec.num_layers)}
        self._tables = {rope: self._rotation(rope) for rope in ropes if rope is not None}
        self._masks = {
            layer: self._mask(group.sliding_window)
            for group in spec.kv_groups
            for layer in group.layers
            if group.sliding_window is not None and group.sliding_window < length
        }

    def plan(self, rows: Sequence[PlanRow]) -> None:
        """Nothing to plan: all steps are alike."""

    def positions(self, plan: None) -> torch.Tensor:
        """See `api.BoundAttention`."""
        return self._position_ids

    def run(
        self, qkv: torch.Tensor, layer: int, plan: None, norms: HeadNorms | None = None
    ) -> torch.Tensor:
        """See `api.BoundAttention`."""
        spec = self._spec
        heads, kv_heads = spec.num_heads, spec.num_kv_heads
        split = qkv.view(len(qkv), heads + 2 * kv_heads, spec.head_dim)
        q, k, v = split.split((heads, kv_heads, kv_heads), dim=1)
        if norms is not None:
            q_norm, k_norm, eps = norms
            q, k = rms_norm(q, q_norm, eps), rms_norm(k, k_norm, eps)
        rope = spec.rope_of(layer)
        if rope is not None:
            q, k = rotate(q, *self._tables[rope]), rotate(k, *self._tables[rope])
        return self._attend(q, k, v, layer, self._scale)

    def attend(
        self,
        q: torch.Tensor,
        k: torch.Tensor,
        v: torch.Tensor,
        layer: int,
        plan: None,
        scoring: Scoring,
    ) -> torch.Tensor:
        """See `api.BoundAttention`; without soft caps and sinks."""
        if scoring.softcap is not None or scoring.sinks is not None:
            raise ModelError("models with soft caps or attention sinks cannot be trained for")
        return self._attend(q, k, v, layer, scoring.scale)

    def _attend(
        self, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, layer: int, scale: float
    ) -> torch.Tensor:
        texts, length = self._shape
        group = q.shape[1] // k.shape[1]
        mask = self._masks.get(layer)
        q, k, v = (one.view(texts, length, *one.shape[1:]).transpose(1, 2) for one in (q, k, v))
        # Repeated keys keep to the fast kernels of every torch, which grouped heads do not.
        k, v = (one.repeat_interleave(group, dim=1) for one in (k, v))
        out = functional.scaled_dot_product_attention(
            q, k, v, attn_mask=mask, is_causal=mask is None, scale=scale
        )
        return out.transpose(1, 2).reshape(texts * length, -1)

    def _rotation(self, rope: RopeSpec) -> Tables:
        device = self._position_ids.device
        frequencies = inverse_frequencies(rope).to(device)
        dtype = getattr(torch, self._spec.dtype)
        return rotary_tables(frequencies, self._position_ids, dtype, rope.attention_factor)

    def _mask(self, window: int) -> torch.Tensor:
        position = torch.arange(self._shape[1], device=self._position_ids.device)
        distance = position[:, None] - position
        return (distance >= 0) & (distance < window)
