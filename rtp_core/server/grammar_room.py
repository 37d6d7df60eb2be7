"""Grammars of requests are compiled before admission, off the event loop and within a bound."""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Self

from rtp_core.api import StructuredOutput
from rtp_core.engine.contract import ModelInfo
from rtp_core.errors import RequestError
from rtp_core.observe.snapshot import EngineStats
from rtp_core.server.errors import unavailable
from rtp_core.text.structured.grammars import Grammars
from rtp_core.text.tokenizer import Tokenizer

COMPILE_S = 5.0
_THREADS = 2


class GrammarRoom:
    """Compiles what clients send, off the event loop, in a bounded number of threads."""

    def __init__(self, grammars: Grammars) -> None:
        self._grammars = grammars
        self._pool = ThreadPoolExecutor(_THREADS, thread_name_prefix="rtp-grammar")

    @classmethod
    def of_model(cls, tokenizer: Tokenizer, info: ModelInfo) -> Self:
        """Over this model's vocabulary."""
        return cls(Grammars(lambda: tokenizer, info.vocab_size, info.eos_token_ids))

    async def check(self, structured: StructuredOutput) -> None:
        """Raises RequestError: the grammar cannot be used, or took longer than COMPILE_S."""
        compiling = self._pool.submit(self._grammars.matcher, structured)
        try:
            await asyncio.wait_for(asyncio.wrap_future(compiling), COMPILE_S)
        except TimeoutError:
            if not compiling.running():
                raise unavailable("overloaded", "too many grammars are being compiled") from None
            raise RequestError(
                "structured_outputs", f"the grammar was not compiled within {COMPILE_S:g} s"
            ) from None

    def counted(self, stats: EngineStats) -> EngineStats:
        """With what was refused here, before the engine heard of it."""
        refused = stats.grammars.refused + self._grammars.counts.refused
        return replace(stats, grammars=replace(stats.grammars, refused=refused))

    def close(self) -> None:
        """End the threads."""
        self._pool.shutdown(wait=False, cancel_futures=True)
