"""Offers of this room."""

from __future__ import annotations

from typing import Any

from rtp_core.api import BuildContext, Offer, Role, WeightLoader, hookimpl

DUMMY = "dummy"
"""The loader that reads no file."""


@hookimpl
def rtp_weight_loaders() -> tuple[Offer, ...]:
    """``auto`` measures the storage and takes ``mmap`` or ``file_order``."""
    return (
        Offer(Role.LOADER, "auto", _auto),
        Offer(Role.LOADER, "mmap", _mmap),
        Offer(Role.LOADER, "file_order", _file_order),
        Offer(Role.LOADER, DUMMY, _dummy),
    )


def _auto(context: BuildContext, options: Any) -> WeightLoader:
    del options
    from rtp_core.loading.auto import AutoLoader

    return AutoLoader(device=context.device, stall_s=context.stall_timeout_s)


def _mmap(context: BuildContext, options: Any) -> WeightLoader:
    del context, options
    from rtp_core.loading.mmap_loader import MmapLoader

    return MmapLoader()


def _file_order(context: BuildContext, options: Any) -> WeightLoader:
    del options
    from rtp_core.loading.streamed import StreamingLoader

    return StreamingLoader(context.device, context.stall_timeout_s)


def _dummy(context: BuildContext, options: Any) -> WeightLoader:
    del context, options
    from rtp_core.loading.dummy import DummyLoader

    return DummyLoader()
