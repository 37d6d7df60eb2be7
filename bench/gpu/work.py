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


@dataclass(frozen=True)
class Work:
    """Weights of all linear layers and of the head, in elements; shapes of attention.

    `last`: of the layers behind the last attention, which only tokens that draw pass.
    """

    linear: int
    last: int
    head: int
    layers: int
    heads: int
    kv_heads: int
    head_dim: int

    @staticmethod
    def of(shape: Mapping[str, Any]) -> Work:
        """Of a dense model's config.json."""
        hidden, dim = shape["hidden_size"], shape["head_dim"]
        heads, kv_heads = shape["num_attention_heads"], shape["num_key_value_heads"]
        into = (heads + 2 * kv_heads) * dim * hidden
        after = heads * dim * hidden + 3 * hidden * shape["intermediate_size"]
        layers, head = shape["num_hidden_layers"], shape["vocab_size"] * hidden
        return Work(layers * (into + after), after, head, layers, heads, kv_heads, dim)

    def decode_bytes(self, batch: int, context: int) -> int:
        """Weights once, keys and values of all texts; bfloat16."""
        kv = self.layers * 2 * self.kv_heads * self.head_dim
        return 2 * (self.linear + self.head + batch * context * kv)

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
