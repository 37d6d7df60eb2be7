"""What langchain-openai sees of a service: `use_langchain.py URL` prints it as JSON."""

from __future__ import annotations

import asyncio
import json
import sys
from typing import Literal

import pydantic
from langchain_core.messages import HumanMessage, ToolMessage
from langchain_core.tools import tool
from langchain_openai import ChatOpenAI, OpenAI

URL = f"{sys.argv[1]}/v1"
ASKED = "What is the capital of France? Answer briefly."
SETTINGS = {"model": "demo", "base_url": URL, "api_key": "none", "temperature": 0}


@tool
def weather(city: Literal["Paris", "Oslo"]) -> str:
    """The weather of a city."""
    return f"Rain in {city}"


class Person(pydantic.BaseModel):
    """A person."""

    name: str = pydantic.Field(max_length=12)
    age: int = pydantic.Field(ge=1, le=120)


def agent(chat: ChatOpenAI) -> dict:
    """A call, its result, and the answer after it."""
    question = HumanMessage("How is the weather in Oslo?")
    bound = chat.bind_tools([weather], tool_choice="required", parallel_tool_calls=False)
    said = bound.invoke([question])
    (call,) = said.tool_calls
    result = weather.invoke(call)
    after = chat.bind_tools([weather], tool_choice="none").invoke([question, said, result])
    whole = None
    for chunk in bound.stream([question]):
        whole = chunk if whole is None else whole + chunk
    return {
        "name": call["name"],
        "args": call["args"],
        "streamed": [[one["name"], one["args"]] for one in whole.tool_calls],
        "result": isinstance(result, ToolMessage),
        "after": after.content,
    }


async def asynchronous(chat: ChatOpenAI) -> dict[str, str]:
    whole = await chat.ainvoke(ASKED)
    return {
        "whole": whole.content,
        "streamed": "".join([one.text async for one in chat.astream(ASKED)]),
    }


def main() -> None:
    chat = ChatOpenAI(**SETTINGS, max_tokens=80)
    whole = chat.invoke(ASKED)
    chunks = list(ChatOpenAI(**SETTINGS, max_tokens=80, stream_usage=True).stream(ASKED))
    seen = {
        "whole": whole.content,
        "usage": whole.usage_metadata,
        "finish": whole.response_metadata["finish_reason"],
        "streamed": "".join(chunk.content for chunk in chunks),
        "stream_usage": next(chunk.usage_metadata for chunk in chunks if chunk.usage_metadata),
        "asynchronous": asyncio.run(asynchronous(chat)),
        "batch": [one.content for one in chat.batch([ASKED, ASKED])],
        "agent": agent(chat),
        "persons": {
            method: chat.with_structured_output(Person, method=method)
            .invoke("Invent a person. Answer in JSON.")
            .model_dump()
            for method in ("json_schema", "function_calling")
        },
        "responses": ChatOpenAI(**SETTINGS, use_responses_api=True).invoke(ASKED).text,
        "completion": OpenAI(**SETTINGS, max_tokens=4).invoke("One, two,"),
    }
    json.dump(seen, sys.stdout)


if __name__ == "__main__":
    main()
