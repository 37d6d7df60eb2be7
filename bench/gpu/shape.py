"""The shape that is measured, what a card could do at best, and an engine of that shape."""

from __future__ import annotations

import gc
import json
import tempfile
import time
from pathlib import Path
from typing import Any

import torch

from rtp_core.config.read import load_config
from rtp_core.engine.assemble import build_engine
from rtp_core.engine.core import EngineCore

SHAPE = {
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
LINEAR = 36 * (6144 * 4096 + 4096 * 4096 + 24576 * 4096 + 4096 * 12288)
AFTER_ATTENTION = 4096 * 4096 + 24576 * 4096 + 4096 * 12288
HEAD = 151936 * 4096
WEIGHT_BYTES = 2 * (LINEAR + HEAD)
KV_BYTES = 36 * 2 * 8 * 128 * 2


def copy_bandwidth() -> float:
    """Bytes read and written a second."""
    source = torch.empty(2**30, dtype=torch.int32, device="cuda")
    target = torch.empty_like(source)
    times = []
    for _ in range(8):
        torch.cuda.synchronize()
        began = time.perf_counter()
        target.copy_(source)
        torch.cuda.synchronize()
        times.append(time.perf_counter() - began)
    return 2 * source.nbytes / min(times)


def matrix_rate() -> float:
    """bf16 FLOP/s of one 8192^3 product."""
    a = torch.randn(8192, 8192, dtype=torch.bfloat16, device="cuda")
    times = []
    for _ in range(8):
        torch.cuda.synchronize()
        began = time.perf_counter()
        a @ a
        torch.cuda.synchronize()
        times.append(time.perf_counter() - began)
    return 2 * 8192**3 / min(times)


def decode_floor(batch: int, context: int, bandwidth: float) -> float:
    """Seconds: weights of all linear layers, keys and values, over the copy bandwidth."""
    return (WEIGHT_BYTES + batch * context * KV_BYTES) / bandwidth


def prompt_flops(batch: int, length: int) -> float:
    """Linear layers of every token, but what follows attention in the last layer, which only the
    last token needs, and the head; causal attention."""
    linear = length * (LINEAR - AFTER_ATTENTION) + AFTER_ATTENTION + HEAD
    return batch * (2 * linear + 2 * 36 * 32 * 128 * length**2)


def build(max_model_len: int, **sections: Any) -> EngineCore:
    """With random weights; `sections` are more of the configuration."""
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "config.json").write_text(json.dumps(SHAPE))
        overrides = {
            "model": folder,
            "max_model_len": max_model_len,
            "loading": {"loader": "dummy"},
            "kv": {"prefix_caching": False},
            **sections,
        }
        return build_engine(load_config(overrides=overrides))


def close(engine: EngineCore) -> None:
    """End an engine and give its memory back. The caller keeps no reference."""
    engine.close()
    engine.__dict__.clear()
    gc.collect()
    torch.cuda.empty_cache()
