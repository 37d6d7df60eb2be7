"""Every published layout and norm variant drafts what a plain forward pass of it drafts."""

from __future__ import annotations

import pytest
import torch
from eagle_heads import DIM, HEADS, HIDDEN, KV_HEADS, VOCAB, WIDE, config_of, tensors_of, write_head
from torch.nn import functional

from rtp_core import LLM, SamplingParams
from rtp_core.api import open_stored_tensors
from rtp_spec_eagle.description import describe
from rtp_spec_eagle.shipped import FIELD

PROMPT = [(place * 37 + 11) % 256 for place in range(40)]
DEPTH = 4


def rms(x, weight, eps=1e-5):
    return x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + eps) * weight


def rotated(x, positions, theta):
    """x [rows, heads, dim], halves split."""
    angles = positions[:, None] * theta ** (-torch.arange(0, DIM, 2) / DIM)
    cos, sin = angles.cos()[:, None], angles.sin()[:, None]
    low, high = x.chunk(2, dim=-1)
    return torch.cat((low * cos - high * sin, high * cos + low * sin), dim=-1)


class Plain:
    """The equations, over whole sequences without a cache. Row i: (token i + 1, state i)."""

    def __init__(self, tensors, model, version=3, theta=10000.0, **flags):
        self.t = {name.replace("layers.0.", "midlayer."): one for name, one in tensors.items()}
        self.model, self.version, self.theta, self.flags = model, version, theta, flags
        self.embed = self.t.get("embed_tokens.weight", model.model.embed_tokens.weight)

    def w(self, name):
        return self.t[f"{name}.weight"]

    def fused(self, captured):
        if self.version == 1:
            return captured[-1]
        parts = list(captured)
        for old, new in (("aux_norm_low", 0), ("aux_norm_mid", 1)):
            name = old if f"{old}.weight" in self.t else f"fc_norm.{new}"
            if f"{name}.weight" in self.t:
                parts[new] = rms(parts[new], self.w(name))
        x = torch.cat(parts, -1)
        if "input_norm.weight" in self.t:
            x = rms(x, self.w("input_norm"))
        return x @ self.w("fc").T

    def layer(self, tokens, h):
        x = functional.embedding(tokens, self.embed)
        if self.version == 1:
            h = torch.cat((x, h), -1) @ self.w("fc").T + self.t.get("fc.bias", 0)
            a = residual = h
        else:
            normed = rms(h, self.w("midlayer.hidden_norm"))
            a = torch.cat((rms(x, self.w("midlayer.input_layernorm")), normed), -1)
            residual = normed if self.flags.get("norm_before_residual") else h
        q, k, v = (
            (a @ self.w(f"midlayer.self_attn.{one}_proj").T
             + self.t.get(f"midlayer.self_attn.{one}_proj.bias", 0)).unflatten(-1, (-1, DIM))
            for one in "qkv"
        )  # fmt: skip
        if "midlayer.self_attn.q_norm.weight" in self.t:
            q, k = (
                rms(q, self.w("midlayer.self_attn.q_norm")),
                rms(k, self.w("midlayer.self_attn.k_norm")),
            )
        where = torch.arange(len(tokens))
        q, k = rotated(q, where, self.theta), rotated(k, where, self.theta)
        heads = functional.scaled_dot_product_attention(
            *(one.transpose(0, 1)[None] for one in (q, k, v)), is_causal=True, enable_gqa=True
        )
        out = residual + heads[0].transpose(0, 1).flatten(1) @ self.w("midlayer.self_attn.o_proj").T
        m = rms(out, self.w("midlayer.post_attention_layernorm"))
        gate = functional.silu(m @ self.w("midlayer.mlp.gate_proj").T)
        return (
            out
            + (gate * (m @ self.w("midlayer.mlp.up_proj").T)) @ self.w("midlayer.mlp.down_proj").T
        )

    def logits(self, out):
        own = self.t.get("lm_head.weight", self.model.lm_head.weight)
        return (out if self.version == 1 else rms(out, self.w("norm"))) @ own.T

    @torch.inference_mode()
    def draft(self, tokens, captured):
        """`captured` of all tokens but the last."""
        ids = torch.tensor(tokens[1:])
        h, found = self.fused(captured), []
        d2t = self.t.get("d2t")
        for _ in range(DEPTH):
            out = self.layer(ids, h)[-1:]
            best = int(self.logits(out)[0].argmax())
            found.append(best if d2t is None else best + int(d2t[best]))
            back = rms(out, self.w("norm")) if self.flags.get("norm_output") else out
            ids, h = torch.cat((ids, torch.tensor(found[-1:]))), torch.cat((h, back))
        return found


def first_draft(tiny_model, folder, **options):
    """What the drafter proposes after PROMPT and one token; and those tokens."""
    with LLM(
        model=str(tiny_model), dtype="float32", kv={"memory": 2**23, "block_size": 16},
        speculation={"methods": ["eagle"], "max_draft_tokens": DEPTH},
        plugins={"spec_eagle": {"head": str(folder), **options}},
        scheduling={"max_num_batched_tokens": 11},
    ) as llm:  # fmt: skip
        (held,) = llm._engine._speculation._speculators.values()
        own, seen = held._speculator.propose, []

        def propose(rows):
            drafts = own(rows)
            seen.extend(
                (list(row.token_ids), list(draft.token_ids))
                for row, draft in zip(rows, drafts, strict=True)
            )
            return drafts

        held._speculator.propose = propose
        llm.generate([PROMPT], SamplingParams(temperature=0.0, max_tokens=12, ignore_eos=True))
        assert llm.stats()["plugin_errors"] == {}
    return seen[0]


@torch.inference_mode()
def states(hf, tokens, layers):
    out = hf(torch.tensor([tokens]), output_hidden_states=True)
    return [out.hidden_states[layer][0] for layer in layers]


def check(tiny_model, hf, folder, tensors, layers=(1, 2), options=None, **plain):
    known, draft = first_draft(tiny_model, folder, **(options or {}))
    wanted = Plain(tensors, hf, **plain).draft(known, states(hf, known[:-1], layers))
    assert draft == wanted
    return draft


def with_(tensors, **more):
    return tensors | more


def ones(*shape):
    return torch.rand(shape, generator=torch.Generator().manual_seed(9)) + 0.5


def test_safe_ai_lab(tiny_model, tiny_hf_model, tmp_path):
    tensors = tensors_of()
    check(tiny_model, tiny_hf_model, write_head(tmp_path, config_of(), tensors), tensors)


def test_ids_of_layers_that_states_leave_and_enter(tiny_model, tiny_hf_model, tmp_path):
    """SGLang's list [0, 1] means what the speculators library calls [1, 2]."""
    tensors = tensors_of()
    folder = write_head(tmp_path, config_of(), tensors)
    entering = {"layer_ids": "entering"}
    one = check(tiny_model, tiny_hf_model, folder, tensors)
    other = check(tiny_model, tiny_hf_model, folder, tensors, (0, 1), entering)
    assert one != other


def test_the_usual_layers():
    config = config_of(eagle_config={"use_aux_hidden_state": True})

    class Files:
        name, tensors = (
            "head",
            {"fc.weight": ("", (48, 144)), "midlayer.hidden_norm.weight": ("", (48,))},
        )

        def shape(self, name):
            return self.tensors[name][1]

    files = Files()
    files.config = config
    assert describe(files, 30).capture_layers == (2, 15, 27)
    assert describe(files, 32).capture_layers == (2, 16, 29)


@pytest.mark.parametrize("flag", ["norm_before_residual", "norm_output"])
def test_flags_of_norms(tiny_model, tiny_hf_model, tmp_path, flag):
    tensors = tensors_of()
    folder = write_head(tmp_path, config_of(**{flag: True}), tensors)
    check(tiny_model, tiny_hf_model, folder, tensors, **{flag: True})


def test_norm_before_fusing(tiny_model, tiny_hf_model, tmp_path):
    tensors = with_(tensors_of(), **{"input_norm.weight": ones(2 * HIDDEN)})
    folder = write_head(tmp_path, config_of(norm_before_fc=True), tensors)
    check(tiny_model, tiny_hf_model, folder, tensors)


@pytest.mark.parametrize("names", [("fc_norm.0", "fc_norm.1"), ("aux_norm_low", "aux_norm_mid")])
def test_a_norm_for_each_state(tiny_model, tiny_hf_model, tmp_path, names):
    norms = {f"{name}.weight": ones(HIDDEN) * (at + 1) for at, name in enumerate(names)}
    tensors = tensors_of() | norms
    check(
        tiny_model, tiny_hf_model, write_head(tmp_path, config_of(fc_norm=True), tensors), tensors
    )


def test_the_layout_of_the_speculators_library(tiny_model, tiny_hf_model, tmp_path):
    tensors = tensors_of(layer="layers.0.") | {"embed_tokens.weight": torch.randn(VOCAB, HIDDEN)}
    layer = {
        key: value for key, value in config_of().items()
        if key not in ("architectures", "draft_vocab_size", "eagle_config", "vocab_size")
    } | {"model_type": "llama", "rope_theta": 500.0, "vocab_size": VOCAB}  # fmt: skip
    config = {
        "speculators_model_type": "eagle3", "architectures": ["Eagle3Speculator"],
        "transformer_layer_config": layer, "draft_vocab_size": 128, "target_hidden_size": HIDDEN,
        "norm_before_residual": True, "eagle_aux_hidden_state_layer_ids": [1, 2],
    }  # fmt: skip
    folder = write_head(tmp_path, config, tensors)
    check(tiny_model, tiny_hf_model, folder, tensors, norm_before_residual=True, theta=500.0)


def test_a_head_of_the_whole_vocabulary(tiny_model, tiny_hf_model, tmp_path):
    """Without maps; the head is the model's where the file has none."""
    tensors = tensors_of(draft_vocab=VOCAB)
    for name in ("d2t", "t2d"):
        del tensors[name]
    config = config_of(draft_vocab_size=VOCAB)
    check(tiny_model, tiny_hf_model, write_head(tmp_path / "own", config, tensors), tensors)
    del tensors["lm_head.weight"]
    check(tiny_model, tiny_hf_model, write_head(tmp_path / "shared", config, tensors), tensors)


def test_biases_and_norms_of_heads(tiny_model, tiny_hf_model, tmp_path):
    attention = "midlayer.self_attn."
    tensors = tensors_of() | {
        f"{attention}q_proj.bias": ones(HEADS * DIM),
        f"{attention}k_proj.bias": ones(KV_HEADS * DIM),
        f"{attention}v_proj.bias": ones(KV_HEADS * DIM),
        f"{attention}q_norm.weight": ones(DIM), f"{attention}k_norm.weight": ones(DIM),
    }  # fmt: skip
    check(tiny_model, tiny_hf_model, write_head(tmp_path, config_of(), tensors), tensors)


@pytest.mark.parametrize("bias", [True, False])
def test_eagle_one_and_two(tiny_model, tiny_hf_model, tmp_path, bias):
    whole = tensors_of(layer="layers.0.")
    tensors = {
        name: one for name, one in whole.items()
        if name not in ("norm.weight", "lm_head.weight", "d2t", "t2d")
        and name not in ("layers.0.hidden_norm.weight", "layers.0.input_layernorm.weight")
    }  # fmt: skip
    for one in "qkv":
        name = f"layers.0.self_attn.{one}_proj.weight"
        tensors[name] = tensors[name][:, :HIDDEN]
    tensors["layers.0.mlp.gate_proj.weight"] = tensors["layers.0.mlp.gate_proj.weight"][:WIDE]
    if bias:
        tensors["fc.bias"] = ones(HIDDEN)
    config = config_of()
    for key in ("draft_vocab_size", "eagle_config"):
        del config[key]
    check(
        tiny_model, tiny_hf_model, write_head(tmp_path, config, tensors), tensors, (3,), version=1
    )


def test_a_file_names_its_folder(tiny_head):
    assert (
        open_stored_tensors(tiny_head / "model.safetensors", FIELD).config
        == open_stored_tensors(tiny_head, FIELD).config
    )
