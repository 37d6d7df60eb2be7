"""The same GGUF file in llama.cpp, through llama-cpp-python."""

from __future__ import annotations

import time
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np

from rtp_core.bench.rival import RivalRun, missing
from rtp_core.errors import ModelError

_ROOM = 4096
"""Context it is opened with, capped by the model's own."""


class LlamaCppRival:
    """One sequence at a time: the package's high-level interface has no batch."""

    name = "llama-cpp-python"

    def __init__(self, path: Path, threads: int) -> None:
        try:
            llama_cpp = import_module("llama_cpp")
        except ImportError as error:
            raise missing(
                "llama-cpp-python", "pip install llama-cpp-python (needs cmake and a compiler)"
            ) from error
        if path.suffix != ".gguf":
            raise ModelError(
                f"llama.cpp reads .gguf files and {path.name} is none",
                remedy="measure a .gguf model against it",
            )
        self._library = llama_cpp
        self._model: Any = llama_cpp.Llama(
            str(path), n_ctx=_ROOM, n_threads=threads, n_threads_batch=threads, verbose=False
        )
        self._vocab_size = self._model.n_vocab()
        self.version = llama_cpp.__version__
        self.dtype = f"codes of {path.name}"

    def refusal(self, batch_size: int) -> str | None:
        """More than one prompt would run one after another."""
        if batch_size == 1:
            return None
        return "llama-cpp-python runs one sequence at a time; measure it with one request"

    def run(self, prompts: Sequence[Sequence[int]], output_len: int) -> RivalRun:
        """See `rival.Rival`."""
        (prompt,) = prompts
        self._model.reset()
        began = time.perf_counter()
        self._model.eval(list(prompt))
        token = self._argmax()
        first = time.perf_counter() - began
        steps: list[float] = []
        for _ in range(output_len - 1):
            at = time.perf_counter()
            self._model.eval([token])
            token = self._argmax()
            steps.append(time.perf_counter() - at)
        return RivalRun(first, tuple(steps), time.perf_counter() - began)

    def _argmax(self) -> int:
        """Straight from the context's logits: the package's sampler would cost it time."""
        pointer = self._library.llama_get_logits_ith(self._model.ctx, -1)
        return int(np.ctypeslib.as_array(pointer, shape=(self._vocab_size,)).argmax())
