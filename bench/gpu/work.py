"""What a step must read and compute by a model's shape, and how fast the card does either."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch

QWEN3_8B: dict[str, Any] = {
    "architectures": ["Qwen3ForCausalLM"],
    "hidden_size": 4096,
    "num_hidden_layers": 36,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
    "head_dim": 128,
    "intermediate_size": 12288,
    "vocab_size": 151936,
    "max_position_embeddings": 40960,
    "rms_norm_eps": 1e-6,
    "rope_theta": 1000000.0,
    "tie_word_embeddings": False,
    "hidden_act": "silu",
    "eos_token_id": 151645,
}
QWEN3_30B_A3B: dict[str, Any] = {
    **QWEN3_8B,
    "architectures": ["Qwen3MoeForCausalLM"],
    "hidden_size": 2048,
    "num_hidden_layers": 48,
    "num_key_value_heads": 4,
    "intermediate_size": 6144,
    "moe_intermediate_size": 768,
    "num_experts": 128,
    "num_experts_per_tok": 8,
    "norm_topk_prob": True,
    "decoder_sparse_step": 1,
    "mlp_only_layers": [],
}
SHAPES = {"qwen3-8b": QWEN3_8B, "qwen3-30b-a3b": QWEN3_30B_A3B}
"""config.json by what the command line calls it."""


@dataclass(frozen=True)
class Experts:
    """Of every layer; `each` has so many elements."""

    number: int
    top_k: int
    each: int

    def distinct(self, tokens: int) -> float:
        """Experts that somebody chooses, expected where the choice is random."""
        return self.number * (1 - (1 - self.top_k / self.number) ** tokens)


@dataclass(frozen=True)
class Work:
    """Weights of all linear layers and of the head, in elements; shapes of attention.

    `last`: of the layers behind the last attention, which only tokens that draw pass. Both count
    the experts of one token.
    """

    linear: int
    last: int
    head: int
    layers: int
    heads: int
    kv_heads: int
    head_dim: int
    experts: Experts | None = None

    @staticmethod
    def of(shape: Mapping[str, Any]) -> Work:
        """Of a config.json of `SHAPES`."""
        hidden, dim = shape["hidden_size"], shape["head_dim"]
        heads, kv_heads = shape["num_attention_heads"], shape["num_key_value_heads"]
        into = (heads + 2 * kv_heads) * dim * hidden
        after, experts = heads * dim * hidden, None
        if "num_experts" in shape:
            each = 3 * hidden * shape["moe_intermediate_size"]
            experts = Experts(shape["num_experts"], shape["num_experts_per_tok"], each)
            after += experts.number * hidden + experts.top_k * each
        else:
            after += 3 * hidden * shape["intermediate_size"]
        layers, head = shape["num_hidden_layers"], shape["vocab_size"] * hidden
        return Work(layers * (into + after), after, head, layers, heads, kv_heads, dim, experts)

    def decode_bytes(self, batch: int, context: int) -> float:
        """Weights once, of experts those that are chosen, keys and values of all texts;
        bfloat16."""
        kv, more = self.layers * 2 * self.kv_heads * self.head_dim, 0.0
        if self.experts:
            others = self.experts.distinct(batch) - self.experts.top_k
            more = self.layers * others * self.experts.each
        return 2 * (self.linear + more + self.head + batch * context * kv)

    def prompt_flops(self, length: int) -> int:
        """Linear layers, causal attention, and the head for the last token, which alone passes
        the end of the last layer."""
        attention = self.layers * self.heads * self.head_dim * length**2
        linear = length * (self.linear - self.last) + self.last + self.head
        return 2 * linear + 2 * attention


@dataclass(frozen=True)
class Card:
    """Bytes a second of a copy, read and written; FLOP/s of one bf16 product of 8192^3."""

    copy_bytes_per_s: float
    matrix_flops: float

    @staticmethod
    def measured() -> Card:
        """Of the card of this process."""
        card = Card(_copy_rate(), _matrix_rate())
        torch.cuda.empty_cache()
        return card

    def decode_floor(self, work: Work, batch: int, context: int) -> float:
        """Seconds to read what a decode step reads."""
        return work.decode_bytes(batch, context) / self.copy_bytes_per_s

    def prompt_floor(self, work: Work, length: int) -> float:
        """Seconds to compute what a prompt computes."""
        return work.prompt_flops(length) / self.matrix_flops


def _copy_rate() -> float:
    source = torch.empty(2**30, dtype=torch.int32, device="cuda")
    target = torch.empty_like(source)
    return 2 * source.nbytes / _seconds(lambda: target.copy_(source))


def _matrix_rate() -> float:
    square = torch.randn(8192, 8192, dtype=torch.bfloat16, device="cuda")
    return 2 * 8192**3 / _seconds(lambda: square @ square)


def _seconds(run: Callable[[], object]) -> float:
    times = []
    for _ in range(8):
        torch.cuda.synchronize()
        began = time.perf_counter()
        run()
        torch.cuda.synchronize()
        times.append(time.perf_counter() - began)
    return min(times)
