"""Attention of a drafter while it is trained and measured: chains from every position at once.

Step 0 is causal over the true states. A row of step j drafts further from its own position: it
sees the keys of step 0 up to itself, and its own of steps 1 to j.
"""

from __future__ import annotations

import torch
from torch.nn import functional

_ALIGNMENT = 8
"""Columns of scores come in multiples of this, which half-precision products need to be fast."""


class TestTimeAttention:
    """Over texts, q [texts, length, heads, dim], k and v [texts, length, kv_heads, dim].

    The training-time test of EAGLE-3. Call it once a step.
    """

    __test__ = False

    def __init__(self) -> None:
        self._first_kv: tuple[torch.Tensor, torch.Tensor] | None = None
        self._mask: torch.Tensor | None = None
        self._own: list[tuple[torch.Tensor, torch.Tensor]] = []

    def __call__(self, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
        """-> like q."""
        if self._first_kv is None:
            self._first_kv = k.transpose(1, 2), v.transpose(1, 2)
            return self._first(q, *self._first_kv)
        self._own.append((k, v))
        return self._later(q, *self._first_kv)

    def _first(self, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
        group = q.shape[2] // k.shape[1]
        k, v = (one.repeat_interleave(group, dim=1) for one in (k, v))
        out = functional.scaled_dot_product_attention(q.transpose(1, 2), k, v, is_causal=True)
        return out.transpose(1, 2)

    def _later(self, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
        texts, length, heads, dim = q.shape
        kv_heads = k.shape[1]
        grouped = q.unflatten(2, (kv_heads, -1)).permute(0, 2, 3, 1, 4)
        flat = grouped.reshape(texts * kv_heads, -1, dim)
        keys, values = (one.reshape(texts * kv_heads, length, dim) for one in (k, v))
        before = torch.baddbmm(
            self._causal(q, heads // kv_heads), flat, keys.transpose(1, 2), alpha=dim**-0.5
        )
        own = [
            (grouped * one.transpose(1, 2)[:, :, None]).sum(-1) * dim**-0.5 for one, _ in self._own
        ]
        scores = torch.cat((before, self._columns(own)), dim=-1)
        weights = torch.softmax(scores, dim=-1)
        out = torch.bmm(weights[..., :length], values).view(grouped.shape)
        for number, (_, one) in enumerate(self._own):
            share = weights[..., length + number].reshape(grouped.shape[:-1])
            out = out + share[..., None] * one.transpose(1, 2)[:, :, None]
        return out.permute(0, 3, 1, 2, 4).reshape(q.shape)

    def _columns(self, own: list[torch.Tensor]) -> torch.Tensor:
        """[texts * kv_heads, group * length, columns] of scores, -inf where there is no key."""
        stacked = torch.stack(own, dim=-1).flatten(0, 1).flatten(1, 2)
        return functional.pad(stacked, (0, -len(own) % _ALIGNMENT), value=float("-inf"))

    def _causal(self, q: torch.Tensor, group: int) -> torch.Tensor:
        """[group * length, length], for all heads that share keys."""
        if self._mask is None:
            length = q.shape[1]
            mask = torch.full((length, length), float("-inf"), device=q.device, dtype=q.dtype)
            self._mask = mask.triu(1).repeat(group, 1)
        return self._mask


class RowAttention:
    """Over one text: chains from `rows` int64 [n], given the keys and values of step 0.

    q [n, heads, dim], k and v [n, kv_heads, dim]; step 0's [length, kv_heads, dim].
    """

    def __init__(self, keys: torch.Tensor, values: torch.Tensor, rows: torch.Tensor) -> None:
        self._keys, self._values = keys, values
        self._hidden = torch.arange(len(keys), device=rows.device) > rows[:, None]
        self._own: list[tuple[torch.Tensor, torch.Tensor]] = []

    def __call__(self, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
        """-> like q. Call it once a step from step 1 on."""
        self._own.append((k, v))
        own_keys, own_values = (torch.stack(many, dim=1) for many in zip(*self._own, strict=True))
        grouped = q.unflatten(1, (k.shape[1], -1))
        before = torch.einsum("rhgd,nhd->rhgn", grouped, self._keys)
        before = before.masked_fill(self._hidden[:, None, None], float("-inf"))
        own = torch.einsum("rhgd,rjhd->rhgj", grouped, own_keys)
        scores = torch.cat((before, own), dim=-1).float() * q.shape[-1] ** -0.5
        weights = torch.softmax(scores, dim=-1).to(v.dtype)
        length = len(self._keys)
        out = torch.einsum("rhgn,nhd->rhgd", weights[..., :length], self._values)
        out = out + torch.einsum("rhgj,rjhd->rhgd", weights[..., length:], own_values)
        return out.flatten(1, 2)


def causal(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
    """Over one text, all [length, heads, dim]."""
    group = q.shape[1] // k.shape[1]
    k, v = (one.repeat_interleave(group, dim=1) for one in (k, v))
    q, k, v = (one.transpose(0, 1)[None] for one in (q, k, v))
    out = functional.scaled_dot_product_attention(q, k, v, is_causal=True)
    return out[0].transpose(0, 1)
