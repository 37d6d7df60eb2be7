"""Moving blocks and joining attention, in Triton's interpreter, against the definitions."""

from __future__ import annotations

import importlib

import pytest
import torch
from ahead_of_time import Case, compile_all
from hypothesis import given, settings
from hypothesis import strategies as st

from rtp_kernels.block_copy.triton import independent
from rtp_kernels.registry import resolve

BLOCK = 8
NAMES = ("block_copy", "block_gather", "block_scatter", "merge_attention")
REFERENCE = {name: resolve(name, "any", "bfloat16") for name in NAMES}
FORMS = {name: importlib.import_module(f"rtp_kernels.{name}.triton") for name in NAMES}
TRITON = {name: module.bind("float16") for name, module in FORMS.items()}


@pytest.mark.parametrize("name", NAMES)
def test_half_precision_on_a_gpu_takes_the_triton_form(name):
    assert resolve(name, "cuda", "bfloat16") is FORMS[name].bind("bfloat16")
    assert resolve(name, "cuda", "float32") is REFERENCE[name]


def plane_of(layers=2, heads=3, blocks=6, dim=20, dtype=torch.bfloat16):
    """With a gap between heads."""
    generator = torch.Generator().manual_seed(0)
    shape = (layers, heads, blocks * BLOCK + 5, dim)
    return torch.randn(*shape, generator=generator).to(dtype)[:, :, : blocks * BLOCK]


def views(plane):
    return [plane, plane[1], plane[1, 2]]


@settings(max_examples=10, deadline=None, derandomize=True)
@given(st.lists(st.tuples(st.integers(0, 5), st.integers(0, 5)), max_size=6))
def test_copies_are_as_if_in_order(pairs):
    plane = plane_of()
    wanted = plane.clone()
    REFERENCE["block_copy"](wanted, pairs, BLOCK)
    TRITON["block_copy"](plane, pairs, BLOCK)
    assert torch.equal(plane, wanted)


def test_pairs_that_do_not_meet_are_one_launch():
    assert list(independent([(0, 1), (0, 2), (3, 4)])) == [[(0, 1), (0, 2), (3, 4)]]
    assert list(independent([(0, 1), (1, 2)])) == [[(0, 1)], [(1, 2)]]
    assert list(independent([(0, 1), (2, 0)])) == [[(0, 1)], [(2, 0)]]
    assert list(independent([(0, 1), (2, 1)])) == [[(0, 1)], [(2, 1)]]
    assert list(independent([])) == []


def test_pairs_may_be_a_tensor():
    plane = plane_of()
    wanted = plane.clone()
    REFERENCE["block_copy"](wanted, [(0, 5), (1, 4)], BLOCK)
    TRITON["block_copy"](plane, torch.tensor([[0, 5], [1, 4]], dtype=torch.int32), BLOCK)
    assert torch.equal(plane, wanted)


@pytest.mark.parametrize("number", [0, 1, 2])
@pytest.mark.parametrize("ids", [[4, 0, 3], [2], []])
def test_gather_and_scatter(number, ids):
    plane = views(plane_of())[number]
    wanted = REFERENCE["block_gather"](plane, ids, BLOCK)
    assert wanted.shape == (len(ids), *plane.shape[:-2], BLOCK, plane.shape[-1])
    staged = torch.full_like(wanted, torch.nan)
    assert TRITON["block_gather"](plane, torch.tensor(ids).int(), BLOCK, staged) is staged
    assert torch.equal(staged, wanted)
    assert torch.equal(TRITON["block_gather"](plane, ids, BLOCK), wanted)
    targets = [5 - block for block in ids]
    one, two = plane.clone(), plane.clone()
    REFERENCE["block_scatter"](staged, one, targets, BLOCK)
    TRITON["block_scatter"](staged, two, targets, BLOCK)
    assert torch.equal(one, two)
    for n, target in enumerate(targets):
        assert torch.equal(one[..., target * BLOCK : (target + 1) * BLOCK, :], staged[n])
    untouched = [block for block in range(6) if block not in targets]
    for block in untouched:
        at = slice(block * BLOCK, (block + 1) * BLOCK)
        assert torch.equal(one[..., at, :], plane[..., at, :])


def test_a_plane_with_spread_dimensions_is_refused():
    with pytest.raises(ValueError, match="the last dimension adjacent"):
        TRITON["block_gather"](plane_of().transpose(-1, -2), [0], BLOCK)


@settings(max_examples=15, deadline=None, derandomize=True)
@given(st.integers(0, 3), st.integers(1, 5), st.integers(1, 3), st.sampled_from([8, 20]), st.data())
def test_merge_is_the_definition(count, tokens, heads, dim, data):
    generator = torch.Generator().manual_seed(data.draw(st.integers(0, 99)))
    parts = torch.randn(count, tokens, heads, dim, generator=generator)
    lse = torch.randn(count, tokens, heads, generator=generator) * 40
    empty = torch.rand(lse.shape, generator=generator) < 0.4
    parts[empty], lse[empty] = torch.nan, -torch.inf
    wanted, total = REFERENCE["merge_attention"](parts, lse)
    got, logs = TRITON["merge_attention"](parts, lse)
    torch.testing.assert_close(got, wanted, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(logs, total, atol=1e-5, rtol=1e-5)


def test_they_compile_to_wide_loads():
    ids = {"from_ids": "*i32", "to_ids": "*i32", "heads": "i32"}
    far = dict.fromkeys(("from_layer", "to_layer"), "i64:16")
    near = {f"{end}_{of}": "i32:16" for end in ("from", "to") for of in ("block", "head", "token")}
    move, merge = compile_all(
        [
            Case(
                "rtp_kernels.gpu.blocks", "move_blocks",
                {"source": "*bf16", "target": "*bf16", **ids, **far, **near},
                {"TOKENS": 16, "DIM": 128, "WIDE": 128, "FROM": True, "TO": True},
            ),
            Case(
                "rtp_kernels.merge_attention.triton", "merge_rows",
                {"parts": "*bf16", "lse": "*fp32", "out": "*bf16", "total": "*fp32",
                 "rows": "i32", "count": "i32"},
                {"DIM": 128, "WIDE": 128, "ROWS": 16, "PDL": True},
            ),
        ]
    )  # fmt: skip
    assert (move.stack, merge.stack) == (0, 0)
    assert move.vector_loads > 0
    assert move.scalar_loads <= 2  # the two ids
    assert merge.vector_loads > 0
