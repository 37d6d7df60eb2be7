"""The decoder all native families share, written against the fused operations.

What tells one family from another is data in `ModelSpec`; it decides once, at build, which
operations a layer is bound to.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from rtp_core.api import (
    AttentionPlan,
    BoundAttention,
    ExpertsSpec,
    ForwardOutput,
    HeadNorms,
    ModelSpec,
    ParallelContext,
)
from rtp_core.errors import ModelError
from rtp_kernels.norm_linear.reference import rms_norm

Kernels = Callable[[str], Callable[..., Any]]
Stream = Callable[[torch.Tensor], torch.Tensor]
Update = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]
GATED = {"silu": "norm_gate_up", "gelu_tanh": "norm_gate_up_gelu"}
"""Fused operation by the activation of the gate."""


@dataclass(frozen=True, slots=True)
class Layer:
    """Operations bound to one layer's weights.

    Between operations the stream is whatever their forms make of it; `settle` gives the tensor.
    `qkv` maps the residual stream [tokens, hidden] to heads; `add_attention` takes attention's
    output and the stream, `add_feed_forward` the stream alone; both return the new stream.
    """

    qkv: Stream
    head_norms: HeadNorms | None
    add_attention: Update
    add_feed_forward: Stream


class Decoder:
    """`api.CausalModel`: embedding, layers, final norm and head."""

    def __init__(
        self,
        spec: ModelSpec,
        parameters: Mapping[str, torch.Tensor],
        parallel: ParallelContext,
        kernels: Kernels,
    ) -> None:
        if parallel.world_size != 1:
            raise ModelError("tensor parallelism is not available for this model")
        bind = Binder(spec, parameters, kernels)
        self._layers = tuple(bind.layer(index) for index in range(spec.num_layers))
        self._table = parameters["embed"]
        self._scale = spec.embedding_scale
        self._norm = bind.norm("norm")
        self._eps = spec.norm_eps
        self._head = self._table if spec.tied_head else parameters["head"]
        self._softcap = spec.logits_softcap
        # Half precision has forms that never wait; float32 experts are chosen by the host.
        self.queues = spec.experts is None or spec.dtype != "float32"
        self._lookup = kernels("embed")
        self._to_logits = kernels("head")
        self._soft_cap = kernels("soft_cap")
        self._settle = kernels("settle")

    def forward(
        self,
        token_ids: torch.Tensor,
        attention: BoundAttention,
        plan: AttentionPlan,
        capture_layers: Sequence[int] = (),
        wanted: torch.Tensor | None = None,
    ) -> ForwardOutput:
        """See `api.CausalModel`."""
        x = self.embed(token_ids)
        captured: dict[int, torch.Tensor] = {}
        last = len(self._layers) - 1
        for index, layer in enumerate(self._layers):
            if index in capture_layers:
                captured[index] = self._settle(x)
            heads = attention.run(layer.qkv(x), index, plan, layer.head_norms)
            if index == last and wanted is not None:
                # Nothing reads the other tokens any more: their keys and values are stored.
                heads, x = heads[wanted], self._settle(x)[wanted]
                if not len(wanted):
                    break
            x = layer.add_feed_forward(layer.add_attention(heads, x))
        return ForwardOutput(self._settle(x), captured)

    def embed(self, token_ids: torch.Tensor) -> torch.Tensor:
        """int64 [tokens] -> [tokens, hidden_size]."""
        x = self._lookup(token_ids, self._table)
        return x if self._scale == 1.0 else x * self._scale

    def normed(self, hidden: torch.Tensor) -> torch.Tensor:
        """The final norm; see `api.DraftableModel`."""
        return rms_norm(hidden, self._norm, self._eps)

    def head_rows(self, token_ids: torch.Tensor | None = None) -> torch.Tensor:
        """Dense rows of the head; see `api.DraftableModel`."""
        head: Any = self._head
        dense = head if isinstance(head, torch.Tensor) else head.dense
        return dense if token_ids is None else dense[token_ids]

    def logits(self, hidden: torch.Tensor) -> torch.Tensor:
        """[rows, hidden_size] -> float32 [rows, vocab_size]."""
        logits = self._to_logits(hidden, self._norm, self._eps, self._head)
        return logits if self._softcap is None else self._soft_cap(logits, self._softcap)


class Binder:
    """Binds operations to the parameters of `models.weights`."""

    def __init__(
        self, spec: ModelSpec, parameters: Mapping[str, torch.Tensor], kernels: Kernels
    ) -> None:
        self._spec = spec
        self._parameters = parameters
        self._kernels = kernels

    def layer(self, index: int) -> Layer:
        """The operations of one layer."""
        at, experts = f"layers.{index}.", self._spec.experts
        if experts is not None and index in experts.layers:
            feed_forward = self._experts(at, experts)
        else:
            feed_forward = self._gated(at)
        return Layer(
            qkv=self._normed("norm_linear", at + "attention_norm", at + "qkv"),
            head_norms=self._head_norms(at) if self._spec.qk_norm else None,
            add_attention=self._update(at + "o", at + "attention_post_norm"),
            add_feed_forward=feed_forward,
        )

    def norm(self, name: str) -> torch.Tensor:
        """A norm's weight with the family's offset."""
        weight = self._parameters[name]
        return weight + self._spec.norm_offset if self._spec.norm_offset else weight

    def _head_norms(self, at: str) -> HeadNorms:
        return self.norm(at + "q_norm"), self.norm(at + "k_norm"), self._spec.norm_eps

    def _normed(self, operation: str, norm: str, name: str) -> Stream:
        run, eps, weight = self._kernels(operation), self._spec.norm_eps, self.norm(norm)
        matrix, bias = self._parameters[name], self._parameters.get(name + "_bias")
        return lambda x: run(x, weight, eps, matrix, bias)

    def _update(self, name: str, post_norm: str) -> Update:
        matrix, bias = self._parameters[name], self._parameters.get(name + "_bias")
        if not self._spec.post_norms:
            plain = self._kernels("linear_residual")
            return lambda y, x: plain(y, matrix, x, bias)
        normed = self._kernels("linear_norm_residual")
        norm, eps = self.norm(post_norm), self._spec.norm_eps
        return lambda y, x: normed(y, matrix, norm, eps, x, bias)

    def _gated(self, at: str) -> Stream:
        wide = self._normed(GATED[self._spec.activation], at + "mlp_norm", at + "gate_up")
        down = self._update(at + "down", at + "mlp_post_norm")
        return lambda x: down(wide(x), x)

    def _experts(self, at: str, experts: ExpertsSpec) -> Stream:
        run, settle = self._kernels("moe_gate_up_down"), self._kernels("settle")
        eps, norm = self._spec.norm_eps, at + "mlp_norm"
        names = (at + "expert_gate_up", at + "expert_down")
        stacked = (experts.num_experts, -1)
        gate_up, down = (self._parameters[name].unflatten(0, stacked) for name in names)
        weights, weight = (self._parameters[at + "router"], gate_up, down), self.norm(norm)
        top_k, normalize = experts.top_k, experts.normalize
        return lambda x: run(settle(x), weight, eps, weights, top_k, normalize)
