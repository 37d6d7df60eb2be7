"""`rtp convert`: a model's parameters as this engine would hold them, written to a directory."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from rtp_core.api import Role
from rtp_core.config.schema import EngineConfig
from rtp_core.engine.assemble import write_tokenizer_files
from rtp_core.engine.prepare import Prepared, prepare
from rtp_core.errors import ModelError
from rtp_core.loading.codes import round_to_codes
from rtp_core.loading.converted.directory import Target, check_target, written
from rtp_core.loading.converted.form import VERSION, Conversion
from rtp_core.loading.converted.ranks import check_split, rank_parameters
from rtp_core.loading.converted.texts import write_texts
from rtp_core.loading.converted.write import Parameters, num_file_bytes, write_ranks
from rtp_core.loading.load import load_weights
from rtp_core.loading.objects.address import without_query

Progress = Callable[[int, int], None]
"""Called with (bytes done, bytes in all): first read, then written."""


def convert(config: EngineConfig, target: Target, progress: Progress) -> Path:
    """`target.out`, whole. `config.model` says which model, dtype and form of weights; its
    device is the CPU.

    The whole model is in memory meanwhile. Raises ConfigError, ModelError or WeightLoadError.
    """
    prepared = prepare(config)
    check_target(target, prepared.checkpoint.root)
    _refuse_what_is_not_converted(prepared)
    table, codes = prepared.family.weights(prepared.spec), prepared.weights.keep_codes
    check_split(table, prepared.spec, target.tensor_parallel_size, with_codes=codes)
    halves, size = _Halves(prepared.plan.num_bytes, progress), target.tensor_parallel_size
    parameters = _load(prepared, halves.of(prepared.plan.num_bytes))
    ranks = [rank_parameters(table, prepared.spec, parameters, rank, size) for rank in range(size)]
    num_bytes = num_file_bytes(ranks)
    with written(target.out, num_bytes) as folder:
        write_ranks(folder, _conversion(prepared, size), ranks, halves.of(num_bytes))
        write_texts(prepared.checkpoint, write_tokenizer_files(prepared), folder)
    return target.out


def _conversion(prepared: Prepared, size: int) -> Conversion:
    model, checkpoint = prepared.config.model, prepared.checkpoint
    return Conversion(
        VERSION,
        checkpoint.content_id,
        without_query(model.path),
        prepared.spec.dtype,
        model.cpu_weights,
        size,
        {},
    )


def _refuse_what_is_not_converted(prepared: Prepared) -> None:
    root = prepared.checkpoint.root
    if prepared.checkpoint.conversion is not None:
        raise ModelError(f"{root} is converted already", remedy="pass the original model")
    if prepared.resolution.names(Role.MODEL) == ("transformers",):
        raise ModelError(
            f"{prepared.spec.architecture} runs through transformers, which arranges its weights "
            "itself",
            remedy="serve the model as it is",
        )


def _load(prepared: Prepared, advance: Callable[[int], None]) -> Parameters:
    plan, form = prepared.plan, prepared.weights
    loader = prepared.host.build(Role.LOADER, prepared.config.loading.loader, prepared.context)
    parameters, _ = load_weights(plan, loader, "cpu", advance, keep_codes=form.keep_codes)
    return round_to_codes(parameters, plan, form.bits) if form.bits else parameters


class _Halves:
    """Reading and writing as halves of one progress, in bytes of the model."""

    def __init__(self, half: int, progress: Progress) -> None:
        self._half = half
        self._progress = progress
        self._begun = -1

    def of(self, num_bytes: int) -> Callable[[int], None]:
        """What the next half is told; it has so many bytes."""
        self._begun += 1
        begun, done = self._begun, 0

        def advance(more: int) -> None:
            nonlocal done
            done += more
            share = min(1.0, done / max(1, num_bytes))
            self._progress(int(self._half * (begun + share)), 2 * self._half)

        return advance
