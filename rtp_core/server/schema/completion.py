"""The body of /v1/completions."""

from __future__ import annotations

from typing import Any

from rtp_core.server.schema.fields import GenerationBody, Logprobs


class CompletionBody(GenerationBody, kw_only=True):
    """`prompt` is a string, token ids, or a list of either; see `prompts.split`."""

    prompt: Any
    echo: bool | None = None
    logprobs: Logprobs | None = None
