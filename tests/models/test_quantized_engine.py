"""Quantized checkpoints through the whole engine, against Hugging Face with the weights meant."""

from __future__ import annotations

import sys
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from rtp_core import LLM, SamplingParams
from rtp_core.errors import ConfigError

pytest.importorskip("transformers")
sys.path.insert(0, str(Path(__file__).parent))
sys.path.insert(0, str(Path(__file__).parents[1] / "loading"))
import quantized_files as files
from small_models import random_ids, random_model

NEW = 16
GREEDY = SamplingParams(temperature=0.0, max_tokens=NEW, ignore_eos=True)
PROMPTS = [random_ids(length, seed=length) for length in (5, 40, 70)]
SIZES = {"hidden_size": 64, "intermediate_size": 96, "head_dim": 16, "num_hidden_layers": 2}
LLAMA = partial(random_model, "LlamaForCausalLM", "grouped", **SIZES, num_attention_heads=4)
QWEN2 = partial(
    random_model, "Qwen2ForCausalLM", "biases", hidden_size=64, intermediate_size=96,
    num_hidden_layers=2, num_attention_heads=4,
)  # fmt: skip
MOE = partial(random_model, "Qwen3MoeForCausalLM", "a dense layer")
SCATTERED = np.random.default_rng(3)


def scattered(weight):
    return files.gptq(weight, 4, 32, order=SCATTERED.permutation(weight.shape[1]))


GROUPED = files.weights_of(group_size=32)
FLOAT = partial(files.weights_of, "float", 8)
CASES = {
    "awq": (files.awq, files.awq_config()),
    "gptq": (files.gptq, files.gptq_config()),
    "gptq, 8 bits, v2, asymmetric": (
        partial(files.gptq, bits=8, v2=True, symmetric=False),
        files.gptq_config(8, checkpoint_format="gptq_v2", sym=False),
    ),
    "gptq, desc_act": (scattered, files.gptq_config(desc_act=True)),
    "packed": (files.packed, files.compressed_config(GROUPED)),
    "packed, asymmetric": (
        partial(files.packed, symmetric=False),
        files.compressed_config({**GROUPED, "symmetric": False}),
    ),
    "int8": (
        files.int8,
        files.compressed_config(files.weights_of(bits=8, strategy="channel"), "int-quantized"),
    ),
    "compressed floats a tensor": (
        files.compressed_float,
        files.compressed_config(FLOAT("tensor"), "float-quantized"),
    ),
    "fp8 blocks": (partial(files.fp8, block=(32, 32)), files.fp8_config((32, 32))),
    "fp8 a tensor": (
        partial(files.fp8, static=True), files.fp8_config(activation_scheme="static"),
    ),
}  # fmt: skip
PICKS = [
    *((LLAMA, case) for case in CASES),
    (QWEN2, "awq"),
    (QWEN2, "packed"),
    (QWEN2, "gptq"),
    (MOE, "fp8 blocks"),
    (MOE, "fp8 a tensor"),
]


def quantize(save_model, model, case, tmp_path, *, shards=1):
    """(the quantized directory, Hugging Face's model of the weights that it means)."""
    make, settings = CASES[case]
    path = save_model(model)
    plain = tmp_path / "plain"
    plain.mkdir()
    (plain / "config.json").write_bytes((path / "config.json").read_bytes())
    meant = files.rewrite_model(path, make, settings, shards=shards)
    save_file(meant, plain / "model.safetensors", metadata={"format": "pt"})
    return path, type(model).from_pretrained(plain, dtype=torch.float32).eval()


def greedy(model, prompt):
    known = torch.tensor([prompt])
    out = model.generate(
        known, attention_mask=torch.ones_like(known), max_new_tokens=NEW, min_new_tokens=NEW,
        do_sample=False, eos_token_id=None, pad_token_id=0,
    )  # fmt: skip
    return out[0, len(prompt) :].tolist()


def ids(results):
    return [list(result.outputs[0].token_ids) for result in results]


def rows(llm):
    return {one["role"]: one for one in llm.explain()["features"]}


@pytest.mark.parametrize("loader", ["mmap", "file_order"])
@pytest.mark.parametrize(
    ("make_model", "case"), PICKS, ids=[f"{one.args[0]}-{case}" for one, case in PICKS]
)
def test_greedy_tokens_equal_those_of_the_weights_meant(
    make_model, case, loader, save_model, tmp_path
):
    shards = 3 if loader == "file_order" else 1
    path, model = quantize(save_model, make_model(), case, tmp_path, shards=shards)
    method = CASES[case][1]["quant_method"]
    with LLM(
        model=str(path), dtype="float32", quantization=method, loading={"loader": loader}
    ) as llm:
        assert ids(llm.generate(PROMPTS, GREEDY)) == [greedy(model, one) for one in PROMPTS]
        row = rows(llm)["quantization"]
    assert row["offer"] == method
    assert "activations are not quantized on a CPU" in row["reason"]
    assert "dequantized to float32" in row["reason"]


@pytest.mark.parametrize(
    ("case", "form"),
    [
        ("awq", "bfloat16 + int4"),
        ("packed", "bfloat16 + int4"),
        ("int8", "bfloat16 + int8"),
        ("fp8 blocks", "bfloat16"),
        ("gptq, desc_act", "bfloat16"),
    ],
)
def test_by_default_the_codes_of_the_file_are_the_model(case, form, save_model, tmp_path):
    """Distributions of bfloat16 with and without codes stay near the float32 model."""
    path, model = quantize(save_model, LLAMA(), case, tmp_path)
    ask = SamplingParams(temperature=0.0, max_tokens=1, logprobs=5)
    with torch.inference_mode():
        logits = [model(torch.tensor([one])).logits[0, -1] for one in PROMPTS]
    wanted = [torch.log_softmax(one, -1) for one in logits]
    with LLM(model=str(path)) as llm:
        assert rows(llm)["weights"]["offer"] == form
        for result, expected in zip(llm.generate(PROMPTS, ask), wanted, strict=True):
            (found,) = result.outputs[0].logprobs
            for token, logprob in found.top:
                assert abs(logprob - float(expected[token])) < 0.35


def test_another_format_than_the_file_has_is_named(save_model, tmp_path):
    path, _ = quantize(save_model, LLAMA(), "awq", tmp_path)
    with pytest.raises(ConfigError, match=r"model\.quantization: fp8 .* which is awq"):
        LLM(model=str(path), quantization="fp8")


def test_a_plain_checkpoint_is_none(tiny_model):
    with pytest.raises(ConfigError, match=r"model\.quantization: awq .* which is none"):
        LLM(model=str(tiny_model), quantization="awq")
    with LLM(model=str(tiny_model), quantization="none") as llm:
        assert "quantization" not in rows(llm)


def test_the_start_tells_the_format(save_model, tmp_path, caplog):
    caplog.set_level("INFO", "rtp")
    path, _ = quantize(save_model, LLAMA(), "fp8 a tensor", tmp_path)
    with LLM(model=str(path)):
        pass
    assert "quantized fp8: 14 x float8_e4m3, a scale a tensor" in caplog.text
    assert "kind='scale of activations' count=14" in caplog.text


def test_one_pass_over_the_file_brings_every_part(save_model, tmp_path):
    """Stats count the bytes of all tensors but the header's."""
    path, _ = quantize(save_model, LLAMA(), "packed", tmp_path)
    tensors = load_file(path / "model.safetensors")
    read = sum(one.nbytes for name, one in tensors.items() if not name.endswith("weight_shape"))
    with LLM(model=str(path), dtype="float32", loading={"loader": "mmap"}) as llm:
        assert llm.stats()["load_bytes"] == read
