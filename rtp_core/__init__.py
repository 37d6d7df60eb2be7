"""rtp: a plugin engine for LLM inference. Importing this package loads no torch."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

__version__ = "0.1.0"

__all__ = [
    "LLM",
    "AsyncLLM",
    "EngineConfig",
    "SamplingParams",
    "StructuredOutput",
    "__version__",
    "hookimpl",
]

if TYPE_CHECKING:
    from rtp_core.api import SamplingParams as SamplingParams
    from rtp_core.api import StructuredOutput as StructuredOutput
    from rtp_core.api import hookimpl as hookimpl
    from rtp_core.config.schema import EngineConfig as EngineConfig
    from rtp_core.engine.async_llm import AsyncLLM as AsyncLLM
    from rtp_core.engine.llm import LLM as LLM
else:
    _HOMES = {
        "LLM": "rtp_core.engine.llm",
        "AsyncLLM": "rtp_core.engine.async_llm",
        "SamplingParams": "rtp_core.api",
        "StructuredOutput": "rtp_core.api",
        "hookimpl": "rtp_core.api",
        "EngineConfig": "rtp_core.config.schema",
    }

    def __getattr__(name: str) -> object:
        if name not in _HOMES:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        value = getattr(import_module(_HOMES[name]), name)
        globals()[name] = value
        return value
