"""Times GPU work as a step runs it: recorded in a CUDA graph and replayed."""

from __future__ import annotations

from collections.abc import Callable
from statistics import median

import torch

_COPIED_BYTES = 2 << 30


def recorded(work: Callable[[], object]) -> torch.cuda.CUDAGraph:
    """`work` in a graph, after a run that compiles what is missing."""
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        work()
    torch.cuda.current_stream().wait_stream(stream)
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        work()
    return graph


def milliseconds(work: Callable[[], object], repeats: int = 15, warm: int = 3) -> float:
    """Median time of one run."""
    for _ in range(warm):
        work()
    times = []
    for _ in range(repeats):
        began, ended = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        began.record()
        work()
        ended.record()
        ended.synchronize()
        times.append(began.elapsed_time(ended))
    return median(times)


def copy_bandwidth() -> float:
    """Bytes a second of this card's own copies, read and written bytes counted.

    Not from a graph: there the same copy, as a node, ran at two thirds of the rate on an H200.
    """
    source = torch.empty(_COPIED_BYTES, dtype=torch.uint8, device="cuda").fill_(1)
    target = torch.empty_like(source)
    return 2 * _COPIED_BYTES / milliseconds(lambda: target.copy_(source)) * 1e3
