"""Texts of like lengths together, so that little is padding."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass

import torch

from rtp_core.training.texts import Text

MULTIPLE = 32
"""Lengths are rounded up to this: few shapes, and rows that matrix units like."""


@dataclass(frozen=True, slots=True)
class TextBatch:
    """int64 `token_ids` [texts, length], `prompt_lengths` and `lengths` [texts]."""

    token_ids: torch.Tensor
    prompt_lengths: torch.Tensor
    lengths: torch.Tensor


def make_batches(
    texts: Sequence[Text], num_tokens: int, seed: int, device: torch.device
) -> list[TextBatch]:
    """At most `num_tokens` with padding in each, unless one text alone is longer."""
    shuffled = random.Random(seed)
    order = sorted(texts, key=lambda text: len(text.token_ids) + shuffled.random())
    batches: list[TextBatch] = []
    rows: list[Text] = []
    for text in order:
        if rows and (len(rows) + 1) * _rounded(len(text.token_ids)) > num_tokens:
            batches.append(_batch(rows, device))
            rows = []
        rows.append(text)
    if rows:
        batches.append(_batch(rows, device))
    return batches


def batch_number(step: int, num_batches: int, seed: int) -> int:
    """Which batch a step takes: every epoch all of them, in an order of its own."""
    epoch, place = divmod(step, num_batches)
    order = list(range(num_batches))
    random.Random(f"{seed}-{epoch}").shuffle(order)
    return order[place]


def _rounded(length: int) -> int:
    return -(-length // MULTIPLE) * MULTIPLE


def _batch(rows: Sequence[Text], device: torch.device) -> TextBatch:
    length = _rounded(max(len(text.token_ids) for text in rows))
    token_ids = torch.zeros(len(rows), length, dtype=torch.int64)
    for row, text in enumerate(rows):
        token_ids[row, : len(text.token_ids)] = torch.tensor(text.token_ids)
    prompt_lengths = torch.tensor([text.num_prompt for text in rows])
    lengths = torch.tensor([len(text.token_ids) for text in rows])
    return TextBatch(token_ids.to(device), prompt_lengths.to(device), lengths.to(device))
