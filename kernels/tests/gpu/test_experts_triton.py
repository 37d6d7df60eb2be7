"""The Triton form of the experts against the definition, in the interpreter.

A choice between experts that are almost equal may fall either way, so the definition is given
the rows as the kernels have them: normed, and rounded. What is allocated is full of NaN.
"""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional

from rtp_kernels.gpu.residual import ResidualStream, normed, settled
from rtp_kernels.moe_gate_up_down import triton as form
from rtp_kernels.moe_gate_up_down.forms import ExpertForm, Tile
from rtp_kernels.moe_gate_up_down.reference import choose_experts
from rtp_kernels.moe_gate_up_down.routing import choose, route

EPS = 1e-6
FEW = ExpertForm(16, Tile(16, 16, 2), Tile(32, 16, 2))
SOME = ExpertForm(64, Tile(16, 32, 2), Tile(32, 16, 2))
TILES = ExpertForm(16, Tile(16, 16, 2, tiles=True), Tile(16, 32, 2, tiles=True))
WHOLE = {"float32": 2e-6, "float16": 3e-3}


@pytest.fixture(autouse=True)
def poisoned(monkeypatch):
    """Every new tensor is full of NaN, or of indices far out of range."""

    def poison(make):
        def made(*args, **kwargs):
            out = make(*args, **kwargs)
            return out.fill_(torch.nan if out.is_floating_point() else 2**30)

        return made

    for name in ("empty", "empty_like"):
        monkeypatch.setattr(torch, name, poison(getattr(torch, name)))


def random(*shape, dtype, seed=0, scale=1.0):
    generator = torch.Generator().manual_seed(seed + sum(shape))
    return (torch.randn(*shape, generator=generator) * scale).to(getattr(torch, dtype))


def arguments(tokens, experts=8, hidden=48, width=40, dtype="float32", seed=0):
    weights = (
        random(experts, hidden, dtype=dtype, seed=seed + 2, scale=4 * hidden**-0.5),
        random(experts, 2 * width, hidden, dtype=dtype, seed=seed + 3, scale=hidden**-0.5),
        random(experts, hidden, width, dtype=dtype, seed=seed + 4, scale=width**-0.5),
    )
    norm = 1 + random(hidden, dtype=dtype, seed=seed + 1) / 4
    return random(tokens, hidden, dtype=dtype, seed=seed), norm, EPS, weights


def expected(x, norm, eps, weights, top_k, normalize):
    """float32 [tokens, hidden]."""
    router, gate_up, down = (one.float() for one in weights)
    x = settled(x)
    rows = functional.rms_norm(x.float(), norm.shape, norm.float(), eps)
    if x.shape[0] > 1:
        rows = normed(x, norm, eps).float()
    shares, experts = choose_experts(rows @ router.T, top_k, normalize)
    out = x.float()
    for choice in range(top_k):
        at = experts[:, choice]
        gate, up = torch.einsum("nrh,nh->nr", gate_up[at], rows).chunk(2, dim=-1)
        done = torch.einsum("nhw,nw->nh", down[at], functional.silu(gate) * up)
        out = out + shares[:, choice, None] * done
    return out


def run(given, top_k, normalize, chosen=None):
    bound = form.bind("float16", None if chosen is None else lambda *_: chosen)
    return bound(*given, top_k, normalize)


def check(given, top_k, normalize, chosen=None):
    x, norm, _, weights = given
    kept = [one.clone() for one in (x, norm, *weights)]
    wanted = expected(*given, top_k, normalize)
    got = settled(run(given, top_k, normalize, chosen))
    assert got.shape == x.shape
    assert got.dtype == x.dtype
    error = (got.float() - wanted).norm() / wanted.norm()
    assert error <= WHOLE[str(x.dtype).removeprefix("torch.")]
    assert all(torch.equal(*pair) for pair in zip(kept, (x, norm, *weights), strict=True))


@pytest.mark.parametrize("dtype", ["float32", "float16"])
@pytest.mark.parametrize("normalize", [True, False])
@pytest.mark.parametrize("top_k", [1, 8])
@pytest.mark.parametrize("chosen", [None, FEW, SOME, TILES])
def test_any_form_gives_what_the_definition_gives(chosen, top_k, normalize, dtype):
    for tokens in (1, 5, 18) if dtype == "float16" else (3,):
        if chosen is None or tokens > 1:
            check(arguments(tokens, 9, dtype=dtype), top_k, normalize, chosen)


@pytest.mark.parametrize("chosen", [FEW, SOME])
def test_sizes_that_fill_no_block(chosen):
    check(arguments(7, 5, 56, 24, dtype="float16"), 3, True, chosen)
    check(arguments(1, 5, 56, 24, dtype="float16"), 3, True)
    check(arguments(1, 300, 20, 9, dtype="float16"), 5, False)


@pytest.mark.parametrize("chosen", [FEW, SOME])
@pytest.mark.parametrize("tokens", [1, 40])
def test_one_expert_gets_every_token_and_another_none(chosen, tokens):
    x, norm, eps, (router, gate_up, down) = arguments(tokens, 6, dtype="float16")
    x, router = x.abs(), router / 4
    router[3], router[1] = 1.0, -1.0
    given = x, norm, eps, (router, gate_up, down)
    check(given, 1, True, chosen)
    check(given, 3, True, chosen)
    _, experts = choose_experts(normed(x, norm, eps).float() @ router.float().T, 3, True)
    assert (experts == 3).any(1).all()
    assert not (experts == 1).any()


def test_many_tokens_are_sorted_by_several_blocks():
    check(arguments(150, 128, 32, 16), 8, True)


def test_rows_are_the_same_in_any_company():
    x, *rest = arguments(33, 8, dtype="float16")
    whole = settled(run((x, *rest), 3, True, FEW))
    for tokens in (2, 17):
        for at in (0, 11, 33 - tokens):
            got = settled(run((x[at : at + tokens], *rest), 3, True, FEW))
            assert torch.equal(got, whole[at : at + tokens])


@pytest.mark.parametrize("content", [float("nan"), float("inf"), 0.0])
def test_a_row_of_anything_leaves_the_others_alone(content):
    x, *rest = arguments(20, 8, dtype="float16")
    whole = settled(run((x, *rest), 3, True, FEW))
    padded = x.clone()
    padded[4::5] = content
    got = settled(run((padded, *rest), 3, True, FEW))
    others = torch.arange(20) % 5 != 4
    assert torch.equal(got[others], whole[others])


def test_what_is_pending_is_added_first():
    x, *rest = arguments(4, 8, dtype="float16")
    for tokens in (1, 4):
        update = random(2, tokens, 48, dtype="float32", seed=9)
        plain = x[:tokens]
        summed = (plain.float() + update.sum(0)).half()
        got = run((ResidualStream(plain, update), *rest), 2, True, None)
        wanted = expected(summed, *rest, 2, True)
        assert (settled(got).float() - wanted).norm() <= 3e-3 * wanted.norm()


def test_no_tokens():
    assert settled(run(arguments(0, dtype="float16"), 2, True)).shape == (0, 48)


def routed(logits, top_k, block_m):
    """Pairs of each expert, by the table."""
    routing = route(logits[None], top_k, True, block_m)
    entries = routing.table[1 : 1 + int(routing.table[0, 0])]
    assert len(entries) <= routing.tiles
    taken: dict[int, list[int]] = {}
    places = []
    for expert, first, count, _ in entries.tolist():
        assert 1 <= count <= block_m
        taken.setdefault(expert, []).extend(routing.order[first : first + count].tolist())
        places.extend(range(first, first + count))
    assert sorted(places) == list(range(logits.shape[0] * top_k))
    return taken, routing


@settings(max_examples=25, deadline=None)
@given(
    tokens=st.integers(1, 90),
    experts=st.sampled_from([1, 5, 8, 128, 200]),
    top_k=st.integers(1, 8),
    block_m=st.sampled_from([16, 64]),
    levels=st.sampled_from([1, 3, 1000]),
    seed=st.integers(0, 9),
)
def test_every_pair_is_in_one_tile_of_its_expert(tokens, experts, top_k, block_m, levels, seed):
    top_k = min(top_k, experts)
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randint(0, levels, (tokens, experts), generator=generator).float() / 100
    taken, routing = routed(logits, top_k, block_m)
    choices = choose(logits[None], top_k, True)
    assert torch.equal(routing.shares.view(tokens, top_k), choices.shares)
    for token, chosen in enumerate(choices.experts.tolist()):
        assert len(set(chosen)) == top_k
        for choice, expert in enumerate(chosen):
            assert token * top_k + choice in taken[expert]
    for pairs in taken.values():
        assert pairs == sorted(pairs)
    shares, _ = choose_experts(logits, top_k, True)
    torch.testing.assert_close(choices.shares, shares)


@settings(max_examples=12, deadline=None)
@given(
    tokens=st.integers(1, 40),
    experts=st.integers(1, 12),
    top_k=st.integers(1, 8),
    hidden=st.integers(1, 8).map(lambda n: 8 * n),
    width=st.integers(1, 6).map(lambda n: 8 * n),
    normalize=st.booleans(),
    chosen=st.sampled_from([FEW, SOME, TILES]),
)
def test_any_shape(tokens, experts, top_k, hidden, width, normalize, chosen):
    given = arguments(tokens, experts, hidden, width, dtype="float16")
    check(given, min(top_k, experts), normalize, chosen)
