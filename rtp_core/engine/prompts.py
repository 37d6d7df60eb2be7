"""What callers pass — text, token ids or chat messages — becomes Requests."""

from __future__ import annotations

import itertools
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from rtp_core.api import Request, SamplingParams
from rtp_core.engine.contract import ModelInfo
from rtp_core.errors import RequestError
from rtp_core.text.bad_words import with_bad_token_ids
from rtp_core.text.chat_template import ChatTemplate, encode_chat
from rtp_core.text.structured.grammars import Grammars
from rtp_core.text.tokenizer import Tokenizer

Prompt = str | Sequence[int]


class PromptReader:
    """Turns what a caller passes into Requests: text, ids or chat messages."""

    def __init__(self, info: ModelInfo, chat_template: str | None) -> None:
        directory = Path(info.tokenizer_dir)
        self.tokenizer = Tokenizer.load(directory)
        self._template = ChatTemplate.load(directory, chat_template)
        self._info = info
        self._numbers = itertools.count()
        self._grammars = Grammars(lambda: self.tokenizer, info.vocab_size, info.eos_token_ids)

    def default_sampling(self) -> SamplingParams:
        """The model's own sampling defaults (generation_config.json)."""
        return replace(SamplingParams(), **self._info.defaults)

    def read(self, prompt: Prompt, sampling: SamplingParams) -> tuple[Request, str | None]:
        """A string is encoded with special tokens; ids are taken as they are."""
        if isinstance(prompt, str):
            ids = self.tokenizer.encode(prompt, add_special_tokens=True, allow_special=True)
            return self._request(ids, sampling), prompt
        if isinstance(prompt, Mapping) or not all(isinstance(token, int) for token in prompt):
            raise RequestError("prompt", "a prompt is a string or a sequence of token ids")
        return self._request(prompt, sampling), None

    def read_chat(
        self, messages: Sequence[Mapping[str, Any]], sampling: SamplingParams
    ) -> tuple[Request, str | None]:
        """Renders the chat template; message bodies never become control tokens."""
        ids = encode_chat(self.tokenizer, self._template, messages, add_generation_prompt=True)
        return self._request(ids, sampling), None

    def _request(self, token_ids: Sequence[int], sampling: SamplingParams) -> Request:
        if sampling.structured is not None:
            self._grammars.matcher(sampling.structured)  # what cannot be compiled is refused here
        sampling = with_bad_token_ids(sampling, self.tokenizer)
        return Request(
            request_id=f"llm-{next(self._numbers)}",
            prompt_token_ids=tuple(token_ids),
            sampling=sampling,
            arrival_time_s=time.monotonic(),
        )
