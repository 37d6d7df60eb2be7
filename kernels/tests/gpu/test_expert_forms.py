"""In which blocks experts multiply, and what the compiler makes of them."""

from __future__ import annotations

import json
from importlib.resources import files

import pytest
from ahead_of_time import Case, compile_all
from expert_cases import QWEN3_30B_A3B, one_token, products, routing
from linear_cases import case_of

from rtp_kernels.moe_gate_up_down import forms
from rtp_kernels.moe_gate_up_down.forms import WIDE, ExpertForm, Shape, Tile, by_rule, choice
from rtp_kernels.moe_gate_up_down.triton import router_form

HOPPER_SHARED, REGISTERS = 227 * 1024, 64 * 1024
SHIPPED = files("rtp_kernels.gpu") / "configurations" / "experts_sm_90.json"
QWEN3_NEXT = Shape(512, 10, 2048, 512)
TOKENS = (2, 8, 16, 17, 32, 64, 128, 200, 512, 1024, 8192)


def check_products(cases: list[Case]):
    for case, compiled in zip(cases, compile_all(cases), strict=True):
        assert compiled.stack == 0, "registers spill"
        assert compiled.shared <= HOPPER_SHARED
        assert compiled.registers * 32 * case.warps <= REGISTERS
        assert compiled.dependency_waits == 1
        assert compiled.hopper_products > 0
        assert compiled.older_products == 0
        assert compiled.asynchronous_copies > 0
        assert (compiled.tile_loads > 0) == case.constants["TILES"]


def test_a_form_for_few_and_one_for_many_compile_for_hopper():
    few, many = (by_rule(tokens, QWEN3_30B_A3B) for tokens in (8, 8192))
    cases = [products(QWEN3_30B_A3B, few, True)[0], products(QWEN3_30B_A3B, many, False)[1]]
    check_products(cases)


@pytest.mark.long
@pytest.mark.parametrize("shape", [QWEN3_30B_A3B, QWEN3_NEXT], ids=str)
def test_routers_compile_for_hopper(shape):
    sizes = shape.experts, shape.hidden
    made = [case_of("head", *sizes, tokens, router_form(*sizes, tokens)) for tokens in (1, *TOKENS)]
    cases = [case for case in made if case is not None]
    assert len(cases) > 5
    for compiled in compile_all(cases):
        assert (compiled.stack, compiled.dependency_waits) == (0, 1)


@pytest.mark.long
@pytest.mark.parametrize("shape", [QWEN3_30B_A3B, QWEN3_NEXT], ids=str)
def test_every_form_compiles_for_hopper(shape):
    cases = {
        str(case): case
        for tokens in TOKENS
        for case in products(shape, forms.default()(tokens, shape), tokens <= 1024)
    }
    check_products(list(cases.values()))


@pytest.mark.long
def test_weights_by_descriptors_compile_for_hopper():
    few = ExpertForm(16, Tile(64, 128, 3, tiles=True), Tile(64, 128, 5, tiles=True))
    many = ExpertForm(128, Tile(128, 64, 4, 8, tiles=True), Tile(256, 64, 4, 8, tiles=True))
    check_products([case for form in (few, many) for case in products(QWEN3_30B_A3B, form, True)])


def test_kernels_that_sort_and_those_of_one_token_compile_for_hopper():
    cases = [*routing(QWEN3_30B_A3B), *one_token(QWEN3_30B_A3B)]
    done = compile_all(cases)
    for case, compiled in zip(cases, done, strict=True):
        assert (compiled.stack, compiled.dependency_waits) == (0, 1), case
        assert compiled.registers * 32 * case.warps <= REGISTERS
    gated, down = done[-2:]
    before, _ = gated.ptx.split("bar.sync", 1)
    tiles = 2 * 2 * 2048 // (8 * 128)  # loads of 8 elements by each of 128 threads
    assert before.count("evict_first") >= tiles, "weights are all under way before one is used"
    assert down.count("evict_first") >= 8 * 4 * 768 // (8 * 128)


def test_the_shipped_table_gives_its_own_forms():
    table = forms.read(json.loads(SHIPPED.read_text()))
    choose = choice(table)
    for key, by_tokens in table.items():
        shape = Shape(*map(int, key.split("x")))
        assert list(by_tokens) == sorted(by_tokens)
        for limit, form in by_tokens.items():
            assert choose(limit, shape) == choose(limit - 1, shape) == form


def test_a_bad_entry_is_named():
    with pytest.raises(ValueError, match=r"1x1x8x8, up to 4 tokens.*block_m"):
        forms.read({"1x1x8x8": {"4": {"gate_up": {}, "down": {}}}})
    entry = {"block_m": 16, "gate_up": {"speed": 9}, "down": {}}
    with pytest.raises(ValueError, match="speed"):
        forms.read({"1x1x8x8": {"4": entry}})


@pytest.mark.parametrize(
    "shape", [QWEN3_30B_A3B, QWEN3_NEXT, Shape(1, 1, 16, 8), Shape(8, 2, 4096, 14336)], ids=str
)
def test_every_rule_gives_a_form_that_can_be(shape):
    for tokens in (1, *TOKENS):
        form = by_rule(tokens, shape)
        assert form.block_m in (16, 32, 64, 128)
        for tile, outputs in ((form.gate_up, 2), (form.down, 1)):
            rows = form.block_m + outputs * tile.block_n
            assert 2 * tile.stages * tile.block_k * rows <= HOPPER_SHARED
            assert max(form.block_m, tile.block_n) >= WIDE


@pytest.mark.parametrize("shape", [QWEN3_30B_A3B, QWEN3_NEXT], ids=str)
def test_few_tokens_of_an_expert_are_one_tile(shape):
    for tokens in range(2, 33):
        assert forms.default()(tokens, shape).block_m >= tokens
