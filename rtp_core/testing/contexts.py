"""What factories are given in tests: a small model on the CPU and time that stands still."""

from __future__ import annotations

import dataclasses
from typing import Any

from rtp_core.api import BuildContext, EngineLimits, KVGroup, KVPlane, ModelSpec, RopeSpec
from rtp_core.testing.fakes.services import FlatCosts, ManualClock


def build_context(**changes: Any) -> BuildContext:
    """float32 on the CPU, blocks of 16 tokens, 4 drafts, `small_spec`; fields by keyword."""
    context = BuildContext(
        device="cpu",
        dtype="float32",
        limits=EngineLimits(
            max_model_len=128,
            max_num_seqs=8,
            max_num_batched_tokens=64,
            block_size=16,
            max_draft_tokens=4,
        ),
        clock=ManualClock(),
        costs=FlatCosts(),
        model=small_spec(),
    )
    return dataclasses.replace(context, **changes)


def small_spec(**changes: Any) -> ModelSpec:
    """Two layers, 4 query heads on 2 KV heads of 8, 64 tokens in the vocabulary."""
    plane = KVPlane(2, 8, changes.get("dtype", "float32"))
    spec = ModelSpec(
        architecture="SmallForCausalLM",
        num_layers=2,
        hidden_size=32,
        num_heads=4,
        num_kv_heads=2,
        head_dim=8,
        intermediate_size=48,
        vocab_size=64,
        max_model_len=128,
        norm_eps=1e-6,
        rope=RopeSpec(theta=10000.0, rotary_dim=8),
        tied_head=True,
        dtype="float32",
        fingerprint="small",
        kv_groups=(KVGroup("main", (0, 1), (plane, plane)),),
    )
    return dataclasses.replace(spec, **changes)
