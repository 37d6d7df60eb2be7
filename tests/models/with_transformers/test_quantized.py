"""Quantized checkpoints of architectures that transformers runs: weights arrive dequantized."""

from __future__ import annotations

import sys
from functools import partial
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

sys.path.insert(0, str(Path(__file__).parent))
sys.path.insert(0, str(Path(__file__).parents[2] / "loading"))
import quantized_files as files
import zoo

from rtp_core import LLM, SamplingParams
from rtp_core.config.read import load_config
from rtp_core.engine.prepare import prepare
from rtp_core.errors import WeightLoadError

NUM_TOKENS = 12
PROMPT = list(range(40, 70))
CHANNEL = files.weights_of(strategy="channel")
CASES = {
    "olmo2": (partial(files.packed, group=None), files.compressed_config(CHANNEL)),
    "phi3": (partial(files.fp8, block=(32, 32)), files.fp8_config((32, 32))),
    "mixtral": (partial(files.fp8, block=(32, 32)), files.fp8_config((32, 32))),
}


def wanted(name):
    return files.is_linear(name) or ".experts." in name


@pytest.mark.parametrize("name", CASES)
def test_greedy_tokens_equal_those_of_the_weights_meant(name, tmp_path):
    make, settings = CASES[name]
    directory = zoo.save(zoo.make(name), tmp_path / "quantized")
    plain = zoo.save(zoo.make(name), tmp_path / "plain")
    meant = files.rewrite_model(directory, make, settings, wanted=wanted, shards=2)
    save_file(meant, plain / "model.safetensors", metadata={"format": "pt"})
    model = type(zoo.make(name)).from_pretrained(plain, dtype=torch.float32).eval()
    greedy = SamplingParams(temperature=0.0, max_tokens=NUM_TOKENS, ignore_eos=True)
    with LLM(model=str(directory), dtype="float32") as llm:
        (result,) = llm.generate([PROMPT], greedy)
        offers = {one["role"]: one["offer"] for one in llm.explain()["features"] if one["on"]}
    assert list(result.outputs[0].token_ids) == zoo.greedy(model, PROMPT, NUM_TOKENS)
    assert offers["quantization"] == settings["quant_method"]


def test_a_part_that_is_missing_is_named(tmp_path):
    make, settings = CASES["olmo2"]
    directory = zoo.save(zoo.make("olmo2"), tmp_path / "quantized")
    files.rewrite_model(directory, make, settings)
    path = directory / "model.safetensors"
    tensors = load_file(path)
    del tensors["model.layers.1.mlp.up_proj.weight_scale"]
    save_file(tensors, path)
    with pytest.raises(WeightLoadError, match=r"missing: .*layers\.1\.mlp\.up_proj\.weight_scale"):
        prepare(load_config(overrides={"model": str(directory)}))
