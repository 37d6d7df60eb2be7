"""Ranks and what they say to each other; every rank makes the same calls in the same order."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import timedelta
from typing import Protocol

import torch
import torch.distributed as dist


class Ranks(Protocol):
    """A group of processes. Its calls raise RuntimeError when a rank is lost, or late."""

    @property
    def rank(self) -> int:
        """This one."""
        ...

    @property
    def size(self) -> int:
        """How many there are."""
        ...

    def any(self, mine: bool) -> bool:
        """Whether it is true on some rank."""
        ...

    def texts(self, mine: str) -> Sequence[str]:
        """What each rank says, by rank."""
        ...

    def exchange(
        self,
        out: torch.Tensor,
        out_sizes: Sequence[int],
        into: torch.Tensor,
        into_sizes: Sequence[int],
    ) -> Callable[[], None]:
        """uint8: parts of `out` go to each rank, parts of `into` come from each; waits for it."""
        ...


class TorchRanks:
    """Over torch.distributed, in host memory (gloo)."""

    def __init__(self, timeout_s: float) -> None:
        """Of all processes of the default group; after `timeout_s` a call fails."""
        self._group = dist.new_group(backend="gloo", timeout=timedelta(seconds=timeout_s))
        self._rank = dist.get_rank()
        self._size = dist.get_world_size()

    @property
    def rank(self) -> int:
        """See Ranks."""
        return self._rank

    @property
    def size(self) -> int:
        """See Ranks."""
        return self._size

    def any(self, mine: bool) -> bool:
        """See Ranks."""
        found = torch.tensor([int(mine)])
        dist.all_reduce(found, dist.ReduceOp.MAX, group=self._group)
        return bool(found.item())

    def texts(self, mine: str) -> Sequence[str]:
        """See Ranks."""
        found: list[str] = [""] * self._size
        dist.all_gather_object(found, mine, group=self._group)
        return found

    def exchange(
        self,
        out: torch.Tensor,
        out_sizes: Sequence[int],
        into: torch.Tensor,
        into_sizes: Sequence[int],
    ) -> Callable[[], None]:
        """See Ranks."""
        work = dist.all_to_all_single(
            into, out, list(into_sizes), list(out_sizes), group=self._group, async_op=True
        )

        def wait() -> None:
            if work is not None:
                work.wait()

        return wait
