"""Configurations as published: sizes must come out at the published parameter counts."""

from __future__ import annotations

import math
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))
from paging import family_of

QWEN_OFF = {"use_sliding_window": False, "sliding_window": 131072, "max_window_layers": 28}
PUBLISHED = {
    "Llama 3.2 1B": (
        "LlamaForCausalLM",
        1_235_814_400,
        {
            "hidden_size": 2048,
            "intermediate_size": 8192,
            "num_hidden_layers": 16,
            "num_attention_heads": 32,
            "num_key_value_heads": 8,
            "head_dim": 64,
            "vocab_size": 128256,
            "max_position_embeddings": 131072,
            "tie_word_embeddings": True,
            "rope_theta": 500000.0,
            "rope_scaling": {
                "factor": 32.0,
                "high_freq_factor": 4.0,
                "low_freq_factor": 1.0,
                "original_max_position_embeddings": 8192,
                "rope_type": "llama3",
            },
        },
    ),
    "SmolLM3 3B": (
        "SmolLM3ForCausalLM",
        3_075_098_624,
        {
            "hidden_size": 2048,
            "intermediate_size": 11008,
            "num_hidden_layers": 36,
            "num_attention_heads": 16,
            "num_key_value_heads": 4,
            "vocab_size": 128256,
            "max_position_embeddings": 65536,
            "no_rope_layers": [1, 1, 1, 0] * 9,
            "rope_theta": 5000000.0,
            "sliding_window": None,
            "use_sliding_window": False,
        },
    ),
    "Mistral 7B": (
        "MistralForCausalLM",
        7_241_732_096,
        {
            "hidden_size": 4096,
            "intermediate_size": 14336,
            "num_hidden_layers": 32,
            "num_attention_heads": 32,
            "num_key_value_heads": 8,
            "vocab_size": 32000,
            "max_position_embeddings": 32768,
            "sliding_window": 4096,
            "tie_word_embeddings": False,
        },
    ),
    "Mistral Nemo": (
        "MistralForCausalLM",
        12_247_782_400,
        {
            "head_dim": 128,
            "hidden_size": 5120,
            "intermediate_size": 14336,
            "num_hidden_layers": 40,
            "num_attention_heads": 32,
            "num_key_value_heads": 8,
            "vocab_size": 131072,
            "max_position_embeddings": 131072,
            "rope_theta": 1000000.0,
            "sliding_window": None,
        },
    ),
    "Qwen2.5 7B": (
        "Qwen2ForCausalLM",
        7_615_616_512,
        {
            "hidden_size": 3584,
            "intermediate_size": 18944,
            "num_hidden_layers": 28,
            "num_attention_heads": 28,
            "num_key_value_heads": 4,
            "vocab_size": 152064,
            "max_position_embeddings": 32768,
            "rope_theta": 1000000.0,
            **QWEN_OFF,
        },
    ),
    "Qwen3 0.6B": (
        "Qwen3ForCausalLM",
        596_049_920,
        {
            "head_dim": 128,
            "hidden_size": 1024,
            "intermediate_size": 3072,
            "num_hidden_layers": 28,
            "num_attention_heads": 16,
            "num_key_value_heads": 8,
            "vocab_size": 151936,
            "max_position_embeddings": 40960,
            "tie_word_embeddings": True,
            "attention_bias": False,
            **QWEN_OFF,
        },
    ),
    "Qwen3 30B A3B": (
        "Qwen3MoeForCausalLM",
        30_532_122_624,
        {
            "head_dim": 128,
            "hidden_size": 2048,
            "intermediate_size": 6144,
            "moe_intermediate_size": 768,
            "num_experts": 128,
            "num_experts_per_tok": 8,
            "norm_topk_prob": True,
            "decoder_sparse_step": 1,
            "mlp_only_layers": [],
            "num_hidden_layers": 48,
            "num_attention_heads": 32,
            "num_key_value_heads": 4,
            "vocab_size": 151936,
            "max_position_embeddings": 40960,
            "tie_word_embeddings": False,
            **QWEN_OFF,
        },
    ),
    "Gemma 2 2B": (
        "Gemma2ForCausalLM",
        2_614_341_888,
        {
            "head_dim": 256,
            "hidden_size": 2304,
            "intermediate_size": 9216,
            "num_hidden_layers": 26,
            "num_attention_heads": 8,
            "num_key_value_heads": 4,
            "vocab_size": 256000,
            "max_position_embeddings": 8192,
            "hidden_act": "gelu_pytorch_tanh",
            "hidden_activation": "gelu_pytorch_tanh",
            "sliding_window": 4096,
        },
    ),
    "Gemma 3 1B": (
        "Gemma3ForCausalLM",
        999_885_952,
        {
            "head_dim": 256,
            "hidden_size": 1152,
            "intermediate_size": 6912,
            "num_hidden_layers": 26,
            "num_attention_heads": 4,
            "num_key_value_heads": 1,
            "vocab_size": 262144,
            "max_position_embeddings": 32768,
            "query_pre_attn_scalar": 256,
            "sliding_window": 512,
            "sliding_window_pattern": 6,
            "rope_theta": 1000000,
            "rope_local_base_freq": 10000,
            "rope_scaling": None,
        },
    ),
}


@pytest.mark.parametrize("name", PUBLISHED)
def test_the_parameter_count_is_the_published_one(name):
    architecture, count, config = PUBLISHED[name]
    family = family_of(architecture)
    table = family.weights(family.spec(config, "bfloat16", name))
    assert sum(math.prod(one.shape) for one in table.parameters) == count
