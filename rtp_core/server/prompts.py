"""Prompts become token ids here, off the event loop and in a bounded number of threads."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any, TypeVar

from rtp_core.engine.contract import ModelInfo
from rtp_core.errors import RequestError
from rtp_core.server.answer_formats import AnswerFormats
from rtp_core.server.grammar_room import GrammarRoom
from rtp_core.server.sampling import context_exceeded
from rtp_core.server.schema.fields import INT32_MAX, MAX_PROMPTS
from rtp_core.text.chat_template import ChatTemplate, encode_chat
from rtp_core.text.tokenizer import Tokenizer

Result = TypeVar("Result")

MAX_CHARS_PER_TOKEN = 128
"""No vocabulary in use has longer tokens: more text than this a token cannot fit."""


@dataclass(frozen=True, slots=True)
class ChatOptions:
    """How a conversation becomes a prompt; `variables` are the template's own, `tools` what
    it shows of the tools there are."""

    add_generation_prompt: bool = True
    continue_final_message: bool = False
    variables: Mapping[str, Any] = field(default_factory=dict)
    tools: Sequence[Mapping[str, Any]] | None = None


class PromptRoom:
    """Tokenizer and chat template of the model served."""

    def __init__(
        self,
        tokenizer: Tokenizer,
        template: ChatTemplate,
        info: ModelInfo,
        threads: int,
        formats: AnswerFormats | None = None,
    ) -> None:
        self.tokenizer = tokenizer
        self.info = info
        self.formats = formats or AnswerFormats()
        self._template = template
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix="rtp-text")
        self.grammars = GrammarRoom.of_model(tokenizer, info)

    async def encode(self, text: str, *, add_special_tokens: bool) -> list[int]:
        """Ids of a raw prompt, in which special tokens may be spelled."""
        self._check_size(len(text), "prompt")
        return await self._run(
            self.tokenizer.encode,
            text,
            add_special_tokens=add_special_tokens,
            allow_special=True,
        )

    async def encode_chat(
        self, messages: Sequence[Mapping[str, Any]], options: ChatOptions
    ) -> list[int]:
        """Ids of a rendered conversation; what messages say never becomes a control token."""
        self._check_variables(options.variables)
        self._check_size(sum(len(message["content"]) for message in messages), "messages")
        return await self._run(self._encode_chat, messages, options)

    def _encode_chat(
        self, messages: Sequence[Mapping[str, Any]], options: ChatOptions
    ) -> list[int]:
        """In a thread, for what templates write besides contents may be long as well."""
        self._check_size(_num_chars([messages, options.variables]), "messages")
        return encode_chat(
            self.tokenizer,
            self._template,
            messages,
            add_generation_prompt=options.add_generation_prompt,
            continue_final_message=options.continue_final_message,
            tools=options.tools,
            **options.variables,
        )

    async def decode(self, token_ids: Sequence[int]) -> str:
        """Text of ids, special tokens included."""
        return await self._run(self.tokenizer.decode, token_ids, skip_special_tokens=False)

    def declares(self, variable: str) -> bool:
        """True when the chat template reads this variable."""
        return variable in self._template.variables

    @property
    def shows_calls(self) -> bool:
        """True when the chat template writes the calls of earlier turns."""
        return "tool_calls" in self._template.source

    def close(self) -> None:
        """End the threads."""
        self._pool.shutdown(wait=False, cancel_futures=True)
        self.grammars.close()

    async def _run(self, function: Callable[..., Result], *args: Any, **kwargs: Any) -> Result:
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._pool, lambda: function(*args, **kwargs))

    def _check_size(self, num_chars: int, param: str) -> None:
        longest = self.info.max_model_len
        if num_chars > longest * MAX_CHARS_PER_TOKEN:
            raise context_exceeded(param, longest, f"{num_chars} characters of text")

    def _check_variables(self, variables: Mapping[str, Any]) -> None:
        known = self._template.variables - {"tools"}
        if any(name not in known for name in variables):
            raise RequestError(
                "chat_template_kwargs",
                "the model's chat template does not read all of these variables",
                remedy=f"it reads: {', '.join(sorted(known)) or 'none'}",
            )


def _num_chars(value: Any) -> int:
    """Characters of all strings in JSON-like data."""
    if isinstance(value, str):
        return len(value)
    if isinstance(value, Mapping):
        return sum(map(_num_chars, value.keys())) + sum(map(_num_chars, value.values()))
    return sum(map(_num_chars, value)) if isinstance(value, Sequence) else 1


def split(prompt: Any, vocab_size: int) -> list[str] | list[list[int]]:
    """The prompts of a completion request: strings, or lists of token ids.

    Accepts str, list[str], list[int] and list[list[int]]. Raises RequestError for `prompt`.
    """
    if isinstance(prompt, str):
        return [prompt]
    if not isinstance(prompt, list) or not prompt:
        raise _malformed()
    if all(map(_is_id, prompt)):
        return [_checked(prompt, vocab_size)]
    if len(prompt) > MAX_PROMPTS:
        raise RequestError("prompt", f"at most {MAX_PROMPTS} prompts a request")
    if all(isinstance(one, str) for one in prompt):
        return prompt
    if all(isinstance(one, list) and one and all(map(_is_id, one)) for one in prompt):
        return [_checked(one, vocab_size) for one in prompt]
    raise _malformed()


def _is_id(value: Any) -> bool:
    return type(value) is int and 0 <= value <= INT32_MAX


def _checked(token_ids: list[int], vocab_size: int) -> list[int]:
    if max(token_ids) >= vocab_size:
        raise RequestError("prompt", f"token ids are below {vocab_size}")
    return token_ids


def _malformed() -> RequestError:
    return RequestError(
        "prompt", "a prompt is a string, a list of token ids, or a list of one of these kinds"
    )
