"""Small random models of many architectures, in directories as users have them."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

sys.path.insert(0, str(Path(__file__).parent.parent.parent))
from conftest import write_byte_tokenizer

transformers = pytest.importorskip("transformers")

VOCAB = 259
SHAPE = {
    "vocab_size": VOCAB,
    "hidden_size": 48,
    "intermediate_size": 64,
    "num_hidden_layers": 3,
    "num_attention_heads": 6,
    "num_key_value_heads": 2,
    "max_position_embeddings": 128,
    "initializer_range": 0.3,
    "bos_token_id": None,
    "eos_token_id": None,
    "pad_token_id": None,
}
GPT2 = {
    "vocab_size": VOCAB,
    "n_embd": 48,
    "n_layer": 3,
    "n_head": 4,
    "n_positions": 128,
    "bos_token_id": None,
    "eos_token_id": None,
}
EXPERTS = {"num_local_experts": 4, "num_experts_per_tok": 2}
SERVED: dict[str, tuple[str, dict[str, Any]]] = {
    "phi3": ("Phi3ForCausalLM", {}),
    "phi3_window": ("Phi3ForCausalLM", {"sliding_window": 9}),
    "gpt2": ("GPT2LMHeadModel", GPT2),
    "gpt_neox": ("GPTNeoXForCausalLM", {"num_key_value_heads": None}),
    "olmo2": ("Olmo2ForCausalLM", {}),
    "granite": ("GraniteForCausalLM", {"logits_scaling": 4.0, "attention_multiplier": 0.2,
                "residual_multiplier": 0.5, "embedding_multiplier": 3.0}),
    "stablelm": ("StableLmForCausalLM", {"use_qkv_bias": True}),
    "cohere": ("CohereForCausalLM", {"logit_scale": 0.25, "use_qk_norm": True}),
    "cohere2": ("Cohere2ForCausalLM", {"sliding_window": 9, "logit_scale": 0.25,
                "layer_types": ["sliding_attention", "full_attention", "sliding_attention"]}),
    "starcoder2": ("Starcoder2ForCausalLM", {}),
    "opt": ("OPTForCausalLM", {"ffn_dim": 64, "word_embed_proj_dim": 48}),
    "vaultgemma": ("VaultGemmaForCausalLM", {"sliding_window": 9, "head_dim": 16,
               "attn_logit_softcapping": 2.0, "final_logit_softcapping": 3.0}),
    "apertus": ("ApertusForCausalLM", {}),
    "mixtral": ("MixtralForCausalLM", EXPERTS),
    "deepseek_v3": ("DeepseekV3ForCausalLM", {"n_routed_experts": 4, "n_group": 2,
                    "topk_group": 1, "num_experts_per_tok": 2, "moe_intermediate_size": 32,
                    "first_k_dense_replace": 1, "q_lora_rank": 16, "kv_lora_rank": 16,
                    "qk_rope_head_dim": 8, "qk_nope_head_dim": 8, "v_head_dim": 12,
                    "num_key_value_heads": 6}),
    "gpt_oss": ("GptOssForCausalLM", {"head_dim": 16, "sliding_window": 9, **EXPERTS,
                "rope_parameters": {"rope_type": "default", "rope_theta": 10000.0},
                "layer_types": ["sliding_attention", "full_attention", "sliding_attention"]}),
}  # fmt: skip


def make(name: str) -> Any:
    """A random float32 model."""
    architecture, changes = SERVED[name]
    return build(architecture, {**SHAPE, **changes})


def build(architecture: str, settings: dict[str, Any]) -> Any:
    torch.manual_seed(3)
    model_class = getattr(transformers, architecture)
    config = model_class.config_class(**settings)
    model = model_class(config).eval()
    for parameter in model.parameters():  # norms and biases start as ones and zeros
        if parameter.ndim == 1:
            parameter.data += 0.2 * torch.randn_like(parameter)
    return model


def save(model: Any, directory: Path) -> Path:
    model.save_pretrained(directory)
    write_byte_tokenizer(directory)
    return directory


def write_config(directory: Path, settings: dict[str, Any]) -> Path:
    """A directory with a configuration and no usable weights."""
    from safetensors.torch import save_file

    directory.mkdir(parents=True, exist_ok=True)
    (directory / "config.json").write_text(json.dumps(settings))
    save_file({"weight": torch.zeros(2, 2)}, directory / "model.safetensors")
    write_byte_tokenizer(directory)
    return directory


def greedy(model: Any, ids: list[int], count: int) -> list[int]:
    """`count` tokens of Hugging Face's own generate."""
    done = model.generate(
        torch.tensor([ids]), attention_mask=torch.ones(1, len(ids), dtype=torch.int64),
        do_sample=False, max_new_tokens=count, pad_token_id=0,
    )  # fmt: skip
    return done[0, len(ids) :].tolist()


def logprobs(model: Any, ids: list[int]) -> torch.Tensor:
    """float32 [tokens, vocabulary] of Hugging Face's forward pass."""
    with torch.inference_mode():
        return model(torch.tensor([ids])).logits[0].log_softmax(dim=-1)
