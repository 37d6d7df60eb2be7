"""Which form is chosen, and what the compiler makes of each."""

from __future__ import annotations

import json
from importlib.resources import files

import pytest
import torch
from ahead_of_time import Case, compile_all
from linear_cases import QWEN3_8B, SMOLLM2_135M, case_of

from rtp_kernels.gpu import forms
from rtp_kernels.gpu.forms import Gemv, Library, Swapped, by_rule, choice
from rtp_kernels.gpu.products import form_for

ROWS = (1, 2, 3, 5, 8, 16, 17, 32, 64, 100, 128, 160, 256, 1024)
SHAPES = sorted(QWEN3_8B | SMOLLM2_135M | {("linear_residual", 2560, 9728), ("head", 32003, 2048)})
SHIPPED = files("rtp_kernels.gpu") / "configurations" / "sm_90.json"
HOPPER_SHARED = 227 * 1024
REGISTERS = 64 * 1024


def check_compiled(form, compiled, case):
    assert compiled.stack == 0, "registers spill"
    assert compiled.shared <= HOPPER_SHARED
    assert compiled.registers * 32 * case.warps <= REGISTERS
    assert compiled.dependency_waits == 1
    before, _ = compiled.ptx.split("griddepcontrol.wait")
    if isinstance(form, Gemv):
        rows = 2 if case.constants["ACTIVATION"] != "none" else 1
        elements = rows * form.unroll * form.block_n * form.block_k
        loads = elements // (8 * 32 * case.warps)  # of 8 elements by each thread
        assert before.count("evict_first") >= loads, "weights are loaded before the wait"
        assert compiled.scalar_loads <= 8  # a residual, a few rows of it
        return
    assert compiled.hopper_products > 0
    assert compiled.older_products == 0
    assert (compiled.tile_loads > 0) == form.tiles
    assert (compiled.asynchronous_copies > 0) != form.tiles
    assert before.count("prefetch.global.L2") > 0 or not form.prefetch


def compile_and_check(shapes, rows):
    choose, wanted = forms.default(), {}
    for operation, outputs, inputs in shapes:
        for count in rows:
            form = choose(operation, count, outputs, inputs)
            case = case_of(operation, outputs, inputs, count, form)
            if case is not None:
                wanted[str(case)] = form, case
    compiled = compile_all([case for _, case in wanted.values()])
    assert len(compiled) >= len(shapes)
    for (form, case), one in zip(wanted.values(), compiled, strict=True):
        check_compiled(form, one, case)


def test_one_of_each_kind_compiles_for_hopper():
    compile_and_check([("linear_residual", 4096, 4096)], (1, 8, 32))


@pytest.mark.long
@pytest.mark.parametrize("shapes", [QWEN3_8B, SMOLLM2_135M], ids=["qwen3-8b", "smollm2-135m"])
def test_every_shipped_form_compiles_for_hopper(shapes):
    compile_and_check(sorted(shapes), ROWS)


@pytest.mark.long
def test_kernels_around_the_products_compile_for_hopper():
    rows = {"residual": "*bf16", "out": "*bf16", "new_residual": "*bf16", "norm": "*bf16"}
    floats = {"post_eps": "fp32", "eps": "fp32", "rows": "i32"}
    constants = {"COLUMNS": 4096, "BLOCK": 4096, "PDL": True, "post_norm": None}
    cases = [
        Case(
            "rtp_kernels.gpu.residual_norm",
            "residual_norm_kernel",
            {**rows, **floats, "partials": "*fp32"},
            {**constants, "SPLITS": splits},
            warps=warps,
        )
        for splits in (1, 2, 4)
        for warps in (8, 16)
    ]
    gated = {"WIDTH": 12288, "BLOCK": 2048, "ACTIVATION": "gelu_tanh", "PDL": True}
    pointers = {"both": "*bf16", "out": "*bf16"}
    cases.append(Case("rtp_kernels.gpu.gated", "gated_product_kernel", pointers, gated))
    logits = {"x": "*fp32", "out": "*fp32", "cap": "fp32", "elements": "i32:16"}
    blocks = {"BLOCK": 4096, "PDL": True}
    cases.append(Case("rtp_kernels.soft_cap.triton", "soft_cap_kernel", logits, blocks))
    for compiled in compile_all(cases):
        assert (compiled.stack, compiled.scalar_loads, compiled.dependency_waits) == (0, 0, 1)
        assert compiled.vector_loads > 0


def test_the_shipped_table_is_read_and_written_alike():
    document = json.loads(SHIPPED.read_text())
    table = forms.read(document)
    assert forms.read(forms.written(table)) == table
    choose = choice(table, 90)
    for operation, shapes in table.items():
        for shape, by_rows in shapes.items():
            outputs, inputs = map(int, shape.split("x"))
            assert list(by_rows) == sorted(by_rows)
            for limit, form in by_rows.items():
                assert choose(operation, limit, outputs, inputs) == form


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("arch", [80, 90, 100])
def test_every_rule_gives_a_form_that_can_be(shape, arch):
    operation, outputs, inputs = shape
    for rows in (0, *ROWS):
        form = by_rule(operation, rows, outputs, inputs, arch)
        if isinstance(form, Gemv):
            assert rows == 1
            assert form.unroll in (1, 2, 4)
            assert (form.unroll - 1) * form.block_k < inputs
        if isinstance(form, Swapped):
            assert arch == 90
            assert 2 <= rows <= 128
            assert form.splits == 1 or operation == "linear_residual"
            tokens, gates = (
                max(16, forms.power_of_2(rows)),
                2 if "gate" in operation else 1,
            )
            block = 2 * form.block_k * (gates * form.block_n + tokens)
            assert form.stages * block <= HOPPER_SHARED
            assert form.splits * form.block_k <= inputs
        if rows in (0, 256, 1024):
            assert form == Library()


def test_operations_of_a_kind_share_forms():
    choose = choice({}, 90)
    for name, other in forms.SHARED.items():
        for rows in ROWS:
            assert choose(name, rows, 8192, 2048) == choose(other, rows, 8192, 2048)


def test_rules_follow_the_winners():
    """Shapes that were measured get what won, or nearly, without their table."""
    assert by_rule("norm_linear", 1, 6144, 4096, 90) == Gemv(8, 1024, 1)
    assert by_rule("norm_gate_up", 1, 24576, 4096, 90) == Gemv(2, 2048, 2)
    assert by_rule("head", 1, 151936, 4096, 90) == Gemv(4, 1024, 4)
    assert by_rule("linear_residual", 8, 4096, 4096, 90) == Swapped(64, 128, 6, 2)
    assert by_rule("norm_gate_up", 8, 24576, 4096, 90) == Swapped(64, 128, 4)
    assert by_rule("linear_residual", 128, 4096, 4096, 90) == Swapped(64, 64, 6, 2)


def test_the_nearest_limit_above_is_taken():
    few, many = Swapped(64, 128, 4), Swapped(64, 64, 6)
    choose = choice({"head": {"64x32": {8: few, 32: many}}}, 90)
    assert [choose("head", rows, 64, 32) for rows in (2, 8, 9, 32)] == [few, few, many, many]
    assert choose("head", 500, 64, 32) == Library()


@pytest.mark.parametrize(
    ("entry", "words"),
    [
        ({"form": "magic"}, "magic"),
        ({"form": "gemv", "block_n": 8}, "block_k"),
        ({"form": "library", "speed": 9}, "speed"),
        ({"form": "gemv", "block_n": 8, "block_k": 64}, "gemv takes 1 row"),
        ({"form": "swapped", "block_n": 64, "block_k": 64, "stages": 3, "splits": 2}, "splits"),
    ],
)
def test_a_bad_entry_is_named(entry, words):
    with pytest.raises(ValueError, match="head, up to 8 rows") as raised:
        forms.read({"head": {"64x32": {"8": entry}}})
    assert words in str(raised.value)


def test_weights_that_kernels_cannot_read_go_to_the_library():
    def always(*_):
        return Swapped(16, 32, 2)

    whole = torch.zeros(64, 33, dtype=torch.float16)
    assert form_for(always, "head", 4, whole) == Library()  # rows of 66 bytes
    assert form_for(always, "head", 4, whole[:, :32]) == Library()  # not contiguous
    odd = torch.zeros(64 * 32 + 1, dtype=torch.float16)[1:].view(64, 32)
    assert form_for(always, "head", 4, odd) == Library()  # starts between multiples of 16 bytes
    assert form_for(always, "head", 4, whole[:, :32].contiguous()) == always()
