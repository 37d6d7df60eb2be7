"""The family and its model by themselves, and what is refused while they are built."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch

sys.path.insert(0, str(Path(__file__).parent))
import zoo
from safetensors.torch import load_file, save_file

from rtp_core.api import ParallelContext, PlanRow
from rtp_core.config.read import load_config
from rtp_core.engine.assemble import build_engine
from rtp_core.errors import ModelError, WeightLoadError
from rtp_core.execution.torch_attention import TorchAttention
from rtp_core.kv.dense_store import DenseStore
from rtp_core.loading.checkpoint import open_checkpoint
from rtp_core.models.transformers.family import TransformersFamily
from rtp_core.testing.conformance import model as conformance
from rtp_kernels.registry import resolver

APPLICABLE = (
    conformance.equal_configurations_give_equal_specs,
    conformance.kv_groups_cover_every_layer_once,
    conformance.weights_cover_every_row_once,
    conformance.the_model_answers_in_shape,
    conformance.chunks_equal_the_whole,
    conformance.states_are_captured_when_asked,
    conformance.wanted_tokens_alone_are_given,
)


@pytest.fixture(scope="module")
def stablelm(tmp_path_factory):
    model = zoo.make("stablelm")
    return model, zoo.save(model, tmp_path_factory.mktemp("stablelm"))


def engine(directory: Path):
    kv = {"memory": 2**22}
    return build_engine(
        load_config(overrides={"model": str(directory), "dtype": "float32", "kv": kv})
    )


@pytest.mark.parametrize("check", APPLICABLE, ids=lambda check: check.__name__)
def test_the_family_conforms(stablelm, check):
    checkpoint = open_checkpoint(stablelm[1])
    check(lambda context: TransformersFamily(checkpoint.tensors), checkpoint.config)


def test_captured_states_are_what_enters_a_layer(stablelm):
    model, directory = stablelm
    checkpoint = open_checkpoint(directory)
    family = TransformersFamily(checkpoint.tensors)
    spec = family.spec(checkpoint.config, "float32", "x")
    served = family.build(spec, model.state_dict(), ParallelContext(), resolver("cpu", "float32"))
    memory = DenseStore().open(spec.kv_groups, (4,), 16, "cpu")
    attention = TorchAttention("cpu").bind(spec, memory, 16)
    ids = [5, 3, 200, 17]
    with torch.inference_mode():
        plan = attention.plan([PlanRow("a", ids, 0, 0, True, ((2,),))])
        done = served.forward(torch.tensor(ids), attention, plan, (0, 2))
        expected = model(torch.tensor([ids]), output_hidden_states=True).hidden_states
    assert sorted(done.captured) == [0, 2]
    for layer, states in done.captured.items():
        torch.testing.assert_close(states, expected[layer][0], atol=1e-5, rtol=1e-4)


def test_a_model_that_mixes_the_tokens_of_a_step_is_refused(stablelm, monkeypatch):
    """A shift between neighbours, as some models have, would leak from one request to another."""
    from transformers.models.stablelm.modeling_stablelm import StableLmMLP

    plain = StableLmMLP.forward
    monkeypatch.setattr(
        StableLmMLP, "forward", lambda self, x: plain(self, x) + 0.5 * x.roll(1, dims=1)
    )
    with pytest.raises(ModelError, match=r"StableLmForCausalLM.*its logits in the engine differ"):
        engine(stablelm[1])


def test_a_model_that_counts_positions_itself_is_refused(stablelm, monkeypatch):
    from transformers.models.stablelm.modeling_stablelm import StableLmRotaryEmbedding

    plain = StableLmRotaryEmbedding.forward
    monkeypatch.setattr(
        StableLmRotaryEmbedding,
        "forward",
        lambda self, x, position_ids: plain(self, x, torch.arange(x.shape[1])[None]),
    )
    with pytest.raises(ModelError, match="its logits in the engine differ"):
        engine(stablelm[1])


@pytest.mark.parametrize("damage", ["missing", "unexpected", "mismatched"])
def test_tensors_that_do_not_fit_are_named(stablelm, tmp_path, damage):
    name = "model.layers.1.mlp.up_proj.weight"
    tensors = load_file(stablelm[1] / "model.safetensors")
    if damage == "missing":
        del tensors[name]
    elif damage == "unexpected":
        name = "model.layers.1.mlp.sideways.weight"
        tensors[name] = torch.zeros(3, 3)
    else:
        tensors[name] = torch.zeros(7, 48)
    for file in stablelm[1].iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    save_file(tensors, tmp_path / "model.safetensors", {"format": "pt"})
    with pytest.raises(WeightLoadError) as refused:
        engine(tmp_path)
    assert name in str(refused.value)


def test_a_checkpoint_without_the_base_prefix_is_read(tmp_path):
    """As GPT-2's own: wte.weight, not transformer.wte.weight, and masks nobody needs."""
    model = zoo.make("gpt2")
    directory = zoo.save(model, tmp_path)
    tensors = load_file(directory / "model.safetensors")
    short = {name.removeprefix("transformer."): tensor for name, tensor in tensors.items()}
    short["h.0.attn.bias"] = torch.ones(1, 1, 8, 8, dtype=torch.bool)
    save_file(short, directory / "model.safetensors", {"format": "pt"})
    engine(directory).close()


def test_small_tensors_keep_the_precision_of_the_file(stablelm):
    checkpoint = open_checkpoint(stablelm[1])
    family = TransformersFamily(
        {**checkpoint.tensors, "big": replace(_any(checkpoint.tensors), shape=(4096, 2048))}
    )
    spec = family.spec(checkpoint.config, "bfloat16", "x")
    dtypes = {one.name: one.dtype for one in family.weights(spec).parameters}
    assert dtypes["model.norm.weight"] == "float32"
    assert dtypes["big"] == "bfloat16"


def _any(tensors):
    return next(iter(tensors.values()))
