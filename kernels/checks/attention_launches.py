"""One way to launch each attention kernel on a device, also in a process that only compiles.

A launch compiles for its constants and for what the launcher knows of its integers, not for its
sizes: a small step with the same choice fills Triton's cache for a large one.
"""

from __future__ import annotations

import multiprocessing
import os
import time
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from checks.attention_steps import Step, make_step
from torch import Tensor

from rtp_kernels.paged_attention.choice import DecodeChoice, RaggedChoice
from rtp_kernels.paged_attention.decode import decode
from rtp_kernels.paged_attention.plan import Geometry
from rtp_kernels.paged_attention.ragged import ragged, store
from rtp_kernels.paged_attention.tables import Scratch


@dataclass(frozen=True)
class Build:
    """What a compilation depends on. `choice` of decode (new > 0) or of ragged (new 0)."""

    geometry: Geometry
    choice: DecodeChoice | RaggedChoice
    new: int = 0
    rotary: int | None = None
    norm: bool = True
    tree: bool = False
    writes: bool = False
    lse: bool = False


def scratch_of(geometry: Geometry, choice: DecodeChoice, rows: int, device: str) -> Scratch:
    """As large as this launch needs, poisoned."""
    programs = rows * geometry.num_kv_heads * choice.tiles
    made = Scratch.allocate(programs, choice.splits, choice.query_rows, choice.width, device)
    made.partial.fill_(torch.nan)
    made.stats.fill_(torch.nan)
    return made


def launch_decode(
    step: Step, choice: DecodeChoice, scratch: Scratch, lse: Tensor | None = None
) -> Tensor:
    """`decode` of a step, all rows of which have the same new tokens."""
    return decode(
        step.qkv, step.planes, step.tables, step.geometry, step.norms, step.new[0], scratch, lse,
        context=1, choice=choice,
    )  # fmt: skip


def launch_ragged(step: Step, choice: RaggedChoice, lse: Tensor | None = None) -> Tensor:
    """`store`, then `ragged`."""
    store(step.qkv, step.planes, step.tables, step.geometry, step.norms, step.max_new)
    return ragged(
        step.qkv, step.planes, step.tables, step.geometry, step.max_new, lse, choice=choice
    )


def compile_build(build: Build) -> str | None:
    """Launch it once on a small step; the error, if there is one."""
    try:
        new = build.new or 3
        step = make_step(
            build.geometry, [new + 20], [new], dtype=torch.bfloat16, device="cuda",
            rotary_dim=build.rotary, norm=torch.bfloat16 if build.norm else None,
            trees=build.tree, writes=[True] if build.writes else None,
        )  # fmt: skip
        lse = torch.empty(new, build.geometry.num_heads, device="cuda") if build.lse else None
        if isinstance(build.choice, DecodeChoice):
            launch_decode(
                step, build.choice, scratch_of(build.geometry, build.choice, 1, "cuda"), lse
            )
        else:
            launch_ragged(step, build.choice, lse)
        torch.cuda.synchronize()
    except Exception as error:  # noqa: BLE001 - a build that fails must not end the others
        return f"{build}: {error!r}"[:600]
    return None


def compile_builds(builds: Sequence[Build]) -> list[str]:
    """In parallel processes, which share Triton's cache on disk; the errors."""
    wanted = list(dict.fromkeys(builds))
    began = time.perf_counter()
    workers = max(1, min(14, (os.cpu_count() or 2) - 2, len(wanted)))
    with multiprocessing.get_context("spawn").Pool(workers) as pool:
        errors = [one for one in pool.imap_unordered(compile_build, wanted) if one]
    seconds = time.perf_counter() - began
    print(f"compiled {len(wanted)} launches in {seconds:.1f} s, {len(errors)} failed", flush=True)
    return errors
