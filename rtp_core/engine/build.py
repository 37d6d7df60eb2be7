"""Building the engine of a process of its own, as fast as its imports allow."""

from __future__ import annotations

import dataclasses
import gc
from collections.abc import Callable
from importlib import import_module

from rtp_core.config.schema import EngineConfig
from rtp_core.engine.contract import Engine, ModelInfo
from rtp_core.observe.timeline import process_started_s

Builder = Callable[[EngineConfig, Callable[[int, int], None]], Engine]


def build(builder: str, config: EngineConfig, progress: Callable[[int, int], None]) -> Engine:
    """What ``module:function`` makes of the configuration, without garbage collections.

    Imports make no garbage, but each pass would walk all they made. What is there at the end
    stays, so later passes need not walk it either.
    """
    module, _, function = builder.partition(":")
    gc.disable()
    try:
        make: Builder = getattr(import_module(module), function)
        return make(config, progress)
    finally:
        gc.freeze()
        gc.enable()


def started_info(engine: Engine) -> ModelInfo:
    """The model, with what came before the build in its start's timeline."""
    start = engine.info.start.after("imports", process_started_s())
    return dataclasses.replace(engine.info, start=start)
