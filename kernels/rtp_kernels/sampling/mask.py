"""Rows under a grammar lose the tokens it does not let follow, before anything is drawn."""

# ruff: noqa: ANN001, ANN201, PLR0913, PLR0917 - device code
# pyright: reportArgumentType=false, reportAttributeAccessIssue=false, reportCallIssue=false
# pyright: reportGeneralTypeIssues=false, reportIndexIssue=false, reportOperatorIssue=false

from __future__ import annotations

import torch
import triton
from triton import language as tl

from rtp_kernels.gpu.sizes import ceil_div

_TILE = 2048


@triton.jit(do_not_specialize_on_alignment=["places"])
def bar(logits, row_stride, masks, mask_stride, places, VOCAB, TILE: tl.constexpr):
    """Grid (tiles, rows). Writes only what is barred: few grammars leave a whole tile open."""
    row = tl.program_id(1)
    place = tl.load(places + row)
    if place >= 0:
        ids = tl.program_id(0) * TILE + tl.arange(0, TILE)
        inside = ids < VOCAB
        words = tl.load(masks + place.to(tl.int64) * mask_stride + ids // 32, mask=inside, other=0)
        barred = ((words >> (ids % 32)) & 1) == 0
        at = logits + row.to(tl.int64) * row_stride + ids
        tl.store(at, tl.full([TILE], -float("inf"), tl.float32), mask=inside & barred)


def apply_masks(
    logits: torch.Tensor, masks: torch.Tensor, places: torch.Tensor, vocab_size: int
) -> None:
    """As `mask_reference.apply_masks`; a row of logits is contiguous."""
    rows = logits.shape[0]
    if not rows:
        return
    if masks.shape[1] * 32 < vocab_size or len(places) != rows:
        raise ValueError(
            f"masks of {masks.shape[1]} words and {len(places)} places for {rows} rows of "
            f"{vocab_size} tokens"
        )
    bar[(ceil_div(vocab_size, _TILE), rows)](
        logits, logits.stride(0), masks, masks.stride(0), places, vocab_size, TILE=_TILE,
        num_warps=4,
    )  # fmt: skip
