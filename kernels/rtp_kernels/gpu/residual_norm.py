"""One row of the residual stream: adds what is pending, and norms the sum.

Partial sums of a split product, or an unsplit one's output, are added here instead of in a
kernel of their own: the row is loaded for its norm (Zhang & Sennrich 2019) anyway.
"""

# Device code: which branches exist is decided when a kernel is compiled.
# pyright: reportPossiblyUnboundVariable=false, reportGeneralTypeIssues=false
from __future__ import annotations

import torch
import triton
from triton import language as tl

from rtp_kernels.gpu import pdl
from rtp_kernels.gpu.launch import launch
from rtp_kernels.gpu.sizes import next_power_of_2

FEW_ROWS = 16


@triton.jit(do_not_specialize=["rows"])
def residual_norm_kernel(
    residual,
    partials,
    post_norm,
    norm,
    new_residual,
    out,
    post_eps,
    eps,
    rows,
    COLUMNS: tl.constexpr,
    BLOCK: tl.constexpr,
    SPLITS: tl.constexpr,
    PDL: tl.constexpr,
):
    """Grid (rows,): new_residual = residual + post_norm(sum of partials); out = norm(that).

    residual, new_residual and out [rows, COLUMNS], partials [SPLITS, rows, COLUMNS]; sums and
    norms in float32. Without partials there is no new residual; post_norm, norm may be None.
    """
    row = tl.program_id(0).to(tl.int64)
    columns = tl.arange(0, BLOCK)
    inside = columns < COLUMNS
    if norm is not None:
        gain = tl.load(norm + columns, mask=inside, other=0.0).to(tl.float32)
    if post_norm is not None:
        post_gain = tl.load(post_norm + columns, mask=inside, other=0.0).to(tl.float32)
    pdl.release(PDL)
    pdl.wait(PDL)
    at = row * COLUMNS + columns
    total = tl.load(residual + at, mask=inside, other=0.0).to(tl.float32)
    if partials is not None:
        update = tl.load(partials + at, mask=inside, other=0.0).to(tl.float32)
        for part in tl.static_range(1, SPLITS):
            offset = part * rows.to(tl.int64) * COLUMNS
            update += tl.load(partials + offset + at, mask=inside, other=0.0).to(tl.float32)
        if post_norm is not None:
            square = tl.sum(update * update, 0) / COLUMNS
            update = update * tl.rsqrt(square + post_eps) * post_gain
        total += update
        tl.store(new_residual + at, total.to(new_residual.dtype.element_ty), mask=inside)
    if norm is not None:
        scale = tl.rsqrt(tl.sum(total * total, 0) / COLUMNS + eps)
        tl.store(out + at, (total * scale * gain).to(out.dtype.element_ty), mask=inside)


Norm = tuple[torch.Tensor, float]
"""Weight [columns] and eps."""


def add_up(residual: torch.Tensor, partials: torch.Tensor, post_norm: Norm | None) -> torch.Tensor:
    """residual [rows, columns] + partials [splits, rows, columns], both contiguous."""
    new = torch.empty_like(residual)
    _launch(residual, partials, post_norm, None, (new, None))
    return new


def add_up_and_norm(
    residual: torch.Tensor, partials: torch.Tensor | None, post_norm: Norm | None, norm: Norm
) -> tuple[torch.Tensor, torch.Tensor]:
    """The new residual (the given one if nothing is pending) and its norm."""
    new = residual if partials is None else torch.empty_like(residual)
    out = torch.empty_like(residual)
    _launch(residual, partials, post_norm, norm, (new, out))
    return new, out


def _launch(
    residual: torch.Tensor,
    partials: torch.Tensor | None,
    post_norm: Norm | None,
    norm: Norm | None,
    results: tuple[torch.Tensor, torch.Tensor | None],
) -> None:
    rows, columns = residual.shape
    gain, eps = norm or (None, 0.0)
    post_gain, post_eps = post_norm or (None, 0.0)
    launch(
        residual_norm_kernel,
        (rows,),
        residual,
        partials,
        post_gain,
        gain,
        *results,
        post_eps,
        eps,
        rows,
        COLUMNS=columns,
        BLOCK=next_power_of_2(columns),
        SPLITS=0 if partials is None else partials.shape[0],
        warps=16 if rows <= FEW_ROWS else 8,
    )
