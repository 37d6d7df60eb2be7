"""Several ranks load one model from shared slow storage: each by itself, and together.

    python bench/group_load.py FOLDER [--ranks 2] [--gb 0.6] [--latency-ms 5] [--bandwidth 200]

Random safetensors of the Qwen3-8B shape, cut to a few layers, lie in FOLDER and are read through
a FUSE mount whose link all ranks share. `alone`: each rank reads what it holds. `together`: each
byte is read by one rank and handed on by gloo, while the next ones are read, or in turns. The
limit is the link's: all bytes once. Ranks of one machine share its cores with the mount.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from datetime import timedelta
from pathlib import Path
from typing import Any

from gpu_load import shape_of, write_model

from rtp_core.loading.checkpoint import open_checkpoint
from rtp_core.loading.group.loader import GroupLoader
from rtp_core.loading.group.ranks import TorchRanks
from rtp_core.loading.load import load_weights
from rtp_core.loading.plan import plan_weights
from rtp_core.loading.rank_plan import plan_for
from rtp_core.loading.shares import Share
from rtp_core.loading.storage import REMOTE
from rtp_core.models.qwen import Qwen3Family
from rtp_core.testing.slow_mount import slow_mount, why_not
from rtp_core.testing.slow_storage import SlowLink

WAYS = {"alone": None, "together, in turns": 0, "together, side by side": 3}
TIMEOUT_S = 120.0


def rank_main(rank: int, ranks: int, folder: Path, way: str, meeting: Path) -> None:
    """One process: seconds from the plan to parameters, and bytes read from storage."""
    import torch.distributed as dist

    dist.init_process_group(
        "gloo",
        init_method=f"file://{meeting}",
        rank=rank,
        world_size=ranks,
        timeout=timedelta(seconds=TIMEOUT_S),
    )
    family = Qwen3Family()
    checkpoint = open_checkpoint(folder)
    spec = family.spec(checkpoint.config, "bfloat16", "bench")
    plan = plan_weights(family.weights(spec), checkpoint)
    plans = [plan_for(plan, Share.of(spec, one, ranks)) for one in range(ranks)]
    ahead = WAYS[way]
    if ahead is None:
        loader: Any = REMOTE.loader(TIMEOUT_S)
    else:
        loader = GroupLoader(TorchRanks(TIMEOUT_S), plans, ahead=ahead, stall_s=TIMEOUT_S)
    dist.barrier()
    began = time.perf_counter()
    _, stats = load_weights(plans[rank], loader, "cpu", lambda _: None)
    seconds = time.perf_counter() - began
    print(json.dumps({"seconds": seconds, "read": stats.bytes_read}), flush=True)


def measure(folder: Path, way: str, flags: argparse.Namespace) -> dict[str, float]:
    """The slowest rank's seconds; bytes that the mount gave away."""
    with (
        tempfile.TemporaryDirectory() as scratch,
        slow_mount(folder, flags.latency_ms / 1e3, flags.bandwidth * 1e6) as mount,
    ):
        command = [sys.executable, __file__, str(mount.point), "--ranks", str(flags.ranks)]
        command += ["--way", way, "--meeting", str(Path(scratch) / "meeting"), "--rank"]
        started = [
            subprocess.Popen([*command, str(rank)], stdout=subprocess.PIPE, text=True)
            for rank in range(flags.ranks)
        ]
        said = [json.loads(one.communicate()[0].splitlines()[-1]) for one in started]
    assert mount.counts is not None
    return {
        "seconds": max(one["seconds"] for one in said),
        "read_by_ranks": sum(one["read"] for one in said),
        "from_storage": mount.counts.num_bytes,
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--ranks", type=int, default=2)
    parser.add_argument("--gb", type=float, default=0.6)
    parser.add_argument("--latency-ms", type=float, default=5)
    parser.add_argument("--bandwidth", type=float, default=200, metavar="MB_PER_S")
    parser.add_argument("--repeats", type=int, default=2)
    parser.add_argument("--json", type=Path)
    for name in ("--way", "--meeting", "--rank"):
        parser.add_argument(name, help=argparse.SUPPRESS)
    flags = parser.parse_args()
    if flags.rank is not None:
        rank_main(int(flags.rank), flags.ranks, flags.folder, flags.way, Path(flags.meeting))
        return 0
    if reason := why_not():
        sys.exit(f"nothing can be mounted: {reason}")
    if not (flags.folder / "config.json").is_file():
        write_model(flags.folder, shape_of(flags.gb))
    size = sum(one.stat().st_size for one in flags.folder.glob("*.safetensors"))
    limit_s = SlowLink(flags.latency_ms / 1e3, flags.bandwidth * 1e6).limit_s(size)
    found: dict[str, Any] = {"bytes": size, "limit_seconds": limit_s, "ranks": flags.ranks}
    for way in WAYS:
        runs = [measure(flags.folder, way, flags) for _ in range(flags.repeats)]
        best = min(runs, key=lambda run: run["seconds"])
        found[way] = best | {"of_limit": limit_s / best["seconds"]}
        print(way, " ".join(f"{key} {value:.4g}" for key, value in found[way].items()), flush=True)
    if flags.json is not None:
        flags.json.write_text(json.dumps(found, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
