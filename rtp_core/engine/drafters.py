"""Drafters at set-up: built, their needs counted, given what they need."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import partial
from typing import cast

import torch

from rtp_core.api import (
    AttentionBackend,
    BoundAttention,
    BuildContext,
    CausalModel,
    DraftableModel,
    DraftParts,
    KVGroup,
    KVMemory,
    ModelSpec,
    Role,
    Speculator,
)
from rtp_core.errors import PluginError
from rtp_core.execution.model_runner import Capture
from rtp_core.plugins.host import PluginHost
from rtp_core.speculation.state_drafter import StateDrafter


@dataclass(frozen=True, slots=True)
class Drafters:
    """In order of configuration. `groups` are those of all, numbered behind the model's.

    `owners` are (plugin, version) by name.
    """

    named: tuple[tuple[str, Speculator], ...] = ()
    groups: tuple[KVGroup, ...] = ()

    @property
    def memory_bytes(self) -> int:
        """Device memory outside the cache."""
        return sum(one.needs.memory_bytes for _, one in self.named)

    @property
    def capture(self) -> Capture | None:
        """States to be kept of a step; None for none."""
        needs = [one.needs for _, one in self.named if one.needs.states]
        layers = sorted({layer for one in needs for layer in one.capture_layers})
        final = any(one.wants_final_hidden for one in needs)
        return Capture(tuple(layers), final) if needs else None


def build_drafters(
    host: PluginHost, names: tuple[str, ...], context: BuildContext, model: ModelSpec
) -> Drafters:
    """Raises PluginError for needs that cannot be met, and what the plugin itself refuses."""
    named: list[tuple[str, Speculator]] = []
    groups: list[KVGroup] = []
    for name in names:
        speculator: Speculator = host.build(Role.SPECULATOR, name, context)
        if speculator.needs.states:
            reason = _unmet(speculator, context, model)
            if reason is not None:
                owner = host.owner(f"{Role.SPECULATOR.value}:{name}")
                remedy = "take it out of speculation.methods"
                raise PluginError(*owner, f"speculator {name!r} {reason}", remedy=remedy)
            first = len(model.kv_groups) + len(groups)
            groups.extend(_numbered(speculator, model.num_layers + _count(groups)))
            speculator = StateDrafter(speculator, first)
        named.append((name, speculator))
    return Drafters(tuple(named), tuple(groups))


def bind_drafters(
    drafters: Drafters,
    model: CausalModel,
    backend: AttentionBackend,
    memory: KVMemory,
    spec: ModelSpec,
    block_size: int,
) -> None:
    """Give drafters that read states the model's parts, attention and memory."""
    group, layer = len(spec.kv_groups), spec.num_layers
    for _, drafter in drafters.named:
        if not isinstance(drafter, StateDrafter) or not isinstance(model, DraftableModel):
            continue
        own = drafter.needs.kv_groups
        view = cast("KVMemory", _OwnLayers(memory, layer))
        bind = partial(_bind, backend, view, block_size)
        states = tuple(memory.states(group + number) for number in range(len(own)))
        drafter.bind(DraftParts(model, bind, states))
        group, layer = group + len(own), layer + _count(own)


def _bind(
    backend: AttentionBackend, memory: KVMemory, block_size: int, spec: ModelSpec
) -> BoundAttention:
    return backend.bind(spec, memory, block_size)


def _count(groups: tuple[KVGroup, ...] | list[KVGroup]) -> int:
    return sum(len(group.layers) for group in groups)


def _numbered(speculator: Speculator, first_layer: int) -> Iterator[KVGroup]:
    for group in speculator.needs.kv_groups:
        layers = tuple(first_layer + layer for layer in group.layers)
        yield replace(group, layers=layers)


def _unmet(speculator: Speculator, context: BuildContext, model: ModelSpec) -> str | None:
    """What a drafter that reads states asks for in vain."""
    needs = speculator.needs
    try:
        StateDrafter(speculator, 0)
    except TypeError as error:
        return f"asks for hidden states, but {error}"
    if context.device != "cpu":
        return f"reads hidden states, which this engine hands out on the CPU, not {context.device}"
    wrong = [layer for layer in needs.capture_layers if not 0 <= layer < model.num_layers]
    if wrong:
        return f"asks for states entering layer {wrong[0]}, the model has {model.num_layers}"
    return None


class _OwnLayers:
    """What attention reads of `api.KVMemory`, a drafter's layers counted from 0."""

    def __init__(self, memory: KVMemory, first_layer: int) -> None:
        self._memory = memory
        self._first_layer = first_layer

    def planes(self, layer: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Of one of the drafter's layers."""
        return self._memory.planes(self._first_layer + layer)
