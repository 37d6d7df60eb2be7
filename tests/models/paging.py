"""A model on a small paged memory, without scheduler or loader."""

from __future__ import annotations

import torch

from rtp_core.api import ParallelContext, PlanRow
from rtp_core.execution.torch_attention import TorchAttention
from rtp_core.loading.plan import spelt_rules
from rtp_core.models.plugin import rtp_models
from rtp_kernels.registry import resolver

BLOCK = 4


def family_of(architecture):
    """The family offered for an architecture."""
    (offer,) = (one for one in rtp_models() if one.name == architecture)
    return offer.build(None, None)


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
        family = family_of(type(hf_model).__name__)
        self.spec = family.spec(hf_model.config.to_dict(), dtype, "test")
        table, state = family.weights(self.spec), hf_model.state_dict()
        parameters = {
            one.name: torch.empty(one.shape, dtype=getattr(torch, one.dtype))
            for one in table.parameters
        }
        for rule in spelt_rules(table, state):
            rows = slice(rule.row_offset, rule.row_offset + rule.num_rows)
            into = parameters[rule.destination][rows]
            into.copy_(state[rule.source].reshape(into.shape))
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
                (row[2],) * len(self.spec.kv_groups),
                tree_parents=row[3] if len(row) > 3 else None,
            )
            for number, row in enumerate(rows)
        ]
        ids = torch.tensor([token for row in rows for token in row[0]])
        with torch.inference_mode():
            plan = self.attention.plan(plan_rows)
            hidden = self.model.forward(ids, self.attention, plan).hidden
            return self.model.logits(hidden)
