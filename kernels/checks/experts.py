"""Checks and times the mixture of experts on a GPU: run from the repository's root.

    python kernels/checks/experts.py --json experts.json

One layer of the Qwen3-30B-A3B shape. Correctness against float32, with everything that is
allocated full of NaN; then the time of a layer in a CUDA graph, weights other than the call
before, beside two floors: the bytes of the experts that are chosen over the card's own copy
bandwidth, and the products over its own matrix rate. Other forms are timed after the shipped
ones, and named where they win. A case that fails is reported and the others go on; the exit
status is 1 then.
"""

# ruff: noqa: E402 - where modules are found is set before they are imported
from __future__ import annotations

import argparse
import functools
import json
import multiprocessing
import sys
import time
from pathlib import Path
from typing import Any

sys.path[:0] = [str(Path(__file__).parents[1]), str(Path(__file__).parent)]

import torch
from checks.timing import copy_bandwidth, milliseconds, recorded
from linear import poisoned
from torch.nn import functional

from rtp_kernels.gpu.residual import normed, settled
from rtp_kernels.moe_gate_up_down import triton as operation
from rtp_kernels.moe_gate_up_down.forms import ExpertForm, Shape, Tile, default
from rtp_kernels.moe_gate_up_down.reference import choose_experts

SHAPE = Shape(128, 8, 2048, 768)
TIMED = (1, 8, 32, 128, 1024, 8192)
CHECKED = (1, 2, 3, 8, 17, 32, 33, 64, 65, 128, 200, 1024, 3000)
CLOSE = 1e-4
"""Scores nearer than this at the boundary of the choice may fall either way."""
BAR = 8e-3
EPS, LAYERS, CALLS, WORKERS, LIMIT_S = 1e-6, 4, 24, 12, 55
BEGAN = time.monotonic()
Given = tuple[torch.Tensor, torch.Tensor, float, tuple[torch.Tensor, ...]]


def say(text: str) -> None:
    """With the seconds since the start."""
    print(f"[{time.monotonic() - BEGAN:4.1f}] {text}", flush=True)


def weights_of() -> tuple[torch.Tensor, ...]:
    """Router, gate_up and down: outputs are of order one."""
    experts, _, hidden, width = SHAPE
    shapes = ((experts, hidden), (experts, 2 * width, hidden), (experts, hidden, width))
    made = []
    for shape in shapes:
        one = torch.empty(*shape, dtype=torch.bfloat16, device="cuda")
        made.append(one.normal_(0, shape[-1] ** -0.5))
    return tuple(made)


def given_of(tokens: int, weights: tuple[torch.Tensor, ...]) -> Given:
    """A small residual, so that it does not hide errors of the experts."""
    x = torch.empty(tokens, SHAPE.hidden, dtype=torch.bfloat16, device="cuda").normal_(0, 0.1)
    return x, 1 + torch.zeros_like(x[0]).normal_(0, 0.1), EPS, weights


def exact(given: Given, normalize: bool) -> tuple[torch.Tensor, torch.Tensor]:
    """float32 rows, and which of them have no choice that is close."""
    x, norm, eps, (router, gate_up, down) = given
    if len(x) == 1:
        rows = functional.rms_norm(x.float(), norm.shape, norm.float(), eps)
    else:
        rows = normed(x, norm, eps).float()
    scores = rows @ router.float().T
    best = scores.topk(SHAPE.top_k + 1, -1).values
    shares, experts = choose_experts(scores, SHAPE.top_k, normalize)
    out = x.float()
    for expert in range(SHAPE.experts):
        token, choice = (experts == expert).nonzero(as_tuple=True)
        gate, up = (rows[token] @ gate_up[expert].float().T).chunk(2, -1)
        done = (functional.silu(gate) * up) @ down[expert].float().T
        out.index_add_(0, token, done * shares[token, choice, None])
    return out, best[:, -2] - best[:, -1] > CLOSE


def check(tokens: int, weights: tuple[torch.Tensor, ...], normalize: bool) -> dict[str, Any]:
    """Error of the layer's update, relative to its norm."""
    given = given_of(tokens, weights)
    wanted, clear = exact(given, normalize)
    with poisoned():
        got = settled(operation.bind("bfloat16")(*given, SHAPE.top_k, normalize)).float()
        again = settled(operation.bind("bfloat16")(*given, SHAPE.top_k, normalize)).float()
    update = (wanted - given[0].float())[clear]
    error = ((got - wanted)[clear].norm() / update.norm()).item()
    good = error <= BAR and bool(got.isfinite().all()) and torch.equal(got, again)
    return {"tokens": tokens, "normalize": normalize, "error": error, "ok": good,
            "unclear": int((~clear).sum()), "same_twice": torch.equal(got, again)}  # fmt: skip


def replayed(weights: tuple[torch.Tensor, ...]) -> dict[str, Any]:
    """A graph serves other inputs than those it was recorded with, and padding of any content."""
    given = given_of(32, weights)
    run = operation.bind("bfloat16")
    out: list[torch.Tensor] = []
    graph = recorded(lambda: out.append(settled(run(*given, SHAPE.top_k, True))))
    ok = True
    for _ in range(3):
        given[0].normal_(0, 0.1)
        wanted, clear = exact(given, True)
        given[0][20:] = torch.nan
        graph.replay()
        clear[20:] = False
        ok &= bool(((out[-1].float() - wanted)[clear].norm() / wanted[clear].norm()).item() <= BAR)
    return {"replay": True, "ok": ok}


def time_of(tokens: int, layers: list[tuple[torch.Tensor, ...]], form: Any) -> dict[str, float]:
    """Microseconds of a layer, its sum and the next norm's pass included; bytes and FLOP."""
    run = operation.bind("bfloat16", None if form is None else lambda *_: form)
    calls = max(LAYERS, min(CALLS, 8192 // tokens))
    inputs = [given_of(tokens, weights) for weights in layers]

    def work() -> None:
        for at in range(calls):
            settled(run(*inputs[at % LAYERS], SHAPE.top_k, True))

    taken = 1e3 * milliseconds(recorded(work).replay, repeats=7) / calls
    return {"us": taken, "bytes": _bytes(tokens, inputs)}


def _bytes(tokens: int, inputs: list[Given]) -> float:
    """Of the experts that are chosen, the router, rows in and out."""
    distinct = 0
    for x, norm, eps, (router, *_) in inputs:
        scores = functional.rms_norm(x, norm.shape, norm, eps).float() @ router.float().T
        distinct += len(scores.topk(SHAPE.top_k, -1).indices.unique())
    experts, _, hidden, width = SHAPE
    each = 2 * 3 * hidden * width
    return distinct / len(inputs) * each + 2 * experts * hidden + 4 * tokens * hidden


def alternatives(tokens: int) -> list[tuple[str, ExpertForm]]:
    """Forms beside the shipped one."""
    if tokens == 1:
        return []
    gate_up = {"n64k128s3": Tile(64, 128, 3), "n64k64s4": Tile(64, 64, 4)}
    down = {"s5": Tile(64, 128, 5), "k256": Tile(64, 256, 3)}
    sizes = {8: [16], 32: [16, 32], 128: [16, 32], 1024: [64, 128]}.get(tokens, [128])
    if tokens >= 1024:
        gate_up = {"n128s4": Tile(128, 64, 4, 8), "n64s4": Tile(64, 64, 4, 8)}
        down = {"n256s4": Tile(256, 64, 4, 8), "n128s4": Tile(128, 64, 4, 8)}
    forms = [
        (f"m{size} {a} {b}", ExpertForm(size, gate_up[a], down[b]))
        for size in sizes
        for a, b in zip(gate_up, down, strict=True)
    ]
    shipped = default()(tokens, SHAPE)
    wide = [Tile(one.block_n, one.block_k, one.stages, one.warps, True)
            for one in (shipped.gate_up, shipped.down)]  # fmt: skip
    forms.append(("descriptors", ExpertForm(shipped.block_m, *wide)))
    return [(name, form) for name, form in forms if form != shipped]


def _try(case: tuple[int, ExpertForm | None]) -> str | None:
    tokens, form = case
    try:
        run = operation.bind("bfloat16", None if form is None else lambda *_: form)
        settled(run(*given_of(tokens, weights_of()), SHAPE.top_k, True))
        torch.cuda.synchronize()
    except Exception as error:  # noqa: BLE001 - reported; the others go on
        return f"{tokens} {form}: {error!r}"[:300]
    return None


def compile_all() -> list[str]:
    """Every case once in other processes, which fills Triton's cache; what failed."""
    cases: list[tuple[int, ExpertForm | None]] = [(tokens, None) for tokens in (*CHECKED, 8192)]
    cases += [(tokens, form) for tokens in TIMED for _, form in alternatives(tokens)]
    with multiprocessing.get_context("spawn").Pool(WORKERS) as pool:
        return [failed for failed in pool.map(_try, cases, chunksize=1) if failed]


def matrix_rate() -> float:
    """FLOP/s of one large product."""
    a = torch.randn(8192, 8192, dtype=torch.bfloat16, device="cuda")
    return 2 * 8192**3 / milliseconds(lambda: a @ a, repeats=7) * 1e3


def timed(
    tokens: int, name: str, form: Any, layers: list[tuple[torch.Tensor, ...]], rates: Any
) -> dict[str, Any]:
    """One line."""
    found = time_of(tokens, layers, form)
    flop = 2.0 * tokens * SHAPE.top_k * 3 * SHAPE.hidden * SHAPE.width
    floor = 1e6 * max(found["bytes"] / rates[0], flop / rates[1])
    fraction = floor / found["us"]
    say(f"{tokens:5d} {name:22s} {found['us']:8.1f} us  floor {floor:7.1f}  {fraction:6.1%}")
    return {**found, "tokens": tokens, "form": name, "floor_us": floor, "fraction": fraction}


def guarded(results: list[dict[str, Any]], call: Any) -> None:
    """Adds what the call gives, or what it raised."""
    try:
        found = {"ok": True, **call()}
    except Exception as error:  # noqa: BLE001 - reported; the others go on
        found = {"ok": False, "raised": repr(error)[:300], "call": repr(call)[:80]}
    if not found["ok"]:
        say(f"WRONG {found}")
    results.append(found)


def main() -> int:
    """The command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--json", type=Path, help="where to write the results")
    flags = parser.parse_args()
    results: list[dict[str, Any]] = [{"ok": False, "raised": one} for one in compile_all()]
    for failed in results:
        say(f"FAILED {failed['raised']}")
    rates = copy_bandwidth(), matrix_rate()
    torch.cuda.empty_cache()
    card = torch.cuda.get_device_name()
    say(f"{card} {rates[0] / 1e12:.3f} TB/s {rates[1] / 1e12:.0f} TFLOP/s")
    layers = [weights_of() for _ in range(LAYERS)]
    for tokens in CHECKED:
        for normalize in (True, False):
            guarded(results, functools.partial(check, tokens, layers[0], normalize))
    guarded(results, functools.partial(replayed, layers[0]))
    errors = [one["error"] for one in results if "error" in one]
    say(f"{len(errors)} checked, largest error {max(errors, default=1):.2e}")
    for tokens in TIMED:
        guarded(results, functools.partial(timed, tokens, "shipped", None, layers, rates))
    for tokens in TIMED:
        for name, form in alternatives(tokens):
            if time.monotonic() - BEGAN < LIMIT_S:
                guarded(results, functools.partial(timed, tokens, name, form, layers, rates))
    wrong = sum(not one["ok"] for one in results)
    say(f"{wrong} of {len(results)} wrong")
    if flags.json:
        report = {"device": card, "torch": torch.__version__, "copy_bytes_per_s": rates[0],
                  "matrix_flops": rates[1], "results": results}  # fmt: skip
        flags.json.write_text(json.dumps(report, indent=1) + "\n")
    return int(wrong > 0)


if __name__ == "__main__":
    sys.exit(main())
