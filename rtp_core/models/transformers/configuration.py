"""config.json as a transformers configuration, after what can be refused by reading it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from types import ModuleType
from typing import TYPE_CHECKING, Any

from rtp_core.models.transformers.library import refusal

if TYPE_CHECKING:
    from transformers import PretrainedConfig

_ATTENTION_LAYERS = frozenset({"full_attention", "sliding_attention"})
_CODE_KEYS = frozenset(
    {
        "_attn_implementation",
        "_experts_implementation",
        "attn_implementation",
        "auto_map",
        "experts_implementation",
        "fusion_config",
    }
)
"""Keys that choose code to run; a checkpoint has no say in that."""
_ALIBI = frozenset({"bloom"})
"""Model types that always add ALiBi; others say so in a key."""


def read_configuration(
    library: ModuleType, settings: Mapping[str, Any], architecture: str
) -> PretrainedConfig:
    """The configuration object; code beside a checkpoint is never run.

    Raises ModelError with the reason when the architecture cannot be served.
    """
    kind = settings.get("model_type")
    if kind not in library.CONFIG_MAPPING:
        raise _unknown(library, settings, architecture)
    values = {key: value for key, value in settings.items() if key not in _CODE_KEYS}
    from huggingface_hub.errors import StrictDataclassError

    try:
        config = library.CONFIG_MAPPING[kind].from_dict(values)
        reason = next(_reasons(config), None)
    except (AttributeError, LookupError, StrictDataclassError, TypeError, ValueError) as error:
        raise refusal(architecture, f"config.json is not valid: {error}", "mend it") from error
    if reason is not None:
        raise refusal(architecture, reason)
    return config


def causal_class(library: ModuleType, config: PretrainedConfig, architecture: str) -> type:
    """The model's class, which must be the one that config.json names."""
    found = library.MODEL_FOR_CAUSAL_LM_MAPPING.get(type(config), None)
    classes = found if isinstance(found, tuple) else (found,)
    for one in classes:
        if one is not None and one.__name__ == architecture:
            if getattr(one, "_is_stateful", False):
                raise refusal(
                    architecture,
                    "it keeps a recurrent state (state-space, linear or hybrid attention layers), "
                    "which paged keys and values cannot hold",
                )
            return one
    raise refusal(architecture, "it is no causal language model in transformers")


def longest_context(config: PretrainedConfig) -> int:
    """Positions for which one set of rotary frequencies holds.

    ``longrope`` changes its frequencies once a text passes the original length, so that keys
    in the cache would disagree; the model is served up to there.
    """
    text = config.get_text_config()
    longest = getattr(text, "max_position_embeddings", None) or 2048
    for rope in _ropes(text):
        original = rope.get("original_max_position_embeddings")
        if rope.get("rope_type") == "longrope" and original:
            longest = min(longest, int(original))
    return int(longest)


def _ropes(config: PretrainedConfig) -> Iterator[Mapping[str, Any]]:
    """Rotary parameters of the model, or of each kind of its layers."""
    ropes = getattr(config, "rope_parameters", None) or {}
    yield ropes
    yield from (one for one in ropes.values() if isinstance(one, Mapping))


def _unknown(library: ModuleType, settings: Mapping[str, Any], architecture: str) -> Exception:
    if settings.get("auto_map"):
        return refusal(architecture, "its code comes with the checkpoint and is never run")
    return refusal(
        architecture,
        f"transformers {library.__version__} does not know the model_type "
        f"{settings.get('model_type')!r} of config.json",
        "pip install --upgrade transformers, if it is newer",
    )


def _reasons(config: PretrainedConfig) -> Iterator[str]:
    """Why the model would be served wrongly."""
    if getattr(config, "is_encoder_decoder", False):
        yield "it is an encoder-decoder, which attends to a second sequence"
        return
    text = config.get_text_config()
    if getattr(text, "add_cross_attention", False):
        yield "it attends to a second sequence (add_cross_attention)"
    if text.model_type in _ALIBI or _says_alibi(text):
        yield "it adds ALiBi, a bias that grows with distance, to attention scores"
    foreign = sorted(set(getattr(text, "layer_types", None) or ()) - _ATTENTION_LAYERS)
    if foreign:
        yield (
            f"it has layers of the kind {', '.join(foreign)}; only full and sliding attention "
            "can be served"
        )


def _says_alibi(config: PretrainedConfig) -> bool:
    nested = getattr(config, "attn_config", None)
    return bool(getattr(config, "alibi", False) or getattr(nested, "alibi", False))
