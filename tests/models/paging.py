"""A model on a small paged memory, without scheduler or loader."""

from __future__ import annotations

import torch

from rtp_core.api import ParallelContext, PlanRow
from rtp_core.execution.torch_attention import TorchAttention
from rtp_core.models.llama import LlamaFamily
from rtp_kernels.registry import resolver

BLOCK = 4


class Planes:
    """Just enough of KVMemory for attention."""

    def __init__(self, spec, num_blocks):
        plane = spec.kv_groups[0].planes[0]
        shape = (spec.num_layers, plane.num_heads, num_blocks * BLOCK, plane.head_dim)
        self.keys = torch.zeros(shape, dtype=getattr(torch, spec.dtype))
        self.values = torch.zeros_like(self.keys)

    def planes(self, layer):
        return self.keys[layer], self.values[layer]


class Harness:
    """Runs token runs of named sequences; blocks are chosen by the test."""

    def __init__(self, hf_model, dtype="float32", num_blocks=64):
        config = hf_model.config.to_dict()
        family = LlamaFamily()
        self.spec = family.spec(config, dtype, "test")
        state = hf_model.state_dict()
        parameters = {}
        for parameter in family.weights(self.spec).parameters:
            parameters[parameter.name] = torch.empty(
                parameter.shape, dtype=getattr(torch, parameter.dtype)
            )
        for rule in family.weights(self.spec).rules:
            rows = slice(rule.row_offset, rule.row_offset + rule.num_rows)
            parameters[rule.destination][rows] = state[rule.source]
        self.parameters = parameters
        self.memory = Planes(self.spec, num_blocks)
        self.model = family.build(self.spec, parameters, ParallelContext(), resolver("cpu", dtype))
        self.attention = TorchAttention("cpu").bind(self.spec, self.memory, BLOCK)

    def run(self, *rows):
        """rows of (token_ids, start, blocks[, tree_parents, num_drafts]) -> logits [tokens, V]."""
        plan_rows = [
            PlanRow(
                str(number),
                row[0],
                row[1],
                row[4] if len(row) > 4 else 0,
                True,
                (row[2],),
                tree_parents=row[3] if len(row) > 3 else None,
            )
            for number, row in enumerate(rows)
        ]
        ids = torch.tensor([token for row in rows for token in row[0]])
        with torch.inference_mode():
            plan = self.attention.plan(plan_rows)
            hidden = self.model.forward(ids, self.attention, plan).hidden
            return self.model.logits(hidden)
