"""The engine on a GPU, random weights of the Qwen3-8B shape: steps, prompts and rates.

    python bench/gpu_engine.py [--batches 1,8,32] [--prefill 1x1024,16x1024]
        [--throughput 512x1024x256] [--json FILE]

A step is what the engine's thread takes from one delivery of tokens to the next. The floor of a
step is the bytes that it must read (weights of all linear layers, keys and values) over the
card's own copy bandwidth, measured first.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from pathlib import Path

import torch

from rtp_core.api import Request, SamplingParams
from rtp_core.config.read import load_config
from rtp_core.engine.assemble import build_engine

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
    def __init__(self, engine, vocab: int) -> None:
        self.engine = engine
        self.vocab = vocab
        self.count = 0

    def submit(self, length: int, output: int, **sampling) -> None:
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

    def steps(self, batch: int, context: int, **sampling) -> dict:
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
        gaps = [b - a for a, b in zip(deliveries[4:], deliveries[5:], strict=False)][:STEPS]
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


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--batches", default="1,8,32,64,128,256")
    parser.add_argument("--prefill", default="1x1024,1x8192,16x1024")
    parser.add_argument("--throughput", default="512x1024x256,1024x128x128,64x8192x128")
    parser.add_argument("--context", type=int, default=1024)
    parser.add_argument("--max-model-len", type=int, default=8448)
    parser.add_argument("--json", type=Path)
    flags = parser.parse_args()
    results: dict = {"device": torch.cuda.get_device_name(), "torch": torch.__version__}
    results["copy_bytes_per_s"] = bandwidth = copy_bandwidth()
    results["matrix_flops"] = rate = matrix_rate()
    torch.cuda.empty_cache()
    print(
        f"{results['device']}: copy {bandwidth / 1e12:.3f} TB/s, bf16 {rate / 1e12:.0f} TFLOP/s",
        flush=True,
    )
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "config.json").write_text(json.dumps(SHAPE))
        began = time.perf_counter()
        config = load_config(
            overrides={
                "model": folder,
                "max_model_len": flags.max_model_len,
                "loading": {"loader": "dummy"},
                "kv": {"prefix_caching": False},
            }
        )
        engine = build_engine(config)
        results["build_s"] = time.perf_counter() - began
    print(f"built in {results['build_s']:.1f} s, {engine.stats().num_blocks} blocks", flush=True)
    bench = Bench(engine, SHAPE["vocab_size"])
    bench.submit(64, 8)
    bench.drain()
    for batch in map(int, filter(None, flags.batches.split(","))):
        found = bench.steps(batch, flags.context)
        floor = (WEIGHT_BYTES + batch * flags.context * KV_BYTES) / bandwidth
        found |= {"floor_s": floor, "ratio": found["step_s"] / floor}
        results[f"decode {batch}"] = found
        print(
            f"decode {batch:4d}: {found['step_s'] * 1e3:7.3f} ms, floor {floor * 1e3:6.3f}, "
            f"ratio {found['ratio']:.3f}, device {found['device_s'] * 1e3:.3f}, "
            f"p95 {found['p95_s'] * 1e3:.3f}",
            flush=True,
        )
    for one in filter(None, flags.prefill.split(",")):
        batch, length = map(int, one.split("x"))
        seconds = bench.prompts(batch, length)
        flops = batch * (2 * length * LINEAR + 2 * HEAD + 2 * 36 * 32 * 128 * length**2)
        results[f"prefill {one}"] = {
            "seconds": seconds,
            "tokens_per_s": batch * length / seconds,
            "of_matrix_rate": flops / seconds / rate,
        }
        print(
            f"prefill {one}: {batch * length / seconds:9.0f} tokens/s, "
            f"{flops / seconds / rate:.3f} of the matrix rate",
            flush=True,
        )
    for one in filter(None, flags.throughput.split(",")):
        found = bench.all_at_once(*map(int, one.split("x")))
        results[f"throughput {one}"] = found
        print(
            f"throughput {one}: {found['requests_per_s']:.2f} requests/s, "
            f"{found['output_tokens_per_s']:.0f} tokens/s",
            flush=True,
        )
    if flags.json:
        flags.json.write_text(json.dumps(results, indent=1))


if __name__ == "__main__":
    main()
