"""Offers of this room."""

from __future__ import annotations

from typing import Any

from rtp_core.api import BuildContext, Offer, Role, WeightLoader, hookimpl


@hookimpl
def rtp_weight_loaders() -> tuple[Offer, ...]:
    """``auto`` measures the storage and takes one of the other two."""
    return (
        Offer(Role.LOADER, "auto", _auto),
        Offer(Role.LOADER, "mmap", _mmap),
        Offer(Role.LOADER, "file_order", _file_order),
    )


def _auto(context: BuildContext, options: Any) -> WeightLoader:
    del context, options
    from rtp_core.loading.auto import AutoLoader

    return AutoLoader()


def _mmap(context: BuildContext, options: Any) -> WeightLoader:
    del context, options
    from rtp_core.loading.mmap_loader import MmapLoader

    return MmapLoader()


def _file_order(context: BuildContext, options: Any) -> WeightLoader:
    del context, options
    from rtp_core.loading.file_order import FileOrderLoader

    return FileOrderLoader()
