"""Copy blocks in one launch over all layers; see `reference`.

Launches move their pairs at once, so a sequence of pairs is cut where a block that was touched
is touched again: the result is that of copying in order. A tensor int32 [n, 2] of pairs that do
not depend on one another is taken as it is, without a look at its values.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

from torch import Tensor

from rtp_kernels.gpu.blocks import move, on_device, pages_of

Pair = tuple[int, int]


def block_copy(plane: Tensor, pairs: Sequence[Pair] | Tensor, block_size: int) -> None:
    """`pairs` of (source, destination) block ids."""
    if not len(pairs):
        return
    pages = pages_of(plane, block_size)
    runs = [pairs] if isinstance(pairs, Tensor) else independent(pairs)
    for run in runs:
        ids = on_device(run, plane.device).t().contiguous()
        move(pages, pages, ids[0], ids[1])


def independent(pairs: Sequence[Pair]) -> Iterator[list[Pair]]:
    """Longest runs in which no block is a destination and anything else as well."""
    run: list[Pair] = []
    sources: set[int] = set()
    written: set[int] = set()
    for source, destination in pairs:
        if source in written or destination in written or destination in sources:
            yield run
            run, sources, written = [], set(), set()
        run.append((source, destination))
        sources.add(source)
        written.add(destination)
    if run:
        yield run


def bind(dtype: str) -> Callable[..., None]:
    """Same for every dtype."""
    del dtype
    return block_copy
