"""The offline interface: an engine in the caller's process and thread."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from types import TracebackType
from typing import Any, Self

from rtp_core.api import Request, SamplingParams
from rtp_core.config.read import load_config
from rtp_core.config.schema import EngineConfig
from rtp_core.engine.assemble import Progress, build_engine
from rtp_core.engine.contract import ModelInfo
from rtp_core.engine.outputs import OutputBuilder, RequestOutput
from rtp_core.engine.prompts import Prompt, PromptReader
from rtp_core.errors import RequestError
from rtp_core.text.tokenizer import Tokenizer


@dataclass(frozen=True, slots=True)
class StreamChunk:
    """New text of one choice; `output` is the request so far (shared, still growing)."""

    choice: int
    text: str
    output: RequestOutput


class LLM:
    """A model with its engine. Keyword arguments are config sections or [model] keys.

    Use as a context manager or call `close()`; both free the engine's memory.
    """

    def __init__(self, model: str = "demo", **settings: Any) -> None:
        self._open(load_config(overrides={"model": model, **settings}), None)

    @classmethod
    def from_config(cls, config: EngineConfig, progress: Progress | None = None) -> Self:
        """An engine for a configuration already read; `progress` follows the weights."""
        llm = cls.__new__(cls)
        llm._open(config, progress)
        return llm

    def _open(self, config: EngineConfig, progress: Progress | None) -> None:
        self._engine = build_engine(config, progress)
        self._reader = PromptReader(self._engine.info, config.model.chat_template)
        self._live: dict[str, _Live] = {}

    @property
    def tokenizer(self) -> Tokenizer:
        """The model's tokenizer."""
        return self._reader.tokenizer

    @property
    def info(self) -> ModelInfo:
        """Name, context length, stop ids and defaults of the model."""
        return self._engine.info

    def generate(
        self,
        prompts: Prompt | Sequence[Prompt],
        sampling_params: SamplingParams | Sequence[SamplingParams] | None = None,
    ) -> list[RequestOutput]:
        """Run all prompts to their ends, batched; results in the order of the prompts."""
        many = _as_list(prompts)
        params = self._params(sampling_params, len(many))
        requests = [
            self._reader.read(prompt, one) for prompt, one in zip(many, params, strict=True)
        ]
        return self._run_all(requests)

    def chat(
        self,
        messages: Sequence[Mapping[str, Any]] | Sequence[Sequence[Mapping[str, Any]]],
        sampling_params: SamplingParams | Sequence[SamplingParams] | None = None,
    ) -> list[RequestOutput]:
        """As `generate`, for one conversation or a list of them."""
        many = [messages] if messages and isinstance(messages[0], Mapping) else list(messages)
        params = self._params(sampling_params, len(many))
        requests = [
            self._reader.read_chat(one, sampling)  # pyright: ignore[reportArgumentType]
            for one, sampling in zip(many, params, strict=True)
        ]
        return self._run_all(requests)

    def stream(
        self, prompt: Prompt, sampling_params: SamplingParams | None = None
    ) -> Iterator[StreamChunk]:
        """Text as it is made; closing the iterator aborts the request."""
        (params,) = self._params(sampling_params, 1)
        request, text = self._reader.read(prompt, params)
        return self._stream(request, text)

    def stream_chat(
        self, messages: Sequence[Mapping[str, Any]], sampling_params: SamplingParams | None = None
    ) -> Iterator[StreamChunk]:
        """As `stream`, for a conversation."""
        (params,) = self._params(sampling_params, 1)
        request, text = self._reader.read_chat(messages, params)
        return self._stream(request, text)

    def explain(self) -> dict[str, Any]:
        """What `rtp explain --json` prints, for this engine."""
        return self._engine.explain()

    def stats(self) -> dict[str, Any]:
        """The engine part of /v1/stats."""
        return asdict(self._engine.stats())

    def reset_prefix_cache(self) -> bool:
        """Forget idle cached blocks."""
        return self._engine.reset_prefix_cache()

    def close(self) -> None:
        """Free the engine; idempotent."""
        self._engine.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def _params(
        self, given: SamplingParams | Sequence[SamplingParams] | None, count: int
    ) -> list[SamplingParams]:
        if given is None:
            return [self._reader.default_sampling()] * count
        if isinstance(given, SamplingParams):
            return [given] * count
        if len(given) != count:
            raise RequestError(
                "sampling_params", f"{len(given)} sampling params for {count} prompts"
            )
        return list(given)

    def _run_all(self, requests: Sequence[tuple[Request, str | None]]) -> list[RequestOutput]:
        live: list[_Live] = []
        try:
            for request, prompt in requests:
                live.append(
                    self._submit(request, prompt)
                )  # one by one: a refusal drops those queued
            while not all(one.builder.finished for one in live):
                self._pump()
        finally:
            self._drop(live)
        return [one.builder.output for one in live]

    def _stream(self, request: Request, prompt: str | None) -> Iterator[StreamChunk]:
        live = self._submit(request, prompt)
        try:
            while live.chunks or not live.builder.finished:
                if not live.chunks:
                    self._pump()
                while live.chunks:
                    yield live.chunks.popleft()
        finally:
            self._drop([live])

    def _submit(self, request: Request, prompt: str | None) -> _Live:
        self._engine.submit(request)
        live = _Live(request.request_id, OutputBuilder(self._reader.tokenizer, request, prompt))
        self._live[request.request_id] = live
        return live

    def _pump(self) -> None:
        """One step; events go to whoever waits for them, so iterators may interleave."""
        for event in self._engine.step():
            live = self._live.get(event.request_id)
            if live is None:
                continue
            text = live.builder.feed(event)
            live.chunks.append(StreamChunk(event.choice, text, live.builder.output))
            if event.finish_reason is None and live.builder.ended(event.choice):
                self._engine.abort(event.request_id, event.choice)

    def _drop(self, live: Sequence[_Live]) -> None:
        for one in live:
            if not one.builder.finished:
                self._engine.abort(one.request_id)
            self._live.pop(one.request_id, None)


@dataclass(slots=True)
class _Live:
    request_id: str
    builder: OutputBuilder
    chunks: deque[StreamChunk] = field(default_factory=deque)


def _as_list(prompts: Prompt | Sequence[Prompt]) -> list[Prompt]:
    if isinstance(prompts, str):
        return [prompts]
    if prompts and isinstance(prompts[0], int):
        return [prompts]  # pyright: ignore[reportReturnType]
    return list(prompts)  # pyright: ignore[reportReturnType]
