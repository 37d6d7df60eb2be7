"""Whether what an offer built has the members its role's protocol asks for."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rtp_core.api import (
    AttentionBackend,
    DraftMethod,
    KVFormat,
    KVStore,
    KVTier,
    KVTransport,
    MediaPlanner,
    ModalityEncoder,
    ModelFamily,
    ReasoningFormat,
    Role,
    SchedulingPolicy,
    Speculator,
    ToolFormat,
    WeightLoader,
)

_PROTOCOLS: Mapping[Role, type] = {
    Role.LOADER: WeightLoader,
    Role.SCHEDULER: SchedulingPolicy,
    Role.KV_STORE: KVStore,
    Role.KV_TIER: KVTier,
    Role.KV_FORMAT: KVFormat,
    Role.SPECULATOR: Speculator,
    Role.TRANSPORT: KVTransport,
    Role.MODEL: ModelFamily,
    Role.ATTENTION: AttentionBackend,
    Role.TOOL_PARSER: ToolFormat,
    Role.REASONING_PARSER: ReasoningFormat,
    Role.DRAFT_TRAINER: DraftMethod,
}
_CALLED = frozenset({Role.COMMAND, Role.ROUTES})


def lacking_members(role: Role, built: Any) -> tuple[str, ...]:
    """Members that `built` lacks, so that the plugin is named now and not in a later step."""
    if role is Role.ENCODER:
        planner, encoder = built if isinstance(built, tuple) and len(built) == 2 else (None, None)
        return (*_lacking(MediaPlanner, planner), *_lacking(ModalityEncoder, encoder))
    if role in _CALLED:
        return () if callable(built) else ("__call__",)
    return _lacking(_PROTOCOLS.get(role, object), built)


def _lacking(protocol: type, built: Any) -> tuple[str, ...]:
    members = (name for name in vars(protocol) if not name.startswith("_"))
    return tuple(name for name in members if not hasattr(built, name))
