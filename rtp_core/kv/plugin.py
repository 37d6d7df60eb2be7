"""Offers of this room."""

from __future__ import annotations

from typing import Any

from rtp_core.api import BuildContext, KVStore, Offer, Role, hookimpl


@hookimpl
def rtp_kv_stores() -> tuple[Offer, ...]:
    """The dense store."""
    return (Offer(Role.KV_STORE, "dense", _dense),)


def _dense(context: BuildContext, options: Any) -> KVStore:
    del context, options
    from rtp_core.kv.dense_store import DenseStore

    return DenseStore()
