"""The engine that writes the texts, and the memory it gives back."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager

import torch

from rtp_core.config.schema import EngineConfig
from rtp_core.engine.assemble import build_engine
from rtp_core.engine.prepare import Prepared
from rtp_core.training.data import OpenWriter

_WAITING = 2
"""Jobs with the engine for each that it runs: one that ends is followed at once."""


@contextmanager
def open_writer(config: EngineConfig, prepared: Prepared) -> Iterator[OpenWriter]:
    """An engine of its own; nothing of it is left afterwards."""
    engine = build_engine(config)
    try:
        yield OpenWriter(engine, _WAITING * prepared.context.limits.max_num_seqs)
    finally:
        engine.close()
        del engine
        gc.collect()
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
