"""Every hook. All are called once, at set-up, by `rtp_core.plugins.host`, with no argument.

An implementation returns a tuple of offers (empty if it has none), imports no torch at
module level, takes no default argument, and is never a wrapper. An exception stops the
start with the plugin's name and version.
"""

from __future__ import annotations

import pluggy

from rtp_core.api.offers import Offer

PROJECT = "rtp"
hookspec = pluggy.HookspecMarker(PROJECT)
hookimpl = pluggy.HookimplMarker(PROJECT)


@hookspec
def rtp_plugin_options() -> type | None:  # pyright: ignore[reportReturnType]
    """Frozen dataclass type for ``[plugins.<name>]``; an unknown key is an error."""


@hookspec
def rtp_weight_loaders() -> tuple[Offer, ...]:  # pyright: ignore[reportReturnType]
    """``loader:*`` building a WeightLoader."""


@hookspec
def rtp_models() -> tuple[Offer, ...]:  # pyright: ignore[reportReturnType]
    """``model:<HF architecture>`` building a ModelFamily."""


@hookspec
def rtp_attention_backends() -> tuple[Offer, ...]:  # pyright: ignore[reportReturnType]
    """``attention:*`` building an AttentionBackend."""


@hookspec
def rtp_scheduling_policies() -> tuple[Offer, ...]:  # pyright: ignore[reportReturnType]
    """``scheduler:*`` building a SchedulingPolicy."""


@hookspec
def rtp_kv_stores() -> tuple[Offer, ...]:  # pyright: ignore[reportReturnType]
    """``kv_store:*``, ``kv_tier:*``, ``kv_format:*``."""


@hookspec
def rtp_speculators() -> tuple[Offer, ...]:  # pyright: ignore[reportReturnType]
    """``speculator:*`` building a Speculator."""


@hookspec
def rtp_modality_encoders() -> tuple[Offer, ...]:  # pyright: ignore[reportReturnType]
    """``encoder:*`` building a (MediaPlanner, ModalityEncoder) pair."""


@hookspec
def rtp_disaggregation() -> tuple[Offer, ...]:  # pyright: ignore[reportReturnType]
    """``transport:*``, ``router:*``, ``role:*``."""


@hookspec
def rtp_commands() -> tuple[Offer, ...]:  # pyright: ignore[reportReturnType]
    """``command:*`` building a callable ``(argv) -> exit status``."""


@hookspec
def rtp_routes() -> tuple[Offer, ...]:  # pyright: ignore[reportReturnType]
    """``routes:*`` building an ASGI application mounted under its name."""


@hookspec
def rtp_answer_parsers() -> tuple[Offer, ...]:  # pyright: ignore[reportReturnType]
    """``tool_parser:*`` building a ToolFormat, ``reasoning_parser:*`` a ReasoningFormat."""


@hookspec
def rtp_draft_trainers() -> tuple[Offer, ...]:  # pyright: ignore[reportReturnType]
    """``draft_trainer:*`` building a DraftMethod for ``rtp train-draft``."""
