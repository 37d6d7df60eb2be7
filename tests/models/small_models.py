"""Random Hugging Face models of every native family, in the shapes that make them differ."""

from __future__ import annotations

import torch
import transformers

VOCABULARY = 259
WINDOW = 24
PLAIN = {
    "vocab_size": VOCABULARY,
    "hidden_size": 48,
    "intermediate_size": 80,
    "num_hidden_layers": 3,
    "num_attention_heads": 6,
    "num_key_value_heads": 2,
    "max_position_embeddings": 512,
    "initializer_range": 0.2,
    "bos_token_id": None,
    "eos_token_id": 257,
    "pad_token_id": None,
    "tie_word_embeddings": False,
}
LLAMA3 = {
    "rope_type": "llama3",
    "rope_theta": 10000.0,
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 64,
}
YARN = {
    "rope_type": "yarn",
    "rope_theta": 10000.0,
    "factor": 4.0,
    "original_max_position_embeddings": 128,
}
GEMMA = {"head_dim": 16, "sliding_window": WINDOW, "query_pre_attn_scalar": 24}
QWEN_WINDOW = {"use_sliding_window": True, "sliding_window": WINDOW, "max_window_layers": 1}
EXPERTS = {
    "head_dim": 16,
    "num_experts": 6,
    "num_experts_per_tok": 2,
    "moe_intermediate_size": 40,
    "norm_topk_prob": True,
}
FULL, SLIDING = "full_attention", "sliding_attention"

# architecture -> what to change in PLAIN, by a name for the case
CASES: dict[str, dict[str, dict]] = {
    "LlamaForCausalLM": {
        "grouped": {},
        "one KV head": {"num_key_value_heads": 1},
        "every head": {"num_key_value_heads": 6},
        "tied": {"tie_word_embeddings": True},
        "wide heads": {"head_dim": 32},
        "biases": {"attention_bias": True, "mlp_bias": True},
        "llama3": {"rope_parameters": LLAMA3},
        "yarn": {"rope_parameters": YARN},
        "linear": {"rope_parameters": {"rope_type": "linear", "rope_theta": 1e4, "factor": 4.0}},
        "dynamic": {"rope_parameters": {"rope_type": "dynamic", "rope_theta": 1e4, "factor": 4.0}},
    },
    "SmolLM3ForCausalLM": {
        "every second layer unturned": {"no_rope_layers": [1, 0, 1]},
        "every fourth": {"num_hidden_layers": 5, "tie_word_embeddings": True},
        "windows where unturned": {
            "no_rope_layers": [1, 0, 1],
            "use_sliding_window": True,
            "sliding_window": WINDOW,
        },
    },
    "MistralForCausalLM": {
        "no window": {"sliding_window": None},
        "window": {"sliding_window": WINDOW},
        "narrow heads, window of one block": {"head_dim": 4, "sliding_window": 16},
        "window of one token": {"sliding_window": 1, "num_key_value_heads": 1},
    },
    "Qwen2ForCausalLM": {
        "biases": {},
        "upper windows": {**QWEN_WINDOW, "num_key_value_heads": 1},
        "window off": {"use_sliding_window": False, "sliding_window": 4},
        "tied": {"tie_word_embeddings": True, "num_key_value_heads": 6},
    },
    "Qwen3ForCausalLM": {
        "normed heads": {"head_dim": 16},
        "wide heads, tied": {"head_dim": 32, "tie_word_embeddings": True},
        "biases, yarn": {"head_dim": 16, "attention_bias": True, "rope_parameters": YARN},
        "upper windows": {"head_dim": 16, **QWEN_WINDOW},
        "layer types": {
            "head_dim": 16,
            **QWEN_WINDOW,
            "layer_types": [SLIDING, FULL, SLIDING],
        },
    },
    "Qwen3MoeForCausalLM": {
        "experts": EXPERTS,
        "shares not normalised": {**EXPERTS, "norm_topk_prob": False, "num_experts_per_tok": 4},
        "a dense layer": {**EXPERTS, "mlp_only_layers": [1]},
        "every second layer": {**EXPERTS, "decoder_sparse_step": 2, "num_key_value_heads": 1},
        "window": {**EXPERTS, "use_sliding_window": True, "sliding_window": WINDOW},
    },
    "Gemma2ForCausalLM": {
        "limited": GEMMA,
        "tightly limited": {
            **GEMMA,
            "attn_logit_softcapping": 2.0,
            "final_logit_softcapping": 3.0,
            "tie_word_embeddings": True,
        },
        "no limit": {**GEMMA, "attn_logit_softcapping": None, "final_logit_softcapping": None},
        "one KV head": {**GEMMA, "num_key_value_heads": 1, "head_dim": 32},
    },
    "Gemma3ForCausalLM": {
        "five to one": {**GEMMA, "num_hidden_layers": 7, "tie_word_embeddings": True},
        "two to one": {**GEMMA, "layer_types": [SLIDING, SLIDING, FULL]},
        "linear, one KV head": {
            **GEMMA,
            "layer_types": [SLIDING, FULL, SLIDING],
            "num_key_value_heads": 1,
            "rope_parameters": {
                FULL: {"rope_type": "linear", "rope_theta": 1e6, "factor": 8.0},
                SLIDING: {"rope_type": "default", "rope_theta": 1e4},
            },
        },
        "limited logits": {**GEMMA, "final_logit_softcapping": 3.0},
    },
}
ALL = [(architecture, case) for architecture, cases in CASES.items() for case in cases]


def random_model(architecture: str, case: str, **changes):
    """The model of a case in float32, norms and biases random too."""
    torch.manual_seed(len(case))
    name = architecture.removesuffix("ForCausalLM")
    config_class = getattr(transformers, f"{name}{'Text' if name == 'Gemma3' else ''}Config")
    config = config_class(**{**PLAIN, **CASES[architecture][case], **changes})
    config._attn_implementation = "eager"
    model = getattr(transformers, architecture)(config).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim == 1:
                parameter.add_(torch.randn_like(parameter) * 0.2)
    return model


def random_ids(length: int, seed: int = 1) -> list[int]:
    """Token ids without the control tokens."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, 256, (length,), generator=generator).tolist()


def logits_of(model, ids: list[int]) -> torch.Tensor:
    """float32 [tokens, vocabulary] of one text, without a cache."""
    with torch.inference_mode():
        return model(torch.tensor([ids]), use_cache=False).logits[0].float()
