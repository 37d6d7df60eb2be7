"""Which runner executes an engine's steps, and the memory it leaves for the cache."""

from __future__ import annotations

import logging

import torch

from rtp_core.api import (
    AttentionBackend,
    CausalModel,
    CheckedModel,
    EarlyFamily,
    KVMemory,
    QueueingModel,
)
from rtp_core.engine.budget import measured_budget
from rtp_core.engine.cores import usable_cores
from rtp_core.engine.device_memory import rehearse
from rtp_core.engine.prepare import Prepared
from rtp_core.engine.services import Stopwatch
from rtp_core.execution.device.accelerator import CudaAccelerator
from rtp_core.execution.device.build import Placed, build_runner
from rtp_core.execution.model_runner import ModelRunner
from rtp_core.execution.prompt_scores import PromptScores
from rtp_core.execution.step_runner import StepRunner
from rtp_core.sampling.sampler import Sampler
from rtp_core.text.structured.masks import GrammarMasks

log = logging.getLogger("rtp.engine")


def open_runner(
    prepared: Prepared,
    model: CausalModel,
    backend: AttentionBackend,
    eos: frozenset[int],
    masks: GrammarMasks,
    watch: Stopwatch,
) -> tuple[StepRunner, KVMemory]:
    """Memory for keys and values, and the runner over it.

    A model that was not built before its weights were read has its kernels compiled here.

    Raises CapacityError when a GPU has less memory than was expected before.
    """
    spec, limits, device = prepared.spec, prepared.context.limits, prepared.context.device
    placed = place(prepared, model)
    budget = prepared.budget
    if placed is not None:
        if not builds_early(prepared):
            rehearse(placed, backend, prepared.store, watch)
        budget = measured_budget(prepared.config, placed, backend, prepared.store)
        log.info("kv_budget bytes=%d blocks=%s", budget.num_bytes, budget.num_blocks)
    memory = prepared.store.open(prepared.kv_groups, budget.num_blocks, limits.block_size, device)
    bound = backend.bind(spec, memory, limits.block_size)
    if isinstance(model, CheckedModel):
        model.check(bound, limits.block_size)
    if placed is None:
        sampler = Sampler(spec.vocab_size, eos, grammars=masks)
        watch.lap("kv-pool")
        scores = PromptScores(spec.vocab_size)
        host = ModelRunner(model, bound, memory, sampler, device, scores)
        host.keep_states(prepared.drafters.capture)
        return host, memory
    runner, programs = build_runner(placed, bound, memory, eos, masks)
    watch.lap("kv-pool")
    if not prepared.config.model.enforce_eager:
        before = torch.cuda.mem_get_info()[0]
        with torch.inference_mode():
            programs.capture()
        watch.lap("capture", before - torch.cuda.mem_get_info()[0])
    return runner, memory


def rehearse_early(
    prepared: Prepared, model: CausalModel, backend: AttentionBackend, watch: Stopwatch
) -> None:
    """Compile and load a model's kernels; its weights need not be there."""
    placed = place(prepared, model)
    if placed is not None:
        rehearse(placed, backend, prepared.store, watch)


def builds_early(prepared: Prepared) -> bool:
    """Whether the model can be built, and its kernels tried, while its weights are read."""
    family = prepared.family
    early = isinstance(family, EarlyFamily) and family.builds_early
    return early and prepared.context.device != "cpu"


def place(prepared: Prepared, model: CausalModel) -> Placed | None:
    """What the device's runner needs; None if the host runs each step to its end.

    float32 is exact in torch's operations, and some models must hear from the device in a step.
    """
    spec, device = prepared.spec, prepared.context.device
    queues = isinstance(model, QueueingModel) and model.queues
    if device != "cuda" or spec.dtype == "float32" or not queues:
        return None
    accelerator = CudaAccelerator(device, usable_cores())
    return Placed(model, spec, prepared.context.limits, accelerator)
