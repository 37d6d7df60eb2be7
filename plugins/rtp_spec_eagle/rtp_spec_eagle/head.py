"""The forward pass of a head, over the engine's fused operations.

EAGLE-3 (Li et al. 2025): a state is fused from three captured ones; the layer attends over the
normalised embedding of the next token beside the normalised state, and its output is fed back.
EAGLE-1 and 2 (Li et al. 2024): embedding and final state are fused into the layer's input, and
its output stands for the next final state.
"""

from __future__ import annotations

from typing import Any

import torch

from rtp_core.api import BoundAttention, DraftableModel, HiddenStates
from rtp_kernels.norm_linear.reference import rms_norm
from rtp_kernels.registry import resolver
from rtp_spec_eagle.description import Description
from rtp_spec_eagle.weights import Weights


class Head:
    """Bound to its weights and to the model it drafts for. States are [rows, hidden_size]."""

    def __init__(
        self,
        head: Description,
        weights: Weights,
        model: DraftableModel,
        attention: BoundAttention,
        device: str,
        dtype: str,
    ) -> None:
        self._head = head
        self._weights = weights
        self._model = model
        self._attention = attention
        self._norm_linear, self._add, self._gate_up, self._to_logits = map(
            resolver(device, dtype), ("norm_linear", "linear_residual", "norm_gate_up", "head")
        )
        self._eps = head.norm_eps
        self._norms = None
        if "q_norm" in weights:
            self._norms = (weights["q_norm"], weights["k_norm"], head.norm_eps)

    @property
    def attention(self) -> BoundAttention:
        """Plans the rows of `layer`."""
        return self._attention

    def fused(self, states: HiddenStates, begin: int, end: int) -> torch.Tensor:
        """What the layer takes of some rows of the model's states."""
        if self._head.version == 1:
            if states.final is None:
                raise ValueError("the final hidden states were asked for and are not there")
            return states.final[begin:end]
        parts = [states.captured[layer][begin:end] for layer in self._head.capture_layers]
        if self._head.fc_norm:
            parts = [self._normed(part, f"fc_norm_{number}") for number, part in enumerate(parts)]
        x = torch.cat(parts, dim=-1)
        if self._head.norm_before_fc:
            x = self._normed(x, "fc_input_norm")
        return self._linear(x, "fc")

    def layer(self, token_ids: torch.Tensor, states: torch.Tensor, plan: Any) -> torch.Tensor:
        """Rows of (token, state before it) -> outputs; keys and values are stored as planned."""
        weights = self._weights
        x = self._embedded(token_ids)
        if self._head.version == 3:
            qkv = self._norm_linear(x, weights["input_norm"], self._eps, weights["qkv_x"])
            qkv += self._norm_linear(states, weights["hidden_norm"], self._eps, weights["qkv_h"])
            if self._head.norm_before_residual:
                states = self._normed(states, "hidden_norm")
        else:
            states = self._linear(torch.cat((x, states), dim=-1), "fc")
            qkv = self._linear(states, "qkv")
        if "qkv_bias" in weights:
            qkv += weights["qkv_bias"]
        heads = self._attention.run(qkv, 0, plan, self._norms)
        x = self._add(heads, weights["o"], states)
        wide = self._gate_up(x, weights["post_norm"], self._eps, weights["gate_up"])
        return self._add(wide, weights["down"], x)

    def logits(self, output: torch.Tensor) -> torch.Tensor:
        """float32 [rows, draft vocabulary]."""
        weights = self._weights
        matrix = weights.get("head")
        if self._head.version == 3:
            matrix = self._model.head_rows() if matrix is None else matrix
            return self._to_logits(output, weights["norm"], self._eps, matrix)
        matrix = self._model.head_rows() if matrix is None else matrix
        return torch.nn.functional.linear(output, matrix).float()

    def fed_back(self, output: torch.Tensor) -> torch.Tensor:
        """The state of a drafted token's row, from the output of the row before."""
        return self._normed(output, "norm") if self._head.norm_output else output

    def _embedded(self, token_ids: torch.Tensor) -> torch.Tensor:
        own = self._weights.get("embed")
        if own is None:
            return self._model.embed(token_ids)
        return torch.nn.functional.embedding(token_ids, own)

    def _normed(self, x: torch.Tensor, norm: str) -> torch.Tensor:
        return rms_norm(x, self._weights[norm], self._eps)

    def _linear(self, x: torch.Tensor, name: str) -> torch.Tensor:
        """A plain product, by the form that adds to a residual."""
        weight, bias = self._weights[name], self._weights.get(f"{name}_bias")
        rows = getattr(weight, "dense", weight).shape[0]
        return self._add(x, weight, x.new_zeros(x.shape[0], rows), bias)
