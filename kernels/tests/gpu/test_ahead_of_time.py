"""The compilation that other tests rest on: it counts right and fails loudly."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
import triton
from ahead_of_time import Case, compile_all
from doubling import double

POINTERS = {"x": "*bf16", "out": "*bf16"}
CASE = Case(
    "doubling", "double", {**POINTERS, "elements": "i32:16"}, {"BLOCK": 1024, "PDL": True}
)  # fmt: skip


def test_counts_follow_the_kernel():
    known, plain = compile_all(
        [
            CASE,
            replace(
                CASE,
                types={**POINTERS, "elements": "i32"},
                constants={"BLOCK": 1024, "PDL": False},
            ),
        ]
    )
    assert (known.stack, known.dependency_waits, plain.dependency_waits) == (0, 1, 0)
    assert (known.vector_loads > 0, known.scalar_loads) == (True, 0)
    assert plain.scalar_loads > 0  # a length of any size forbids loads of 16 bytes
    assert known.hopper_products == known.older_products == known.tile_loads == 0


@pytest.mark.parametrize(
    ("case", "words"),
    [
        (replace(CASE, types={"x": "*bf16", "elements": "i32"}), "no value for {'out'}"),
        (replace(CASE, constants={**CASE.constants, "SIZE": 1}), "no parameter {'SIZE'}"),
        (replace(CASE, constants={**CASE.constants, "BLOCK": 1000}), "power of 2"),
    ],
)
def test_what_does_not_compile_is_named(case, words):
    with pytest.raises(RuntimeError, match="double") as raised:
        compile_all([case])
    assert words in str(raised.value)


def test_this_process_interprets():
    x, out = torch.arange(10.0), torch.full((10,), torch.nan)
    double[(triton.cdiv(10, 8),)](x, out, 10, BLOCK=8, PDL=False)
    assert torch.equal(out, 2 * x)
