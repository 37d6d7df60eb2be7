"""The asyncio interface: an engine on its own thread in the caller's process."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import aclosing
from typing import Any, Self

from rtp_core.api import Request, SamplingParams
from rtp_core.config.read import load_config
from rtp_core.engine.assemble import build_engine
from rtp_core.engine.llm import StreamChunk
from rtp_core.engine.outputs import OutputBuilder, RequestOutput
from rtp_core.engine.prompts import Prompt, PromptReader
from rtp_core.engine.thread_backend import ThreadBackend


class AsyncLLM:
    """As LLM, for event loops: `async with await AsyncLLM.create(model=…) as llm`."""

    def __init__(self, backend: ThreadBackend, reader: PromptReader) -> None:
        self._backend = backend
        self._reader = reader

    @classmethod
    async def create(cls, model: str = "demo", **settings: Any) -> Self:
        """Load off the event loop. Keyword arguments as for LLM."""
        config = load_config(overrides={"model": model, **settings})
        engine = await asyncio.to_thread(build_engine, config)
        reader = PromptReader(engine.info, config.model.chat_template)
        return cls(ThreadBackend(engine), reader)

    async def generate(
        self, prompt: Prompt, sampling_params: SamplingParams | None = None
    ) -> RequestOutput:
        """Run one prompt to its end."""
        request, text = self._reader.read(prompt, self._params(sampling_params))
        return await self._collect(request, text)

    async def chat(
        self, messages: Sequence[Mapping[str, Any]], sampling_params: SamplingParams | None = None
    ) -> RequestOutput:
        """Answer one conversation."""
        request, text = self._reader.read_chat(messages, self._params(sampling_params))
        return await self._collect(request, text)

    def stream(
        self, prompt: Prompt, sampling_params: SamplingParams | None = None
    ) -> AsyncIterator[StreamChunk]:
        """Text as it is made; closing the iterator aborts the request."""
        request, text = self._reader.read(prompt, self._params(sampling_params))
        return self._stream(OutputBuilder(self._reader.tokenizer, request, text), request)

    async def explain(self) -> dict[str, Any]:
        """Effective features."""
        return await self._backend.explain()

    async def close(self) -> None:
        """Stop the thread and free the engine."""
        await self._backend.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *error: object) -> None:
        await self.close()

    def _params(self, given: SamplingParams | None) -> SamplingParams:
        return given if given is not None else self._reader.default_sampling()

    async def _collect(self, request: Request, prompt: str | None) -> RequestOutput:
        builder = OutputBuilder(self._reader.tokenizer, request, prompt)
        async for _ in self._stream(builder, request):
            pass
        return builder.output

    async def _stream(self, builder: OutputBuilder, request: Request) -> AsyncIterator[StreamChunk]:
        async with aclosing(self._backend.generate(request)) as events:
            async for event in events:
                text = builder.feed(event)
                yield StreamChunk(event.choice, text, builder.output)
                if builder.finished:
                    return
                if event.finish_reason is None and builder.ended(event.choice):
                    await self._backend.abort(request.request_id, event.choice)
