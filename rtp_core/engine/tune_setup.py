"""A model's shape on a device, for `rtp tune`: random weights, and texts that mean nothing.

Neither changes what a step takes.
"""

from __future__ import annotations

from dataclasses import replace
from typing import cast

import torch

from rtp_core.api import AttentionBackend, ParallelContext, Role
from rtp_core.engine.prepare import Prepared
from rtp_core.engine.runners import place
from rtp_core.engine.tune_slots import Slots
from rtp_core.engine.tune_steps import DeviceSteps, Texts
from rtp_core.errors import ConfigError
from rtp_core.execution.device.build import Placed, build_programs
from rtp_core.loading.dummy import DummyLoader
from rtp_core.loading.load import load_weights
from rtp_kernels.registry import resolver

_MEMORY_SHARE = 0.8
"""Of the memory that weights leave, for texts."""


def open_steps(prepared: Prepared, most_rows: int, length: int) -> DeviceSteps:
    """Steps of up to `most_rows` texts of `length` tokens.

    Raises ConfigError for texts that are too long, and where no recorded steps serve the model.
    """
    check_length(prepared, length)
    device, spec = prepared.context.device, prepared.spec
    loaded, _ = load_weights(prepared.plan, DummyLoader(), device, lambda _: None)
    parameters = cast("dict[str, torch.Tensor]", loaded)
    kernels = resolver(device, spec.dtype)
    placed = place(prepared, prepared.family.build(spec, parameters, ParallelContext(), kernels))
    if placed is None:
        raise ConfigError(
            "model",
            f"{spec.architecture} in {spec.dtype} runs no recorded steps whose kernels have forms",
            remedy="nothing needs tuning; use --dtype bfloat16 if it was float32",
        )
    (name,) = prepared.resolution.names(Role.ATTENTION)
    backend: AttentionBackend = prepared.host.build(Role.ATTENTION, name, prepared.context)
    prepared.host.seal()
    return steps_over(prepared, placed, backend, most_rows, length)


def steps_over(
    prepared: Prepared, placed: Placed, backend: AttentionBackend, most_rows: int, length: int
) -> DeviceSteps:
    """Steps of a model that is on a device."""
    limits = replace(placed.limits, max_num_seqs=most_rows, max_draft_tokens=0)
    groups, store, size = placed.spec.kv_groups, prepared.store, limits.block_size
    each = sum(store.block_bytes(group, size) for group in groups)
    num_blocks = max(1, min(most_rows * -(-length // size), _room(placed) // each))
    memory = store.open(groups, [num_blocks] * len(groups), size, placed.accelerator.device)
    bound = backend.bind(placed.spec, memory, size)
    programs = build_programs(replace(placed, limits=limits), bound, memory)
    texts = Texts(most_rows, length, num_blocks)
    return DeviceSteps(Slots.of(prepared), programs, placed.accelerator, texts)


def check_length(prepared: Prepared, length: int) -> None:
    """Raises ConfigError when texts are longer than the model's context."""
    if length > prepared.spec.max_model_len:
        raise ConfigError(
            "--context",
            f"{length} tokens are above the model's context of {prepared.spec.max_model_len}",
            remedy="lower it",
        )


def _room(placed: Placed) -> int:
    """Bytes for texts; no bound where programs of the host stand for a device's."""
    free = placed.accelerator.free_bytes()
    return int(free * _MEMORY_SHARE) if free else 2**40
