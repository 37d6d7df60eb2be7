"""What answers of the OpenAI endpoints have in common."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from rtp_core.api import Request
from rtp_core.server.accounting import Account
from rtp_core.server.plan import Outcome
from rtp_core.server.schema.fields import GenerationBody
from rtp_core.server.token_names import TokenNames
from rtp_core.text.tokenizer import Tokenizer


@dataclass(frozen=True, slots=True)
class Telling:
    """One answer's identity, which fields were asked for, and where to look things up."""

    prefix: str
    model: str
    body: GenerationBody
    requests: Sequence[Request]
    tokenizer: Tokenizer
    account: Account
    created: int = field(default_factory=lambda: int(time.time()))

    @property
    def identity(self) -> str:
        """What ids in the answer are made of."""
        return self.body.request_id or self.account.call.request_id

    @property
    def names(self) -> TokenNames:
        """How tokens are spelled in log-probabilities."""
        return TokenNames(self.tokenizer, as_ids=bool(self.body.return_tokens_as_token_ids))

    @property
    def num_choices(self) -> int:
        """Choices of all prompts."""
        return sum(request.sampling.n for request in self.requests)

    @property
    def wants_token_ids(self) -> bool:
        """True when ids are to be returned beside the text."""
        return bool(self.body.return_token_ids)

    def prompt_logprobs(self, outcomes: Sequence[Outcome], prompt: int = 0) -> dict[str, Any]:
        """The field of this name, if it was asked for."""
        most = self.body.prompt_logprobs
        if most is None:
            return {}
        found = outcomes[prompt * self.requests[0].sampling.n].prompt_logprobs
        return {"prompt_logprobs": self.names.prompt_entries(found, most)}

    @property
    def wants_logprobs(self) -> bool:
        """True when log-probabilities are to be returned."""
        return self.requests[0].sampling.logprobs is not None

    def prompt_of(self, choice: int) -> int:
        """Index of the prompt that a choice belongs to."""
        return choice // self.requests[0].sampling.n

    def head(self, kind: str) -> dict[str, Any]:
        """First fields of an answer or chunk, the same in all of a stream."""
        return {
            "id": f"{self.prefix}-{self.identity}",
            "object": kind,
            "created": self.created,
            "model": self.model,
        }

    def chunk(self, kind: str, choice: dict[str, Any]) -> dict[str, Any]:
        """A stream's chunk with the `usage` field that stream_options asks for."""
        options = self.body.stream_options
        chunk = {**self.head(kind), "choices": [choice]}
        if options is not None and options.continuous_usage_stats:
            chunk["usage"] = self.account.usage()
        elif options is not None and options.include_usage:
            chunk["usage"] = None
        return chunk

    def last_chunks(self, kind: str) -> list[dict[str, Any]]:
        """The chunk with the usage of the whole request, if it was asked for."""
        options = self.body.stream_options
        if options is None or not options.include_usage:
            return []
        return [{**self.head(kind), "choices": [], "usage": self.account.usage()}]
