"""What answers of the OpenAI endpoints have in common."""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import msgspec

from rtp_core.api import Request
from rtp_core.server import sse
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

    @property
    def is_plain(self) -> bool:
        """True when chunks of a choice differ in nothing but their text."""
        options = self.body.stream_options
        counts = options is not None and options.continuous_usage_stats
        return not (counts or self.wants_token_ids or self.wants_logprobs)

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


class TextChunks:
    """Chunks that differ only in their text: each choice's is encoded once, then filled in.

    `chunk` makes the object of a choice and a text.
    """

    def __init__(self, wire: sse.Wire, chunk: Callable[[int, str], dict[str, Any]]) -> None:
        self._wire = wire
        self._chunk = chunk
        self._around: dict[int, tuple[bytes, bytes]] = {}

    def frame(self, choice: int, text: str) -> bytes:
        """The same bytes as encoding the chunk."""
        around = self._around.get(choice)
        if around is None:
            around = self._around[choice] = self._cut(choice)
        return around[0] + _text.encode(text) + around[1]

    def _cut(self, choice: int) -> tuple[bytes, bytes]:
        mark = uuid.uuid4().hex  # cannot be anything that a client sent
        whole = self._wire.encode([self._chunk(choice, mark)])
        before, _, after = whole.partition(_text.encode(mark))
        return before, after


_text = msgspec.json.Encoder()
