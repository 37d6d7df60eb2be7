"""POST /v1/completions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from rtp_core.api import Request, SamplingParams
from rtp_core.errors import RequestError
from rtp_core.server.accounting import Account
from rtp_core.server.body import parse
from rtp_core.server.completion_answer import CompletionRenderer
from rtp_core.server.exchange import Answer, Call
from rtp_core.server.plan import answer
from rtp_core.server.prompts import split
from rtp_core.server.rendering import Telling
from rtp_core.server.requests import check_structured, engine_request, kept
from rtp_core.server.sampling import check_generation, sampling_params, within_context
from rtp_core.server.schema.completion import CompletionBody
from rtp_core.server.service import Service

USUAL_MAX_TOKENS = 16
"""OpenAI's default for this endpoint."""


async def completions(service: Service, call: Call) -> Answer:
    """Validate, then answer whole or as a stream."""
    return await answer(read_plan(parse(call.body, CompletionBody), service), call, service)


def read_plan(body: CompletionBody, service: Service) -> CompletionPlan:
    """All checks that need no tokens. Raises RequestError naming the field."""
    model = service.check_model(body.model)
    check_generation(body, priorities=service.config.scheduling.policy == "priority")
    if body.echo and body.logprobs is not None and body.stream:
        raise RequestError(
            "logprobs",
            "a stream does not tell log-probabilities of an echoed prompt",
            remedy="set stream or echo to false",
        )
    if body.max_tokens == 0 and not body.echo:
        raise RequestError("max_tokens", "max_tokens must be at least 1, unless echo is true")
    prompts = split(body.prompt, service.info.vocab_size)
    sampling = sampling_params(
        body, service.info, max_tokens=body.max_tokens, logprobs=body.logprobs
    )
    if body.echo and body.logprobs is not None:
        most = max(body.logprobs, body.prompt_logprobs or 0)
        sampling = replace(sampling, prompt_logprobs=most)
    return CompletionPlan(body, model, sampling, prompts)


@dataclass(slots=True)
class CompletionPlan:
    """Validated prompts. `echoes` are their texts once tokenized, if they are echoed."""

    body: CompletionBody
    model: str
    sampling: SamplingParams
    prompts: list[str] | list[list[int]]
    echoes: Sequence[str] = ()

    @property
    def stream(self) -> bool:
        """As plan.Plan."""
        return bool(self.body.stream)

    @property
    def places(self) -> int:
        """As plan.Plan."""
        return len(self.prompts) * self.sampling.n

    @property
    def reading(self) -> None:
        """As plan.Plan: what follows a prompt is text."""
        return None

    async def requests(self, call: Call, service: Service) -> list[Request]:
        """One request a prompt."""
        await check_structured(self.body, self.sampling, service)
        requests: list[Request] = []
        for prompt in self.prompts:
            ids = kept(await self._encode(prompt, service), self.body)
            sampling = within_context(
                self.sampling, len(ids), service.info, "prompt", USUAL_MAX_TOKENS
            )
            requests.append(engine_request(self.body, call, ids, sampling, service.room.tokenizer))
        if self.body.echo:
            self.echoes = [
                await self._echo(prompt, request, service)
                for prompt, request in zip(self.prompts, requests, strict=True)
            ]
        return requests

    def renderer(
        self, requests: Sequence[Request], service: Service, account: Account
    ) -> CompletionRenderer:
        """As plan.Plan."""
        telling = Telling("cmpl", self.model, self.body, requests, service.room.tokenizer, account)
        return CompletionRenderer(telling, self.echoes)

    async def _encode(self, prompt: str | list[int], service: Service) -> list[int]:
        if isinstance(prompt, list):
            return prompt
        special = self.body.add_special_tokens is not False
        ids = await service.room.encode(prompt, add_special_tokens=special)
        if not ids:
            raise RequestError("prompt", "the prompt is empty", remedy="send at least one token")
        return ids

    async def _echo(self, prompt: str | list[int], request: Request, service: Service) -> str:
        """The prompt as text, cut as the model sees it."""
        if isinstance(prompt, str) and self.body.truncate_prompt_tokens is None:
            return prompt
        return await service.room.decode(request.prompt_token_ids)
