"""POST /tokenize and /detokenize."""

from __future__ import annotations

from rtp_core.errors import RequestError
from rtp_core.server.body import parse
from rtp_core.server.chat import generation_prompt
from rtp_core.server.exchange import Answer, Call, Reply
from rtp_core.server.messages import template_messages
from rtp_core.server.prompts import ChatOptions
from rtp_core.server.schema.tokens import DetokenizeBody, TokenizeBody
from rtp_core.server.service import Service


async def tokenize(service: Service, call: Call) -> Answer:
    """The ids that a generating endpoint would make of the same prompt or messages."""
    body = parse(call.body, TokenizeBody)
    service.check_model(body.model)
    ids = await _encode(service, body)
    names = None
    if body.return_token_strs:
        names = [service.room.tokenizer.token_text(token_id) for token_id in ids]
    return Reply.json(
        {
            "count": len(ids),
            "max_model_len": service.info.max_model_len,
            "tokens": ids,
            "token_strs": names,
        }
    )


async def detokenize(service: Service, call: Call) -> Answer:
    """The text of ids. An id outside the vocabulary is a 400."""
    body = parse(call.body, DetokenizeBody)
    service.check_model(body.model)
    vocab_size = service.info.vocab_size
    if any(token_id >= vocab_size for token_id in body.tokens):
        raise RequestError("tokens", f"token ids are below {vocab_size}")
    return Reply.json({"prompt": await service.room.decode(body.tokens)})


async def _encode(service: Service, body: TokenizeBody) -> list[int]:
    if (body.prompt is None) == (body.messages is None):
        raise RequestError("prompt", "send either prompt or messages")
    if body.prompt is not None:
        _check_prompt_only(body)
        special = body.add_special_tokens is not False
        return await service.room.encode(body.prompt, add_special_tokens=special)
    if body.add_special_tokens:
        raise RequestError(
            "add_special_tokens", "the chat template places the special tokens of a conversation"
        )
    options = ChatOptions(
        add_generation_prompt=generation_prompt(
            body.add_generation_prompt, body.continue_final_message
        ),
        continue_final_message=bool(body.continue_final_message),
        variables=body.chat_template_kwargs or {},
    )
    return await service.room.encode_chat(template_messages(body.messages or ()), options)


def _check_prompt_only(body: TokenizeBody) -> None:
    for name in ("add_generation_prompt", "continue_final_message", "chat_template_kwargs"):
        if getattr(body, name):
            raise RequestError(name, f"{name} needs messages")
