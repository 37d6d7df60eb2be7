"""What goes wrong on one rank is told to all before they go on, and raised by all."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeVar

import torch

from rtp_core.errors import WeightLoadError
from rtp_core.loading.group.ranks import Ranks

T = TypeVar("T")


class Talk:
    """This rank's side of it. Between two calls of `agree` a rank does not leave the others."""

    def __init__(self, ranks: Ranks) -> None:
        self.ranks = ranks
        self._failed: Exception | None = None

    def attempt(self, work: Callable[[], None]) -> None:
        """Work of this rank alone; nothing more is done once some has failed."""
        if self._failed is None:
            try:
                work()
            except Exception as error:  # noqa: BLE001 - it is raised once all ranks know
                self._failed = error

    def agree(self) -> None:
        """Raises this rank's error, or WeightLoadError for that of another."""
        if not _together(lambda: self.ranks.any(self._failed is not None)):
            return
        mine = "" if self._failed is None else str(self._failed) or repr(self._failed)
        said = _together(lambda: self.ranks.texts(mine))
        if self._failed is not None:
            raise self._failed
        rank, text = next((rank, text) for rank, text in enumerate(said) if text)
        raise WeightLoadError(f"rank {rank} could not load: {text}")

    def same(self, fingerprint: str, folder: str) -> None:
        """All ranks must have planned the same; WeightLoadError on all of them if not."""
        found = _together(lambda: self.ranks.texts(fingerprint))
        if len(set(found)) > 1:
            first = found[0]
            other = next(rank for rank, one in enumerate(found) if one != first)
            raise WeightLoadError(
                f"rank {other} sees other files or plans other weights than rank 0",
                file=folder,
                remedy="give all ranks the same model and configuration",
            )

    def exchange(
        self,
        out: torch.Tensor,
        out_sizes: Sequence[int],
        into: torch.Tensor,
        into_sizes: Sequence[int],
    ) -> Callable[[], None]:
        """`Ranks.exchange`; it and the wait for it raise WeightLoadError when a rank is lost."""
        wait = _together(lambda: self.ranks.exchange(out, out_sizes, into, into_sizes))
        return lambda: _together(wait)


def _together(call: Callable[[], T]) -> T:
    try:
        return call()
    except RuntimeError as error:
        raise WeightLoadError(
            f"another rank was lost while weights were loaded: {error}",
            remedy="see what it said last, and start all ranks again",
        ) from error
