"""GPU form: experts are chosen, and their tokens sorted, on the device.

Nothing is read back: the launches depend on the number of tokens alone, so a step can be
recorded. A row that pads a recorded step is routed like any other and changes no other row.
"""

from __future__ import annotations

from collections.abc import Callable

import torch

from rtp_kernels.gpu.forms import Form, Gemv, Library, Swapped, by_rule, power_of_2
from rtp_kernels.gpu.gemv import gemv
from rtp_kernels.gpu.products import wide_product
from rtp_kernels.gpu.residual import ResidualStream, Stream, normed, settled
from rtp_kernels.gpu.swapped_gemm import swapped_gemm
from rtp_kernels.moe_gate_up_down import one_token, tiles
from rtp_kernels.moe_gate_up_down.forms import Choose, Shape, default
from rtp_kernels.moe_gate_up_down.reference import ExpertWeights
from rtp_kernels.moe_gate_up_down.routing import choose, route, rows_of_choice

EXACT_ROWS = 1024
"""Up to so many tokens, experts' outputs are kept in float32 until they are added."""
_SWAPPED_ROWS = 64
_ROUTER_OUTPUTS, _ROUTER_PARTS = 16, 16
_SUMMED = 16384
"""Scores that one program adds up before it chooses; more keep the others waiting."""


def bind(dtype: str, choose_form: Choose | None = None) -> Callable[..., Stream]:
    """Same for every dtype. `choose_form` replaces the shipped configurations."""
    del dtype
    form_of = choose_form or default()

    def moe_gate_up_down(
        x: Stream,
        norm: torch.Tensor,
        eps: float,
        weights: ExpertWeights,
        top_k: int,
        normalize: bool,
    ) -> Stream:
        router, gate_up, down = (one.contiguous() for one in weights)
        if x.shape[0] == 1:
            row = settled(x).contiguous()
            choices = choose(router_scores(row, router, norm, eps), top_k, normalize)
            hidden = one_token.gate_up(row, norm, eps, gate_up, choices)
            return one_token.down(hidden, down, choices, row)
        stream = x if isinstance(x, ResidualStream) else ResidualStream(x.contiguous(), None)
        if not x.shape[0]:
            return stream
        shape = Shape(router.shape[0], top_k, router.shape[1], down.shape[2])
        form = form_of(x.shape[0], shape)
        rows = normed(stream, norm, eps)
        routing = route(router_scores(rows, router), top_k, normalize, form.block_m)
        hidden = tiles.gate_up(rows, gate_up, routing, form.gate_up)
        exact = torch.float32 if rows.shape[0] <= EXACT_ROWS else rows.dtype
        partials = torch.empty((top_k, *rows.shape), dtype=exact, device=rows.device)
        tiles.down(hidden, down, routing, form.down, partials)
        return ResidualStream(stream.settle(), partials)

    return moe_gate_up_down


def router_scores(
    x: torch.Tensor, router: torch.Tensor, norm: torch.Tensor | None = None, eps: float = 0.0
) -> torch.Tensor:
    """x [tokens, hidden] -> float32 [parts, tokens, experts], the parts yet to be added.

    One token is normed on the way, more have been.
    """
    experts, hidden = router.shape
    form = router_form(experts, hidden, x.shape[0])
    if isinstance(form, Gemv):
        return gemv(x, router, None, form, norm=norm, eps=eps, out_dtype=torch.float32)[None]
    if isinstance(form, Swapped):
        return swapped_gemm(x, router, None, form, out_dtype=torch.float32)
    return wide_product(x, router, form)[None]


def router_form(experts: int, hidden: int, tokens: int) -> Form:
    """Many programs for a small weight, but no more parts than whoever adds them can load."""
    if tokens == 1:
        return by_rule("head", 1, experts, hidden, 0)
    if tokens > _SWAPPED_ROWS:
        return Library()
    block_k = min(128, max(16, power_of_2(hidden)))
    parts = _SUMMED // (power_of_2(experts) * rows_of_choice(experts, tokens))
    parts = max(1, min(_ROUTER_PARTS, parts, -(-hidden // block_k)))
    return Swapped(_ROUTER_OUTPUTS, block_k, 3, parts, tiles=False)
