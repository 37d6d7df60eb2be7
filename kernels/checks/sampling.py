"""Sampling on a GPU: tokens against the definition, then times beside torch's operators.

    python kernels/checks/sampling.py [--json PATH] [--quick]

Near-ties are counted: a token that differs from the reference's is explained if exchanging the two
takes a relative change of less than 1e-5, of the noisy value or of the mass at an edge.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
import time
import traceback
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from multiprocessing import get_context
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

import numpy as np
import torch
from checks.timing import copy_bandwidth, milliseconds, recorded

from rtp_kernels.sampling import cpu, device, reference
from rtp_kernels.sampling.batch_reference import SlotState
from rtp_kernels.sampling.device import DrawRows
from rtp_kernels.sampling.philox import gumbel
from rtp_kernels.sampling.record import SlotEntry
from rtp_kernels.sampling.slots import SamplerSlots

VOCABULARIES = (49_152, 151_936)
BATCHES = (1, 8, 32, 128, 256)
MARGIN = 1e-5
MOST_DIFFERENT = 1e-4

PLAIN = {"any_random": False, "any_processed": False, "any_truncated": False}
RANDOM = {**PLAIN, "any_random": True}
CUT = {**RANDOM, "any_truncated": True}
ALL = {"any_random": True, "any_processed": True, "any_truncated": True}
PENALTIES = {"presence_penalty": 0.3, "frequency_penalty": 0.2, "repetition_penalty": 1.1}
EVERYTHING = {"temperature": 0.8, "top_k": 50, "top_p": 0.9, **PENALTIES}

# name: fields of every slot, facts of the host, alternatives.
CASES: dict[str, tuple[dict, dict, int | None]] = {
    "greedy": ({}, PLAIN, None),
    "temperature": ({"temperature": 0.8}, RANDOM, None),
    "top-k 50": ({"temperature": 0.8, "top_k": 50}, CUT, None),
    "top-p 0.9": ({"temperature": 0.8, "top_p": 0.9}, CUT, None),
    "min-p 0.05": ({"temperature": 0.8, "min_p": 0.05}, CUT, None),
    "all + penalties": (EVERYTHING, ALL, None),
    "greedy, logprobs 5": ({}, PLAIN, 5),
}


def peaky(rows: int, vocab: int, generator: torch.Generator) -> torch.Tensor:
    """Like a language model's: a long tail about 16 nats down, some tens of likely tokens."""
    shape = (rows, vocab)
    logits = torch.randn(shape, generator=generator, device="cuda") * 2.0 - 8.0
    heads = torch.randint(0, vocab, (rows, 40), generator=generator, device="cuda")
    rise = torch.linspace(16.0, 2.0, 40, device="cuda")
    noise = torch.randn((rows, 40), generator=generator, device="cuda")
    return logits.scatter_(1, heads, rise + noise)


def flat(rows: int, vocab: int, generator: torch.Generator) -> torch.Tensor:
    """Random weights' logits: a nucleus of most of the vocabulary."""
    return torch.randn((rows, vocab), generator=generator, device="cuda")


def rounded(rows: int, vocab: int, generator: torch.Generator) -> torch.Tensor:
    """Ties, as a head in bfloat16 makes them."""
    return peaky(rows, vocab, generator).bfloat16().float()


KINDS = {"peaky": peaky, "flat": flat, "rounded": rounded}


def entry_for(index: int, fields: dict, vocab: int) -> SlotEntry:
    source = np.random.default_rng(index)
    output = source.integers(0, vocab, 300).tolist()
    return SlotEntry(
        index, seed=int(source.integers(2**63)), choice=index % 3, prompt_ids=output[:200],
        output_ids=output[200:], **fields,
    )  # fmt: skip


# ---------------------------------------------------------------- correctness


def near_tie(logits: torch.Tensor, draw: reference.Draw, found: int, expected: int) -> bool:
    """Whether less than MARGIN, relative, separates the two tokens or an edge from one of them."""
    scaled = logits / draw.temperature if draw.temperature else logits
    pair = torch.tensor([found, expected])
    noise = gumbel(draw.seed, draw.position, draw.choice, np.sort(pair.numpy()))
    noisy = (scaled[pair.sort().values].numpy() + noise).astype(np.float64)
    if abs(noisy[0] - noisy[1]) <= MARGIN * max(1.0, abs(noisy).max()):
        return True
    edges = [
        replace(draw, top_p=min(1.0, draw.top_p * (1 + sign * MARGIN))) for sign in (-1, 1)
    ] if draw.top_p < 1.0 else []  # fmt: skip
    if draw.min_p > 0.0:
        edges += [replace(draw, min_p=min(1.0, draw.min_p * (1 + s * MARGIN))) for s in (-1, 1)]
    return any(cpu.sample(logits, edge) == found for edge in edges)


def compare(kind: str, name: str, rows: int, vocab: int) -> dict:
    """Draws one batch and every row of it by the reference."""
    fields, facts, _ = CASES[name]
    generator = torch.Generator("cuda").manual_seed(hash((kind, name, rows)) % 2**31)
    logits = torch.full((rows, vocab + 128), math.nan, device="cuda")
    logits[:, :vocab] = KINDS[kind](rows, vocab, generator)
    entries = [entry_for(index, fields, vocab) for index in range(rows)]
    slots = SamplerSlots(rows, vocab, "cuda")
    slots.put(entries)
    where = torch.arange(rows, dtype=torch.int32, device="cuda")
    drawn = device.draw(logits, slots, DrawRows(where, where + 500, **facts))
    found = drawn.token_ids.tolist()
    usable = bool(drawn.usable.all())
    host = logits[:, :vocab].cpu()
    different = unexplained = 0
    for index, entry in enumerate(entries):
        state = SlotState(entry)
        draw = state.draw(500 + index)
        values = state.process(host[index], draw.position) if entry.processed else host[index]
        # The fast form on the CPU is tested against the definition; odd rows ask that itself.
        form = reference.sample if index % 16 == 0 else cpu.sample
        expected = form(values, draw)
        if expected != found[index]:
            different += 1
            unexplained += not near_tie(values, draw, found[index], expected)
    return {
        "kind": kind, "case": name, "vocab": vocab, "rows": rows, "different": different,
        "unexplained": unexplained, "usable": usable,
    }  # fmt: skip


def check_logprobs(vocab: int) -> dict:
    """Values and order of 20 alternatives against torch."""
    generator = torch.Generator("cuda").manual_seed(1)
    logits = peaky(64, vocab, generator)
    slots = SamplerSlots(64, vocab, "cuda")
    where = torch.arange(64, dtype=torch.int32, device="cuda")
    drawn = device.draw(logits, slots, DrawRows(where, where, **PLAIN), 20)
    expected = torch.log_softmax(logits.double(), dim=-1)
    values, ids = expected.topk(20)
    chosen = expected.gather(1, drawn.token_ids[:, None].long())[:, 0]
    assert drawn.logprobs is not None
    error = max(
        (drawn.logprobs.top_values - values).abs().max().item(),
        (drawn.logprobs.chosen - chosen).abs().max().item(),
    )
    wrong = int((drawn.logprobs.top_ids != ids).sum())
    return {"case": "logprobs 20", "vocab": vocab, "error": error, "wrong ids": wrong,
            "unexplained": int(error > 1e-4 or wrong > 0)}  # fmt: skip


def check_graph(vocab: int) -> dict:
    """Replays of a captured draw equal eager draws, counts of penalties included."""
    rows = 8
    generator = torch.Generator("cuda").manual_seed(2)
    logits = peaky(rows, vocab, generator)
    entries = [entry_for(index, EVERYTHING, vocab) for index in range(rows)]
    where = torch.arange(rows, dtype=torch.int32, device="cuda")
    position = torch.zeros(rows, dtype=torch.int32, device="cuda")
    request = DrawRows(where, position, **ALL)
    slots = SamplerSlots(rows, vocab, "cuda")
    slots.put(entries)
    device.draw(logits, slots, request)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        captured = device.draw(logits, slots, request).token_ids
    tokens = []
    for replays in (True, False):
        slots.put(entries)
        for step in range(12):
            position.fill_(step)
            if replays:
                graph.replay()
            drawn = captured if replays else device.draw(logits, slots, request).token_ids
            tokens.append(drawn.tolist())
    return {"case": "graph", "vocab": vocab, "unexplained": int(tokens[:12] != tokens[12:])}


def check_verify(vocab: int) -> dict:
    """The tokens that single draws take, offered as drafts, are all accepted."""
    sequences, number = 32, 4
    generator = torch.Generator("cuda").manual_seed(3)
    logits = peaky(sequences * (1 + number), vocab, generator)
    entries = [entry_for(index, EVERYTHING, vocab) for index in range(sequences)]
    where = torch.arange(sequences, dtype=torch.int32, device="cuda")
    slots = SamplerSlots(sequences, vocab, "cuda")
    slots.put(entries)
    plain = torch.stack([
        device.draw(logits[step :: 1 + number], slots, DrawRows(where, where + step)).token_ids
        for step in range(1 + number)
    ], dim=1)  # fmt: skip
    counted = slots.counts.clone()
    slots.put(entries)
    drafts = plain[:, :number].contiguous()
    drafts[::2, 2] = (drafts[::2, 2] + 1) % vocab  # every second sequence errs at its third
    found = device.verify(logits, slots, DrawRows(where, where), drafts)
    wrong = int((found.counts[1::2] != 5).sum() + (found.counts[::2] != 3).sum())
    wrong += int((found.token_ids[1::2] != plain[1::2]).sum())
    wrong += int((found.token_ids[::2, :3] != plain[::2, :3]).sum())
    wrong += int((slots.counts[1::2] != counted[1::2]).sum())
    return {"case": "verify", "vocab": vocab, "unexplained": wrong}


# ---------------------------------------------------------------- speed


def graph_time(call: Callable[[int], object], calls: int = 20) -> float:
    """Microseconds a call, from a graph of `calls` of them."""
    graph = recorded(lambda: [call(index) for index in range(calls)])
    return milliseconds(graph.replay, 7) * 1e3 / calls


def host_time(call: Callable[[int], object]) -> float:
    """Microseconds of the host's thread a call."""
    for index in range(3):
        call(index)
    torch.cuda.synchronize()
    start = time.perf_counter()
    for index in range(10):
        call(index)
    spent = (time.perf_counter() - start) / 10 * 1e6
    torch.cuda.synchronize()
    return spent


def torch_forms(name: str, logits: torch.Tensor) -> Callable[[], object] | None:
    """What torch's own operators do for the same request, penalties left out."""

    def drawn(values: torch.Tensor) -> torch.Tensor:
        noise = torch.empty_like(values).exponential_()
        return (values.softmax(-1) / noise).argmax(-1)

    def top_k() -> torch.Tensor:
        edge = (logits / 0.8).topk(50).values[:, -1:]
        return drawn((logits / 0.8).masked_fill(logits / 0.8 < edge, -math.inf))

    def top_p() -> torch.Tensor:
        values, order = (logits / 0.8).sort(descending=True)
        share = values.softmax(-1)
        values = values.masked_fill(share.cumsum(-1) - share >= 0.9, -math.inf)
        return order.gather(1, drawn(values)[:, None])

    return {
        "greedy": lambda: logits.argmax(-1),
        "temperature": lambda: drawn(logits / 0.8),
        "top-k 50": top_k,
        "top-p 0.9": top_p,
        "all + penalties": top_p,
        "greedy, logprobs 5": lambda: (logits.log_softmax(-1).topk(5), logits.argmax(-1)),
    }.get(name)


def measure(name: str, kind: str, rows: int, vocab: int, bandwidth: float) -> dict:
    fields, facts, alternatives = CASES[name]
    # As many logits as no L2 holds, in turn.
    buffers = max(2, math.ceil(2e8 / (rows * vocab * 4)))
    buffers = min(buffers, 20)
    generator = torch.Generator("cuda").manual_seed(0)
    logits = [KINDS[kind](rows, vocab, generator) for _ in range(buffers)]
    slots = SamplerSlots(rows, vocab, "cuda")
    slots.put([entry_for(index, fields, vocab) for index in range(rows)])
    where = torch.arange(rows, dtype=torch.int32, device="cuda")
    request = DrawRows(where, where, **facts)

    def call(index: int) -> object:
        return device.draw(logits[index % buffers], slots, request, alternatives)

    taken = graph_time(call)
    floor = rows * vocab * 4 / bandwidth * 1e6
    found = {"case": name, "kind": kind, "vocab": vocab, "rows": rows, "us": round(taken, 1),
             "floor us": round(floor, 1), "host us": round(host_time(call), 1)}  # fmt: skip
    form = torch_forms(name, logits[0])
    if form is not None and kind == "peaky":
        found["torch us"] = round(graph_time(lambda _: form(), 5), 1)
    return found


def compile_case(case: tuple[str, int]) -> None:
    """Fills the cache on disk: rows on both sides of the change of tile."""
    name, vocab = case
    fields, facts, alternatives = CASES[name]
    for rows in (1, 32):
        slots = SamplerSlots(rows, vocab, "cuda")
        slots.put([entry_for(index, fields, vocab) for index in range(rows)])
        where = torch.arange(rows, dtype=torch.int32, device="cuda")
        logits = torch.zeros(rows, vocab, device="cuda")
        device.draw(logits, slots, DrawRows(where, where, **facts), alternatives)
    torch.cuda.synchronize()


def guarded(results: list[dict], call: Callable[..., dict], *arguments: object) -> None:
    """Runs one case, prints its row, and goes on when it fails."""
    try:
        found = call(*arguments)
    except Exception:  # noqa: BLE001 - the other cases still count
        traceback.print_exc()
        found = {"case": str(arguments), "unexplained": 1, "failed": call.__name__}
    results.append(found)
    print("  ".join(f"{key} {value}" for key, value in found.items()), flush=True)


def compile_all() -> None:
    cases = [(name, vocab) for name in CASES for vocab in VOCABULARIES]
    with ProcessPoolExecutor(12, mp_context=get_context("spawn")) as pool:
        for case, done in [(case, pool.submit(compile_case, case)) for case in cases]:
            if done.exception() is not None:
                print("compilation failed:", case, done.exception(), flush=True)


def check_all(rows: int) -> list[dict]:
    results: list[dict] = []
    for kind in KINDS:
        for name in list(CASES)[:-1]:
            guarded(results, compare, kind, name, rows, VOCABULARIES[0])
        guarded(results, compare, kind, "all + penalties", rows, VOCABULARIES[1])
    for vocab in VOCABULARIES:
        for check in (check_logprobs, check_graph, check_verify):
            guarded(results, check, vocab)
    return results


def measure_all(batches: Sequence[int], bandwidth: float) -> list[dict]:
    speeds: list[dict] = []
    for vocab in VOCABULARIES:
        for batch in batches:
            for name in CASES:
                guarded(speeds, measure, name, "peaky", batch, vocab, bandwidth)
            if batch in (1, 256):
                for name in ("top-p 0.9", "all + penalties"):
                    guarded(speeds, measure, name, "flat", batch, vocab, bandwidth)
    return speeds


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", type=Path, help="where the results go")
    parser.add_argument("--quick", action="store_true", help="few rows and batches")
    options = parser.parse_args()
    started = time.monotonic()
    compile_all()
    print(f"compiled in {time.monotonic() - started:.1f} s", flush=True)
    results = check_all(32 if options.quick else 192)
    print(f"checked after {time.monotonic() - started:.1f} s", flush=True)
    bandwidth = copy_bandwidth()
    print(f"{torch.cuda.get_device_name()}: copy {bandwidth / 1e12:.2f} TB/s", flush=True)
    speeds = measure_all(BATCHES[:: 2 if options.quick else 1], bandwidth)
    drawn = sum(one.get("rows", 0) for one in results)
    different = sum(one.get("different", 0) for one in results)
    unexplained = sum(one["unexplained"] for one in results)
    failed = sum("failed" in one for one in speeds)
    print(f"{different} of {drawn} rows differ, {unexplained} unexplained; {failed} failed")
    print(f"{time.monotonic() - started:.1f} s in all")
    if options.json:
        found = {"bandwidth": bandwidth, "checks": results, "speeds": speeds}
        options.json.write_text(json.dumps(found, indent=1))
    return int(unexplained + failed > 0 or different > max(1, drawn * MOST_DIFFERENT))


if __name__ == "__main__":
    sys.exit(main())
