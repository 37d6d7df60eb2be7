"""The whole service at saturation, with clients of every kind that come and go.

Longer: ``python tests/soak/test_soak.py --minutes 10``.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
import tempfile
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest

sys.path.insert(0, str(Path(__file__).parent))
sys.path.insert(0, str(Path(__file__).parent.parent / "e2e"))
from books import Memory, check, settle
from crowd import Crowd
from serving import Server, serving

pytestmark = pytest.mark.model
FLAGS = (
    "--verbose",
    "--scheduling-policy", "priority",
    "--max-num-seqs", "8",
    "--max-model-len", "1024",
    "--set", "kv.memory=25000000",  # too little for eight that grow: sequences are preempted
    "--set", "server.request_timeout_s=15",
)  # fmt: skip
GROWTH_MB = 24.0


@dataclass(frozen=True)
class Findings:
    """What a soak came to."""

    kinds: Counter[str]
    tokens_per_s: float
    preemptions: int
    server: Memory
    engine: Memory

    def __str__(self) -> str:
        memory = "; ".join(
            f"{name} {one.samples[0][1]:.0f} to {one.samples[-1][1]:.0f} MB, "
            f"growth {one.growth_mb():+.1f}"
            for name, one in (("API process", self.server), ("engine", self.engine))
        )
        return (
            f"{sum(self.kinds.values())} requests {dict(self.kinds)}, {self.tokens_per_s:.0f} "
            f"tokens/s, {self.preemptions} preemptions; {memory}"
        )


async def crowded(server: Server, seconds: float, seed: int) -> tuple[Crowd, list[Memory]]:
    """Load the server, and look at its memory every second."""
    (engine_pid,) = server.engine_pids()
    memories = [Memory(server.process.pid), Memory(engine_pid)]
    crowd = Crowd(server.url, seed)
    running = asyncio.create_task(crowd.run(seconds))
    while not running.done():
        for memory in memories:
            memory.sample()
        await asyncio.wait({running}, timeout=1.0)
    running.result()
    return crowd, memories


def soak(model: Path, folder: Path, seconds: float, seed: int = 0) -> Findings:
    """Raises AssertionError for anything lost, told twice, left over, or logged as wrong."""
    with serving(model, folder / "log", *FLAGS) as server:
        crowd, (api, engine) = asyncio.run(crowded(server, seconds, seed))
        stats = settle(server.url)
        metrics = httpx.get(f"{server.url}/metrics", timeout=30).text
        assert httpx.post(f"{server.url}/reset_prefix_cache", timeout=30).status_code == 200
    log = (folder / "log").read_text()
    kinds = check(crowd.endings, log, metrics, stats)
    rate = stats["generation_tokens"] / seconds
    print(
        "blocks",
        stats["num_blocks"],
        stats["num_steps"],
        stats["finished"],
        stats["prefix_hits"],
        stats["prefix_queries"],
    )
    return Findings(kinds, rate, stats["preemptions"], api, engine)


def test_twenty_seconds(demo_model, tmp_path):
    findings = soak(demo_model, tmp_path, 20)
    assert findings.kinds["done"] > 10, findings
    assert findings.kinds["left"] > 3, findings


@pytest.mark.long
@pytest.mark.timeout(900)
def test_ten_minutes(demo_model, tmp_path):
    findings = soak(demo_model, tmp_path, 600)
    assert findings.kinds["done"] > 500, findings
    assert findings.kinds["deadline_exceeded"], findings
    assert findings.server.growth_mb() < GROWTH_MB, findings
    assert findings.engine.growth_mb() < GROWTH_MB, findings


def main() -> None:
    from rtp_core.config.environment import cache_dir
    from rtp_core.loading.demo import resolve_model

    parser = argparse.ArgumentParser(description="The service at saturation.")
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--model", default="demo")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        model = resolve_model(given.model, cache_dir())
        print(soak(model, Path(folder), 60 * given.minutes, given.seed))


if __name__ == "__main__":
    main()
