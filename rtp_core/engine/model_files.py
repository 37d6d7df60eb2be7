"""Where a model's files are, and how its weights come from them."""

from __future__ import annotations

from rtp_core.api import WeightPlan, WeightTable
from rtp_core.config.environment import cache_dir
from rtp_core.config.schema import EngineConfig
from rtp_core.engine.services import Stopwatch
from rtp_core.loading.checkpoint import Checkpoint, open_checkpoint
from rtp_core.loading.converted.read import check_conversion, plan_converted
from rtp_core.loading.demo import resolve_model
from rtp_core.loading.dummy import dummy_plan
from rtp_core.loading.objects.address import is_object_address
from rtp_core.loading.plan import plan_weights
from rtp_core.loading.plugin import DUMMY
from rtp_kernels.pack import why_not


def find_checkpoint(config: EngineConfig, watch: Stopwatch) -> Checkpoint:
    """Headers of the model's files; what is an id of the hub is downloaded, what an
    object store holds is read from there."""
    name = config.model.path
    if is_object_address(name):
        from rtp_core.loading.objects.fetch import object_model

        path = object_model(name, cache_dir(), config.loading.source_options)
    else:
        path = resolve_model(name, cache_dir(), config.model.revision)
    watch.lap("model")
    checkpoint = open_checkpoint(path, weights=config.loading.loader != DUMMY)
    watch.lap("headers")
    return checkpoint


def weight_plan(
    config: EngineConfig, table: WeightTable, checkpoint: Checkpoint, dtype: str, device: str
) -> WeightPlan:
    """From files; with random weights, from none."""
    if config.loading.loader == DUMMY:
        return dummy_plan(table)
    if checkpoint.conversion is None:
        return plan_weights(table, checkpoint)
    check_conversion(checkpoint.conversion, dtype, config.model.cpu_weights)
    readable = device == "cpu" and why_not() is None
    return plan_converted(table, checkpoint.tensors, with_codes=readable)
