"""A whole decoder on the Triton forms: the stream passes its layers without being looked at."""

from __future__ import annotations

from importlib import import_module

import pytest
import torch

from rtp_core.api import ParallelContext, PlanRow
from rtp_core.execution.torch_attention import TorchAttention
from rtp_core.models.plugin import rtp_models
from rtp_core.testing.checkpoints import LLAMA_CONFIG
from rtp_core.testing.fakes.kv import PlaneStore
from rtp_kernels.gpu.forms import Gemv, Swapped
from rtp_kernels.registry import _TRITON, resolve

LINEAR = {"norm_linear", "linear_residual", "norm_gate_up", "norm_gate_up_gelu",
          "linear_norm_residual", "head"}  # fmt: skip
GEMMA_CONFIG = {
    **LLAMA_CONFIG,
    "hidden_act": None,
    "hidden_activation": "gelu_pytorch_tanh",
    "query_pre_attn_scalar": 8,
    "sliding_window": 4,
}
EXPERTS_CONFIG = {
    **LLAMA_CONFIG,
    "head_dim": 16,
    "num_experts": 6,
    "num_experts_per_tok": 2,
    "moe_intermediate_size": 24,
    "norm_topk_prob": True,
    "mlp_only_layers": [],
}
BLOCK, BLOCKS = 8, 4
OTHERS = {"embed", "settle", "soft_cap", "moe_gate_up_down"}


def form_of(operation, rows, outputs, inputs):
    splits = 2 if operation in ("linear_residual", "linear_norm_residual") else 1
    return Gemv(8, 32) if rows == 1 else Swapped(16, 16, 2, splits)


def on_triton(operation):
    """float32, so that the interpreter multiplies exactly."""
    if operation not in _TRITON or operation not in LINEAR | OTHERS:
        return resolve(operation, "anything", "float32")
    module = import_module(f"rtp_kernels.{operation}.triton")
    return module.bind("float32", form_of) if operation in LINEAR else module.bind("float32")


def on_torch(operation):
    return resolve(operation, "anything", "float32")


class Small:
    """A family's model with random weights and one sequence's memory."""

    def __init__(self, architecture, config, kernels, dtype="float32"):
        (offer,) = (one for one in rtp_models() if one.name == architecture)
        family = offer.build(None, None)
        self.spec = family.spec(config, dtype, "test")
        generator = torch.Generator().manual_seed(1)
        parameters = {
            one.name: torch.randn(one.shape, generator=generator) * 0.2
            for one in family.weights(self.spec).parameters
        }
        self.model = family.build(self.spec, parameters, ParallelContext(), kernels)
        groups = self.spec.kv_groups
        memory = PlaneStore().open(groups, [BLOCKS] * len(groups), BLOCK, "cpu")
        self.attention = TorchAttention("cpu").bind(self.spec, memory, BLOCK)

    def run(self, ids, start, capture=()):
        blocks = tuple(list(range(BLOCKS)) for _ in self.spec.kv_groups)
        plan = self.attention.plan([PlanRow("a", ids, start, 0, True, blocks)])
        with torch.inference_mode():
            done = self.model.forward(torch.tensor(ids), self.attention, plan, capture)
            return done, self.model.logits(done.hidden)


@pytest.mark.parametrize(
    ("architecture", "config"),
    [
        ("LlamaForCausalLM", LLAMA_CONFIG),
        ("Gemma2ForCausalLM", GEMMA_CONFIG),
        ("Qwen3MoeForCausalLM", EXPERTS_CONFIG),
    ],
)
def test_a_decoder_on_triton_forms_gives_the_same_states_and_logits(architecture, config):
    fast, exact = (Small(architecture, config, kernels) for kernels in (on_triton, on_torch))
    for ids, start in (([3, 7, 5, 11, 2], 0), ([9], 5), ([4, 8], 6)):
        (got, logits), (expected, expected_logits) = (
            one.run(ids, start, capture=(0, 1)) for one in (fast, exact)
        )
        torch.testing.assert_close(logits, expected_logits, atol=1e-4, rtol=1e-4)
        torch.testing.assert_close(got.hidden, expected.hidden, atol=1e-4, rtol=1e-4)
        assert got.captured.keys() == {0, 1}
        for layer, states in got.captured.items():
            torch.testing.assert_close(states, expected.captured[layer], atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize(
    ("architecture", "config", "dtype", "queues"),
    [
        ("LlamaForCausalLM", LLAMA_CONFIG, "float32", True),
        ("Qwen3MoeForCausalLM", EXPERTS_CONFIG, "float32", False),
        ("Qwen3MoeForCausalLM", EXPERTS_CONFIG, "bfloat16", True),
    ],
)
def test_only_float32_experts_wait_for_the_device(architecture, config, dtype, queues):
    assert Small(architecture, config, on_torch, dtype).model.queues is queues
