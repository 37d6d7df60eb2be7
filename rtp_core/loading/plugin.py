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
    from rtp_core.loading.objects.loader import SourceLoader

    stall_s = context.stall_timeout_s
    return SourceLoader(AutoLoader(device=context.device, stall_s=stall_s), stall_s)


def _mmap(context: BuildContext, options: Any) -> WeightLoader:
    del options
    from rtp_core.loading.mmap_loader import MmapLoader
    from rtp_core.loading.objects.loader import SourceLoader

    return SourceLoader(MmapLoader(), context.stall_timeout_s)


def _file_order(context: BuildContext, options: Any) -> WeightLoader:
    del options
    from rtp_core.loading.objects.loader import SourceLoader
    from rtp_core.loading.streamed import StreamingLoader

    stall_s = context.stall_timeout_s
    return SourceLoader(StreamingLoader(context.device, stall_s), stall_s)


def _dummy(context: BuildContext, options: Any) -> WeightLoader:
    del context, options
    from rtp_core.loading.dummy import DummyLoader

    return DummyLoader()
