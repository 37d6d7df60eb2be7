"""Llama 2, 3, 3.x and SmolLM2: a decoder written against the fused operations."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from rtp_core.api import (
    AttentionPlan,
    BoundAttention,
    CausalModel,
    ForwardOutput,
    KVGroup,
    KVPlane,
    ModelSpec,
    ParallelContext,
    WeightTable,
)
from rtp_core.errors import ModelError
from rtp_core.models.rope import read_number, read_rope
from rtp_core.models.weights import decoder_table

_MOST = {"num_hidden_layers": 4096}


class LlamaFamily:
    """Reads a LlamaForCausalLM configuration; see `api.ModelFamily`."""

    def spec(self, config: Mapping[str, Any], dtype: str, fingerprint: str) -> ModelSpec:
        """Raises ModelError naming the key that is missing or cannot be honoured."""
        _refuse_unsupported(config)
        layers, heads = _count(config, "num_hidden_layers"), _count(config, "num_attention_heads")
        kv_heads = _count(config, "num_key_value_heads", heads)
        if heads % kv_heads:
            raise ModelError(
                f"config.json: num_key_value_heads {kv_heads} does not divide {heads} heads"
            )
        hidden = _count(config, "hidden_size")
        head_dim = _count(config, "head_dim", hidden // heads)
        plane = KVPlane(kv_heads, head_dim, dtype)
        bias = bool(config.get("attention_bias", False))
        return ModelSpec(
            architecture="LlamaForCausalLM",
            num_layers=layers,
            hidden_size=hidden,
            num_heads=heads,
            num_kv_heads=kv_heads,
            head_dim=head_dim,
            intermediate_size=_count(config, "intermediate_size"),
            vocab_size=_count(config, "vocab_size"),
            max_model_len=_count(config, "max_position_embeddings", 2048),
            norm_eps=read_number(config, "rms_norm_eps", 1e-6),
            rope=read_rope(config, head_dim),
            tied_head=bool(config.get("tie_word_embeddings", False)),
            dtype=dtype,
            fingerprint=fingerprint,
            kv_groups=(KVGroup("main", tuple(range(layers)), (plane, plane)),),
            attention_bias=bias,
            attention_output_bias=bias,
            mlp_bias=bool(config.get("mlp_bias", False)),
        )

    def weights(self, spec: ModelSpec) -> WeightTable:
        """Fused qkv and gate-up; see `models.weights`."""
        return decoder_table(spec)

    def build(
        self,
        spec: ModelSpec,
        parameters: Mapping[str, torch.Tensor],
        parallel: ParallelContext,
        kernels: Callable[[str], Callable[..., Any]],
    ) -> CausalModel:
        """Bind parameters and operations."""
        return Llama(spec, parameters, parallel, kernels)


@dataclass(frozen=True, slots=True)
class _Layer:
    attention_norm: torch.Tensor
    qkv: torch.Tensor
    qkv_bias: torch.Tensor | None
    o: torch.Tensor
    o_bias: torch.Tensor | None
    mlp_norm: torch.Tensor
    gate_up: torch.Tensor
    gate_up_bias: torch.Tensor | None
    down: torch.Tensor
    down_bias: torch.Tensor | None


class Llama:
    """The forward pass: four operations and one attention a layer."""

    def __init__(
        self,
        spec: ModelSpec,
        parameters: Mapping[str, torch.Tensor],
        parallel: ParallelContext,
        kernels: Callable[[str], Callable[..., Any]],
    ) -> None:
        if parallel.world_size != 1:
            raise ModelError("tensor parallelism is not available for this model")
        self._eps = spec.norm_eps
        self._table = parameters["embed"]
        self._norm = parameters["norm"]
        self._head = self._table if spec.tied_head else parameters["head"]
        self._layers = [_layer(parameters, index) for index in range(spec.num_layers)]
        self._embed = kernels("embed")
        self._norm_linear = kernels("norm_linear")
        self._linear_residual = kernels("linear_residual")
        self._norm_gate_up = kernels("norm_gate_up")

    def forward(
        self,
        token_ids: torch.Tensor,
        attention: BoundAttention,
        plan: AttentionPlan,
        capture_layers: Sequence[int] = (),
    ) -> ForwardOutput:
        """See `api.CausalModel`."""
        x = self._embed(token_ids, self._table)
        eps, run = self._eps, attention.run
        captured: dict[int, torch.Tensor] = {}
        for index, layer in enumerate(self._layers):
            if index in capture_layers:
                captured[index] = x
            qkv = self._norm_linear(x, layer.attention_norm, eps, layer.qkv, layer.qkv_bias)
            x = self._linear_residual(run(qkv, index, plan), layer.o, x, layer.o_bias)
            wide = self._norm_gate_up(x, layer.mlp_norm, eps, layer.gate_up, layer.gate_up_bias)
            x = self._linear_residual(wide, layer.down, x, layer.down_bias)
        return ForwardOutput(x, captured)

    def logits(self, hidden: torch.Tensor) -> torch.Tensor:
        """[rows, hidden_size] -> float32 [rows, vocab_size]."""
        return self._norm_linear(hidden, self._norm, self._eps, self._head).float()


def _layer(parameters: Mapping[str, torch.Tensor], index: int) -> _Layer:
    prefix = f"layers.{index}."
    fields = _Layer.__dataclass_fields__
    return _Layer(**{name: parameters.get(prefix + name) for name in fields})  # pyright: ignore[reportArgumentType]


def _count(config: Mapping[str, Any], key: str, default: int | None = None) -> int:
    """A positive integer; null and a missing key give the default."""
    value = config.get(key)
    value = default if value is None else value
    most = _MOST.get(key, 2**31)
    if not isinstance(value, int) or isinstance(value, bool) or not 1 <= value <= most:
        raise ModelError(f"config.json: {key} is {value!r}, not an integer from 1 to {most}")
    return value


def _refuse_unsupported(config: Mapping[str, Any]) -> None:
    activation = config.get("hidden_act", "silu")
    if activation != "silu":
        raise ModelError(f"config.json: hidden_act {activation!r} is not supported", remedy="silu")
    if config.get("sliding_window") and config.get("use_sliding_window", True):
        raise ModelError("config.json: sliding_window is not supported for this architecture")
    if config.get("quantization_config"):
        raise ModelError(
            "config.json: quantization_config is not supported",
            remedy="use a checkpoint in float32, float16 or bfloat16, or a .gguf file",
        )
