"""What a head is, from its configuration: three layouts, one description.

EAGLE-3 as its authors (SafeAILab) and SpecForge write it: a LlamaConfig with
`draft_vocab_size`. As the speculators library writes it: `speculators_model_type` and the
layer's shape in `transformer_layer_config`. EAGLE-1 and 2, which share their weights' layout: a
LlamaConfig without `draft_vocab_size` beside an `fc` of two inputs.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from rtp_core.api import RopeSpec, StoredTensors
from rtp_core.errors import ModelError
from rtp_spec_eagle.names import Names

DEFAULT_THETA = 10000.0


@dataclass(frozen=True, slots=True)
class Description:
    """Shape of a head. `capture_layers` are empty for EAGLE-1, which reads the final state.

    `norm_before_residual`: the residual is the normalised state; `norm_before_fc` and `fc_norm`:
    captured states are normalised together, or each, before they are fused; `norm_output`:
    drafting goes on from the normalised output. `draft_vocab_size` None: the model's own.
    """

    version: int
    hidden_size: int
    target_hidden_size: int
    num_heads: int
    num_kv_heads: int
    head_dim: int
    intermediate_size: int
    vocab_size: int
    draft_vocab_size: int | None
    norm_eps: float
    rope: RopeSpec
    capture_layers: tuple[int, ...]
    norm_before_residual: bool = False
    norm_before_fc: bool = False
    fc_norm: bool = False
    norm_output: bool = False
    fingerprint: str | None = None


class _Config:
    """Reads configuration keys of any layout, and says what is wrong with one."""

    def __init__(self, files: StoredTensors) -> None:
        self.name = files.name
        self.top = files.config
        layer = files.config.get("transformer_layer_config")
        self.layer: Mapping[str, Any] = layer if isinstance(layer, Mapping) else files.config

    def number(self, key: str, default: int | None = None) -> int:
        value = self.layer.get(key, self.top.get(key))
        value = default if value is None else value
        if not isinstance(value, int) or isinstance(value, bool) or value < 1:
            raise self.wrong(key, value, "a whole number above 0")
        return value

    def real(self, key: str, default: float) -> float:
        value = self.layer.get(key, default)
        if not isinstance(value, int | float) or isinstance(value, bool) or value <= 0:
            raise self.wrong(key, value, "a number above 0")
        return float(value)

    def flag(self, *keys: str) -> bool:
        return any(bool(self.top.get(key, False)) for key in keys)

    def wrong(self, key: str, found: object, wanted: str) -> ModelError:
        return ModelError(
            f"{self.name}/config.json: {key} is {found!r}, expected {wanted}",
            remedy="use a head whose configuration is whole",
        )


def describe(files: StoredTensors, num_layers: int, layer_ids: str = "auto") -> Description:
    """Raises ModelError naming the key or tensor that is not as it should be.

    `num_layers` of the model; `layer_ids` as the plugin's option.
    """
    config, names = _Config(files), Names(files.tensors)
    fc = files.shape("fc.weight")
    if fc is None or len(fc) != 2:
        raise ModelError(
            f"{files.name} has no tensor fc.weight", remedy="this is no EAGLE head; use another one"
        )
    _check_layer(config)
    hidden = config.number("hidden_size")
    heads = config.number("num_attention_heads")
    head_dim = config.number("head_dim", hidden // heads)
    target = config.number("target_hidden_size", hidden)
    three = names.version == 3
    return Description(
        version=names.version,
        hidden_size=hidden,
        target_hidden_size=target,
        num_heads=heads,
        num_kv_heads=config.number("num_key_value_heads", heads),
        head_dim=head_dim,
        intermediate_size=config.number("intermediate_size"),
        vocab_size=config.number("vocab_size"),
        draft_vocab_size=_draft_vocabulary(files, config),
        norm_eps=config.real("rms_norm_eps", 1e-6),
        rope=_rope(config, head_dim),
        capture_layers=_layers(config, num_layers, layer_ids) if three else (),
        norm_before_residual=config.flag("norm_before_residual"),
        norm_before_fc="input_norm.weight" in files.tensors,
        fc_norm=names.has_fc_norm,
        norm_output=config.flag("norm_output"),
        fingerprint=_fingerprint(config),
    )


def _check_layer(config: _Config) -> None:
    """One layer with a silu gate is what there is."""
    if config.number("num_hidden_layers", 1) != 1:
        raise config.wrong("num_hidden_layers", config.number("num_hidden_layers"), "1")
    activation = config.layer.get("hidden_act", "silu")
    if activation != "silu":
        raise config.wrong("hidden_act", activation, "silu")


def _fingerprint(config: _Config) -> str | None:
    found = config.top.get("target_fingerprint")
    if found is not None and not isinstance(found, str):
        raise config.wrong("target_fingerprint", found, "a text")
    return found


def _draft_vocabulary(files: StoredTensors, config: _Config) -> int | None:
    """None where draft ids are the model's ids."""
    if config.top.get("draft_vocab_size") is None and "d2t" not in files.tensors:
        return None
    size, vocab = config.number("draft_vocab_size"), config.number("vocab_size")
    return None if size == vocab and "d2t" not in files.tensors else size


def _rope(config: _Config, head_dim: int) -> RopeSpec:
    """The head's own base, whatever the model's: 10000 unless it says otherwise."""
    nested = config.layer.get("rope_parameters") or config.layer.get("rope_scaling") or {}
    kind = nested.get("rope_type", nested.get("type", "default"))
    if kind not in ("default", "llama3", "linear"):
        raise config.wrong("rope_scaling", kind, "default, linear or llama3")
    theta = nested.get("rope_theta", config.layer.get("rope_theta", DEFAULT_THETA))
    if not isinstance(theta, int | float) or theta <= 0:
        raise config.wrong("rope_theta", theta, "a number above 0")
    if kind == "default":
        return RopeSpec(float(theta), head_dim)
    stretched = {key: nested[key] for key in _STRETCH & nested.keys()}
    original = nested.get("original_max_position_embeddings", 0)
    return RopeSpec(float(theta), head_dim, kind, original_max_position=original, **stretched)


_STRETCH = {"factor", "low_freq_factor", "high_freq_factor"}


def _layers(config: _Config, num_layers: int, convention: str) -> tuple[int, ...]:
    """Layers whose entering states are fused.

    A list in `eagle_config` names layers whose *output* is meant (SGLang, SpecForge), one of
    the speculators library those whose input is: the same states, ids one apart.
    """
    inner = config.top.get("eagle_config")
    inner = inner if isinstance(inner, Mapping) else {}
    key = "eagle_aux_hidden_state_layer_ids"
    found = inner.get(key)
    leaving = found is not None
    if found is None:
        found = config.top.get(key)
    if found is None:
        return _usual(num_layers)
    if convention != "auto":
        leaving = convention == "leaving"
    if not isinstance(found, list) or not found or not all(type(one) is int for one in found):
        raise config.wrong(key, found, "a list of whole numbers")
    layers = tuple(one + leaving for one in found)
    if not all(0 <= one < num_layers for one in layers):
        raise config.wrong(
            key, found, f"layers of a model that has {num_layers}: the head was made for another"
        )
    return layers


def _usual(num_layers: int) -> tuple[int, ...]:
    """A low, a middle and a high layer, as EAGLE-3's authors choose them."""
    if num_layers < 6:
        raise ModelError(
            f"the model has {num_layers} layers, EAGLE-3 reads three of at least 6",
            remedy="use a head whose configuration lists its layers",
        )
    return 2, num_layers // 2, num_layers - 3
