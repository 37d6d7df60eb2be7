"""All linear layers of a Qwen3-8B step, norms included, attention left out."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any

import torch
from checks.timing import milliseconds, recorded
from linear_cases import (
    EPS,
    LAYERS,
    QWEN3_8B,
    alternatives,
    bound,
    chooser,
    library,
    normal,
    weight_of,
)

from rtp_kernels.gpu.forms import Choose, Form, default, shape_key, written
from rtp_kernels.registry import resolve

Key = tuple[str, int, int]
GAIN = 0.998
"""A candidate replaces the best when it takes less than this part of its time."""


class Chain:
    """The weights of 36 layers and a head; runs them for any number of rows."""

    def __init__(self) -> None:
        self.layers = [[weight_of(linear) for linear in QWEN3_8B[:4]] for _ in range(LAYERS)]
        self.head = weight_of(QWEN3_8B[4])
        self.gain = 1 + normal(4096, scale=0.1)

    @property
    def bytes(self) -> int:
        """Of all weights."""
        return 2 * (sum(one.numel() for layer in self.layers for one in layer) + self.head.numel())

    def work(self, rows: int, choose: Choose | None) -> Callable[[], torch.Tensor]:
        """A step, from the embedding's barrier to the logits."""
        embed, settle = (resolve(name, "cuda", "bfloat16") for name in ("embed", "settle"))
        norm_linear, linear_residual, norm_gate_up, head = (
            bound(name, choose)
            for name in ("norm_linear", "linear_residual", "norm_gate_up", "head")
        )
        ids = torch.randint(0, 151936, (rows,), device="cuda")
        attended = normal(rows, 4096)

        def step() -> torch.Tensor:
            x: Any = embed(ids, self.head)
            for qkv, o, gate_up, down in self.layers:
                norm_linear(x, self.gain, EPS, qkv)
                x = linear_residual(attended, o, x)
                x = linear_residual(norm_gate_up(x, self.gain, EPS, gate_up), down, x)
            return head(settle(x), self.gain, EPS, self.head)

        return step


def time_of(chain: Chain, rows: int, choose: Choose | None) -> float:
    """Milliseconds of a replayed step."""
    graph = recorded(chain.work(rows, choose))
    return milliseconds(graph.replay)


def compare(chain: Chain, rows: int, bandwidth: float) -> dict[str, Any]:
    """Ours, cuBLAS and the floor; and whether both say the same."""
    ours = time_of(chain, rows, None)
    plain = time_of(chain, rows, library)
    floor = chain.bytes / bandwidth * 1e3
    torch.manual_seed(rows)
    step = chain.work(rows, None)
    torch.manual_seed(rows)  # the same ids and attention's output
    expected = chain.work(rows, library)()
    logits: list[torch.Tensor] = []
    graph = recorded(lambda: logits.append(step()))
    graph.replay()
    torch.cuda.synchronize()
    error = ((logits[-1] - expected).norm() / expected.norm()).item()
    return {
        "rows": rows,
        "ms": ours,
        "library_ms": plain,
        "floor_ms": floor,
        "fraction_of_floor": floor / ours,
        "difference": error,
    }


def tune(
    chain: Chain, rows: int, deadline: float, say: Callable[[str], None]
) -> tuple[dict[Key, Form], float]:
    """Coordinate descent over the forms of each weight, on the time of the whole step."""
    shipped = default()
    best: dict[Key, Form] = {
        key: shipped(key[0], rows, key[1], key[2]) for key in map(_key, QWEN3_8B)
    }
    shortest = time_of(chain, rows, chooser(best))
    say(f"rows {rows}: {shortest:.3f} ms as shipped")
    for linear in QWEN3_8B:
        for form in alternatives(linear, rows):
            if time.monotonic() > deadline:
                return best, shortest
            candidate = {**best, _key(linear): form}
            try:
                taken = time_of(chain, rows, chooser(candidate))
            except Exception as error:  # noqa: BLE001 - reported; the others go on
                say(f"  {linear.name} {form}: {error!r}"[:200])
                continue
            better = taken < GAIN * shortest
            say(f"  {linear.name} {form}: {taken:.3f} ms{' *' if better else ''}")
            if better:
                best, shortest = candidate, taken
    return best, shortest


def as_table(tuned: Sequence[tuple[int, dict[Key, Form]]]) -> dict[str, Any]:
    """As the shipped JSON has it."""
    table: dict[str, dict[str, dict[int, Form]]] = {}
    for rows, forms in tuned:
        for (operation, outputs, inputs), form in forms.items():
            by_shape = table.setdefault(operation, {})
            by_shape.setdefault(shape_key(outputs, inputs), {})[rows] = form
    return written(table)


def _key(linear: Any) -> Key:
    return linear.operation, linear.outputs, linear.inputs
