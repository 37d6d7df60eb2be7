"""The hooks that exist, and which roles each may offer."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from rtp_core.api import Role

OPTIONS_HOOK = "rtp_plugin_options"

ROLES_OF: Mapping[str, frozenset[Role]] = {
    "rtp_weight_loaders": frozenset({Role.LOADER}),
    "rtp_models": frozenset({Role.MODEL}),
    "rtp_attention_backends": frozenset({Role.ATTENTION}),
    "rtp_scheduling_policies": frozenset({Role.SCHEDULER}),
    "rtp_kv_stores": frozenset({Role.KV_STORE, Role.KV_TIER, Role.KV_FORMAT}),
    "rtp_speculators": frozenset({Role.SPECULATOR}),
    "rtp_modality_encoders": frozenset({Role.ENCODER}),
    "rtp_disaggregation": frozenset({Role.TRANSPORT, Role.ROUTER, Role.SERVE_ROLE}),
    "rtp_commands": frozenset({Role.COMMAND}),
    "rtp_routes": frozenset({Role.ROUTES}),
    "rtp_answer_parsers": frozenset({Role.TOOL_PARSER, Role.REASONING_PARSER}),
    "rtp_draft_trainers": frozenset({Role.DRAFT_TRAINER}),
}
"""Offer hooks in the order they are asked."""

HOOKS = (OPTIONS_HOOK, *ROLES_OF)

Implementations = Callable[[str], list[Callable[[], Any]]]
"""One plugin's implementations of a hook, by the hook's name."""
