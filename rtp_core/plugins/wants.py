"""Which offers a configuration asks for."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import fields
from typing import Any

from rtp_core.api import Role
from rtp_core.config.schema import EngineConfig
from rtp_core.plugins.resolve import Want


def wants(config: EngineConfig, architecture: str, device: str) -> tuple[Want, ...]:
    """One want a role, or one a name for roles that take several, in the order of use.

    `architecture` is the model's Hugging Face class name; `device` a torch device type.
    """
    loader, *others = configured(config)
    return (loader, _attention(config, device), _model(architecture), *others)


def configured(config: EngineConfig) -> tuple[Want, ...]:
    """The wants that depend neither on the model nor on the device; the loader is the first."""
    return (
        _one(config, Role.LOADER, "loading.loader"),
        _one(config, Role.SCHEDULER, "scheduling.policy"),
        _one(config, Role.KV_STORE, "kv.store"),
        *_many(config, Role.KV_TIER, "kv.tiers"),
        *_many(config, Role.SPECULATOR, "speculation.methods"),
        *_many(config, Role.ENCODER, "modality.encoders"),
        *_disaggregation(config),
    )


def why(config: EngineConfig, field: str) -> str:
    """``default`` or ``configured: <field>``."""
    value, default = _value(config, field)
    return "default" if value == default else f"configured: {field}"


def _one(config: EngineConfig, role: Role, field: str) -> Want:
    value, _ = _value(config, field)
    return Want(f"{role.value}:{value}", field, why(config, field))


def _many(config: EngineConfig, role: Role, field: str) -> Iterator[Want]:
    names, _ = _value(config, field)
    for number, name in enumerate(names):
        yield Want(f"{role.value}:{name}", f"{field}[{number}]", why(config, field))


def _model(architecture: str) -> Want:
    """The architecture's own family, or transformers for all that have none."""
    role, field = Role.MODEL.value, "model.path"
    reason = f"no native family for {architecture}; transformers backend"
    return Want(
        f"{role}:{architecture}",
        field,
        "the model's architecture",
        otherwise=Want(f"{role}:transformers", field, reason),
    )


def _attention(config: EngineConfig, device: str) -> Want:
    if config.model.attention == "auto":
        name = "triton" if device == "cuda" else "torch"
        key = f"{Role.ATTENTION.value}:{name}"
        return Want(key, "model.attention", f"auto: {name} serves the device {device}")
    return _one(config, Role.ATTENTION, "model.attention")


def _disaggregation(config: EngineConfig) -> Iterator[Want]:
    if config.pd.role != "both":
        yield _one(config, Role.SERVE_ROLE, "pd.role")
        yield _one(config, Role.TRANSPORT, "pd.transport")


def _value(config: EngineConfig, field: str) -> tuple[Any, Any]:
    """(value, default) of a dotted setting."""
    section_name, _, key = field.partition(".")
    section = getattr(config, section_name)
    (default,) = (one.default for one in fields(section) if one.name == key)
    return getattr(section, key), default
