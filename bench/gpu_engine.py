"""The engine on a GPU, random weights of the Qwen3-8B shape: steps, prompts and rates.

    python bench/gpu_engine.py [--batches 1,8,32] [--prefill 1x1024,16x1024]
        [--throughput 512x1024x256] [--json FILE]

A step is what the engine's thread takes from one delivery of tokens to the next. The floor of a
step is the bytes that it must read (weights of all linear layers, keys and values) over the
card's own copy bandwidth, measured first.
"""

from __future__ import annotations

import argparse
import itertools
import json
import logging
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
from triton import knobs

from rtp_core.api import Request, SamplingParams
from rtp_core.config.read import load_config
from rtp_core.engine.assemble import build_engine
from rtp_core.engine.contract import Engine

SHAPE = {
    "architectures": ["Qwen3ForCausalLM"],
    "hidden_size": 4096,
    "num_hidden_layers": 36,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
    "head_dim": 128,
    "intermediate_size": 12288,
    "vocab_size": 151936,
    "max_position_embeddings": 40960,
    "rms_norm_eps": 1e-6,
    "rope_theta": 1000000.0,
    "tie_word_embeddings": False,
    "hidden_act": "silu",
    "eos_token_id": 151645,
}
LINEAR = 36 * (6144 * 4096 + 4096 * 4096 + 24576 * 4096 + 4096 * 12288)
HEAD = 151936 * 4096
WEIGHT_BYTES = 2 * (LINEAR + HEAD)
KV_BYTES = 36 * 2 * 8 * 128 * 2
STEPS = 48


def copy_bandwidth() -> float:
    """Bytes read and written a second."""
    source = torch.empty(2**30, dtype=torch.int32, device="cuda")
    target = torch.empty_like(source)
    times = []
    for _ in range(8):
        torch.cuda.synchronize()
        began = time.perf_counter()
        target.copy_(source)
        torch.cuda.synchronize()
        times.append(time.perf_counter() - began)
    return 2 * source.nbytes / min(times)


def matrix_rate() -> float:
    """bf16 FLOP/s of one 8192^3 product."""
    a = torch.randn(8192, 8192, dtype=torch.bfloat16, device="cuda")
    times = []
    for _ in range(8):
        torch.cuda.synchronize()
        began = time.perf_counter()
        a @ a
        torch.cuda.synchronize()
        times.append(time.perf_counter() - began)
    return 2 * 8192**3 / min(times)


class Bench:
    def __init__(self, engine: Engine, vocab: int) -> None:
        self.engine = engine
        self.vocab = vocab
        self.count = 0

    def submit(self, length: int, output: int, **sampling: Any) -> None:
        self.count += 1
        generator = torch.Generator().manual_seed(self.count)
        ids = torch.randint(0, self.vocab, (length,), generator=generator).tolist()
        params = SamplingParams(
            **{"temperature": 0.0, **sampling}, max_tokens=output, ignore_eos=True
        )
        self.engine.submit(Request(f"r{self.count}", tuple(ids), params, time.monotonic()))

    def drain(self) -> int:
        tokens = 0
        while self.engine.has_work:
            tokens += sum(len(event.token_ids) for event in self.engine.step())
        return tokens

    def steps(self, batch: int, context: int, **sampling: Any) -> dict:
        """Decode steps of a full batch around `context` tokens."""
        for _ in range(batch):
            self.submit(context - STEPS // 2, STEPS + 24, **sampling)
        deliveries: list[float] = []
        device: list[float] = []
        while self.engine.has_work:
            before = self.engine.stats()
            events = self.engine.step()
            if len(events) == batch and all(len(event.token_ids) for event in events):
                deliveries.append(time.perf_counter())
                after = self.engine.stats()
                spent = after.step_seconds - before.step_seconds
                device.append(spent - (after.step_host_seconds - before.step_host_seconds))
        gaps = [b - a for a, b in itertools.pairwise(deliveries[4:])][:STEPS]
        return {
            "step_s": statistics.median(gaps),
            "p95_s": sorted(gaps)[int(len(gaps) * 0.95)],
            "device_s": statistics.median(device[4:STEPS]),
        }

    def prompts(self, batch: int, length: int) -> float:
        """Seconds from the first prompt to the last first token; the second of two runs."""
        for _ in range(2):
            for _ in range(batch):
                self.submit(length, 1)
            began = time.perf_counter()
            self.drain()
            seconds = time.perf_counter() - began
        return seconds

    def all_at_once(self, number: int, length: int, output: int) -> dict:
        for _ in range(number):
            self.submit(length, output)
        began = time.perf_counter()
        tokens = self.drain()
        seconds = time.perf_counter() - began
        return {"requests_per_s": number / seconds, "output_tokens_per_s": tokens / seconds}


DRAWING = {"temperature": 0.8, "top_k": 50, "top_p": 0.9, "presence_penalty": 0.3, "seed": 1}


def parsed() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--batches", default="1,8,32,64,128,256")
    parser.add_argument("--drawing", default="1,256", help="batches whose steps draw")
    parser.add_argument("--prefill", default="1x1024,1x8192,16x1024")
    parser.add_argument("--throughput", default="512x1024x256,1024x128x128,64x8192x128")
    parser.add_argument("--context", type=int, default=1024)
    parser.add_argument("--max-model-len", type=int, default=8448)
    parser.add_argument("--json", type=Path)
    return parser.parse_args()


def build(max_model_len: int) -> Engine:
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "config.json").write_text(json.dumps(SHAPE))
        overrides = {
            "model": folder,
            "max_model_len": max_model_len,
            "loading": {"loader": "dummy"},
            "kv": {"prefix_caching": False},
        }
        return build_engine(load_config(overrides=overrides))


def decode(bench: Bench, batch: int, context: int, bandwidth: float) -> dict:
    found = bench.steps(batch, context)
    floor = (WEIGHT_BYTES + batch * context * KV_BYTES) / bandwidth
    return found | {"floor_s": floor, "ratio": found["step_s"] / floor}


def prefill(bench: Bench, batch: int, length: int, rate: float) -> dict:
    seconds = bench.prompts(batch, length)
    flops = batch * (2 * length * LINEAR + 2 * HEAD + 2 * 36 * 32 * 128 * length**2)
    return {
        "seconds": seconds,
        "tokens_per_s": batch * length / seconds,
        "of_matrix_rate": flops / seconds / rate,
    }


def count_compilations() -> list[str]:
    """Names of kernels that are compiled from now on; a server that serves compiles none."""
    found: list[str] = []

    def compiled(*, fn: Any, **_: Any) -> None:
        found.append(fn.name)

    knobs.runtime.jit_post_compile_hook = compiled
    return found


def show(name: str, found: dict) -> None:
    print(name, " ".join(f"{key} {value:.5g}" for key, value in found.items()), flush=True)


def main() -> None:
    flags = parsed()
    logging.basicConfig(level=logging.INFO, format="%(relativeCreated)d %(name)s %(message)s")
    results: dict[str, Any] = {"device": torch.cuda.get_device_name(), "torch": torch.__version__}
    card = {"copy_bytes_per_s": copy_bandwidth(), "matrix_flops": matrix_rate()}
    torch.cuda.empty_cache()
    began = time.perf_counter()
    engine = build(flags.max_model_len)
    card["build_s"] = time.perf_counter() - began
    results |= card
    results["start"] = {one.name: one.seconds for one in engine.info.start.phases}
    show(results["device"], card)
    show("start", results["start"])
    late = count_compilations()
    bench = Bench(engine, SHAPE["vocab_size"])
    bench.submit(64, 8)
    bench.drain()
    for batch in map(int, filter(None, flags.batches.split(","))):
        found = decode(bench, batch, flags.context, card["copy_bytes_per_s"])
        results[f"decode {batch}"] = found
        show(f"decode {batch}", found)
    for batch in map(int, filter(None, flags.drawing.split(","))):
        found = bench.steps(batch, flags.context, **DRAWING)
        results[f"drawing {batch}"] = found
        show(f"drawing {batch}", found)
    for one in filter(None, flags.prefill.split(",")):
        found = prefill(bench, *map(int, one.split("x")), card["matrix_flops"])
        results[f"prefill {one}"] = found
        show(f"prefill {one}", found)
    for one in filter(None, flags.throughput.split(",")):
        found = bench.all_at_once(*map(int, one.split("x")))
        results[f"throughput {one}"] = found
        show(f"throughput {one}", found)
    results["compiled_while_serving"] = late
    print("compiled while serving:", *late, flush=True)
    if flags.json:
        flags.json.write_text(json.dumps(results, indent=1))


if __name__ == "__main__":
    main()
