"""How far a whole step's logits are from float32, against ordinary bfloat16 PyTorch.

All three read the same bfloat16 weights. The rival is what a plain PyTorch module computes: a
norm in float32, products and the residual stream in bfloat16, `scaled_dot_product_attention`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from bench.gpu.shape import SHAPE
from rtp_core.api import ModelSpec, ParallelContext
from rtp_core.execution.device.step import DeviceStep, Rows
from rtp_core.execution.device.triton_attention import TritonAttention
from rtp_core.kv.dense_store import DenseStore
from rtp_core.models.plugin import rtp_models
from rtp_kernels.registry import resolver

LAYERS, BLOCK, CONTEXT = 36, 32, 256
BATCHES = (1, 8, 32)


def found() -> Iterator[tuple[str, dict[str, Any]]]:
    """Relative error of logits in the Euclidean norm, of a prompt's last token and of a decode
    step after it."""
    spec, parameters, model = the_model()
    for batch in BATCHES:
        generator = torch.Generator().manual_seed(batch)
        shape = (batch, CONTEXT + 1)
        ids = torch.randint(0, spec.vocab_size, shape, generator=generator).cuda()
        with torch.inference_mode():
            exact = plain_logits(parameters, spec, ids, torch.float32)
            eager = plain_logits(parameters, spec, ids, torch.bfloat16)
            ours = engine_logits(model, spec, ids)
        for name, at in (("prompt", 0), ("decode", 1)):
            errors = [relative(one[at], exact[at]) for one in (ours, eager)]
            yield (
                f"error {name} {batch}",
                {
                    "ours": errors[0],
                    "torch_bf16": errors[1],
                    "ratio": errors[0] / errors[1],
                },
            )


def the_model() -> tuple[ModelSpec, Mapping[str, Tensor], Any]:
    """Random weights at the scale of a trained model's, and the model bound to them."""
    (offer,) = (one for one in rtp_models() if one.name == SHAPE["architectures"][0])
    family: Any = offer.build(None, None)  # pyright: ignore[reportArgumentType]
    config = {**SHAPE, "num_hidden_layers": LAYERS, "max_position_embeddings": 4096}
    spec = family.spec(config, "bfloat16", "bench")
    torch.manual_seed(0)
    parameters = {}
    for one in family.weights(spec).parameters:
        made = torch.empty(one.shape, dtype=torch.bfloat16, device="cuda").normal_(0.0, 0.02)
        parameters[one.name] = made.add_(1.0) if "norm" in one.name else made
    kernels = resolver("cuda", "bfloat16")
    return spec, parameters, family.build(spec, parameters, ParallelContext(), kernels)


def engine_logits(model: Any, spec: ModelSpec, ids: Tensor) -> tuple[Tensor, Tensor]:
    """Of the last prompt token and of the token after it, [batch, vocab] each."""
    batch = ids.shape[0]
    width = -(-(CONTEXT + 1) // BLOCK)
    memory = DenseStore().open(spec.kv_groups, [batch * width], BLOCK, "cuda")
    attention: Any = TritonAttention("cuda").bind(spec, memory, BLOCK)
    attention.reserve([(batch, 1, 4096)])
    tables = torch.arange(batch * width, dtype=torch.int32, device="cuda").view(batch, width)
    starts = torch.arange(batch + 1, dtype=torch.int32, device="cuda")

    def rows(new: int, length: int, runs: Any) -> Rows:
        lengths = torch.full((batch,), length, dtype=torch.int32, device="cuda")
        return Rows(batch * new, (tables,), lengths, starts * new, new, 4096, runs)

    prompt = DeviceStep(None, rows(CONTEXT, CONTEXT, ((CONTEXT, 0),) * batch))
    last = starts[1:] * CONTEXT - 1
    hidden = model.forward(ids[:, :CONTEXT].reshape(-1), attention, prompt, (), last).hidden
    first = model.logits(hidden).clone()
    step = DeviceStep(rows(1, CONTEXT + 1, None), None)
    return first, model.logits(model.forward(ids[:, CONTEXT], attention, step).hidden)


def plain_logits(
    parameters: Mapping[str, Tensor], spec: ModelSpec, ids: Tensor, dtype: torch.dtype
) -> tuple[Tensor, Tensor]:
    """Of the last two tokens, by ordinary operations in `dtype`."""
    heads, kv_heads, dim = spec.num_heads, spec.num_kv_heads, spec.head_dim
    inverse = theta_of(spec) ** (-torch.arange(0, dim, 2, device="cuda") / dim)
    angles = torch.arange(ids.shape[1], device="cuda")[:, None] * inverse
    cos, sin = angles.cos().to(dtype), angles.sin().to(dtype)

    def weight(name: str) -> Tensor:
        return parameters[name].to(dtype)

    def norm(x: Tensor, name: str) -> Tensor:
        wide = x.float()
        scaled = wide * torch.rsqrt(wide.pow(2).mean(-1, keepdim=True) + spec.norm_eps)
        return scaled.to(dtype) * weight(name)

    def turned(x: Tensor) -> Tensor:
        first, second = x.chunk(2, -1)
        return torch.cat((first * cos - second * sin, second * cos + first * sin), -1)

    x = weight("embed")[ids]
    for layer in range(spec.num_layers):
        at = f"layers.{layer}."
        qkv = functional.linear(norm(x, at + "attention_norm"), weight(at + "qkv"))
        split = qkv.unflatten(-1, (-1, dim)).transpose(1, 2)
        q, k, v = split.split((heads, kv_heads, kv_heads), 1)
        q, k = turned(norm(q, at + "q_norm")), turned(norm(k, at + "k_norm"))
        y = functional.scaled_dot_product_attention(q, k, v, is_causal=True, enable_gqa=True)
        x = x + functional.linear(y.transpose(1, 2).flatten(2), weight(at + "o"))
        gate, up = functional.linear(norm(x, at + "mlp_norm"), weight(at + "gate_up")).chunk(2, -1)
        x = x + functional.linear(functional.silu(gate) * up, weight(at + "down"))
    logits = functional.linear(norm(x[:, -2:], "norm"), weight("head")).float()
    return logits[:, 0], logits[:, 1]


def theta_of(spec: ModelSpec) -> float:
    """Base of the rotary frequencies."""
    rope = spec.rope_of(0)
    assert rope is not None
    return rope.theta


def relative(got: Tensor, exact: Tensor) -> float:
    return float((got.float() - exact).norm() / exact.norm())
