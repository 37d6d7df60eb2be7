"""The engine's request for one prompt of a body."""

from __future__ import annotations

import uuid
from collections.abc import Sequence

from rtp_core.api import Request, SamplingParams
from rtp_core.server.exchange import Call
from rtp_core.server.schema.fields import GenerationBody
from rtp_core.server.service import Service
from rtp_core.server.structured import named
from rtp_core.text.bad_words import with_bad_token_ids
from rtp_core.text.tokenizer import Tokenizer


def kept(token_ids: Sequence[int], body: GenerationBody) -> Sequence[int]:
    """The last `truncate_prompt_tokens` of a prompt, or all of it."""
    most = body.truncate_prompt_tokens
    return token_ids if most is None else token_ids[-most:]


def engine_request(
    body: GenerationBody,
    call: Call,
    token_ids: Sequence[int],
    sampling: SamplingParams,
    tokenizer: Tokenizer,
) -> Request:
    """Ids in the engine are unique whatever clients send, so that none can block another's."""
    return Request(
        request_id=f"{call.request_id}.{uuid.uuid4().hex[:12]}",
        prompt_token_ids=tuple(token_ids),
        sampling=with_bad_token_ids(sampling, tokenizer),
        arrival_time_s=call.arrival_s,
        priority=body.priority or 0,
        tenant=call.tenant,
        cache_salt=body.cache_salt or "",
    )


async def check_structured(
    body: GenerationBody, sampling: SamplingParams, service: Service, *, forced: bool = False
) -> None:
    """Raises RequestError, naming the body's field, for a constraint that cannot be compiled.

    `forced`: it is one of calls of tools.
    """
    if sampling.structured is not None:
        field = "response_format" if body.structured_outputs is None else "structured_outputs"
        with named("tools" if forced else field):
            await service.room.grammars.check(sampling.structured)
