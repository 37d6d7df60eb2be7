"""What litellm sees of a service: `use_litellm.py URL` prints it as JSON."""

from __future__ import annotations

import asyncio
import json
import sys

import litellm
import pydantic

URL = sys.argv[1]
ASKED = "What is the capital of France? Answer briefly."
ASK = {
    "api_key": "none",
    "messages": [{"role": "user", "content": ASKED}],
    "temperature": 0,
    "max_tokens": 60,
}
OPENAI = {**ASK, "model": "openai/demo", "api_base": f"{URL}/v1"}
VLLM = {**ASK, "model": "hosted_vllm/demo", "api_base": f"{URL}/v1"}
ANTHROPIC = {**ASK, "model": "anthropic/demo", "api_base": URL}
WEATHER = {
    "type": "function",
    "function": {
        "name": "weather",
        "description": "The weather of a city.",
        "parameters": {
            "type": "object",
            "properties": {"city": {"enum": ["Paris", "Oslo"]}},
            "required": ["city"],
            "additionalProperties": False,
        },
    },
}


class Person(pydantic.BaseModel):
    name: str = pydantic.Field(max_length=12)
    age: int = pydantic.Field(ge=1, le=120)


def text(answer) -> str:
    return answer.choices[0].message.content


def streamed(**ask) -> str:
    chunks = litellm.completion(**ask, stream=True)
    return "".join(chunk.choices[0].delta.content or "" for chunk in chunks)


async def asynchronous() -> dict[str, str]:
    whole = await litellm.acompletion(**OPENAI)
    stream = await litellm.acompletion(**OPENAI, stream=True)
    parts = [chunk.choices[0].delta.content or "" async for chunk in stream]
    return {"whole": text(whole), "streamed": "".join(parts)}


def called() -> dict:
    answer = litellm.completion(
        **OPENAI, tools=[WEATHER], tool_choice="required", parallel_tool_calls=False
    ).choices[0]
    (call,) = answer.message.tool_calls
    function = call.function
    return {"finish": answer.finish_reason, "name": function.name, "arguments": function.arguments}


def refused() -> dict[str, str]:
    told = {}
    for name, wrong in (
        ("temperature", {"temperature": 5}),
        ("model", {"model": "openai/other"}),
        ("length", {"messages": [{"role": "user", "content": "x " * 20_000}]}),
    ):
        try:
            litellm.completion(**{**OPENAI, **wrong}, num_retries=0)
        except Exception as error:
            told[name] = type(error).__name__
    return told


def main() -> None:
    whole = litellm.completion(**OPENAI)
    person = litellm.completion(**OPENAI, response_format=Person)
    seen = {
        "whole": text(whole),
        "total": whole.usage.total_tokens == whole.usage.prompt_tokens
        + whole.usage.completion_tokens,
        "streamed": streamed(**OPENAI),
        "asynchronous": asyncio.run(asynchronous()),
        "vllm": text(litellm.completion(**VLLM)),
        "vllm_streamed": streamed(**VLLM),
        "anthropic": text(litellm.completion(**ANTHROPIC)),
        "anthropic_streamed": streamed(**ANTHROPIC),
        "called": called(),
        "person": Person.model_validate_json(text(person)).model_dump(),
        "completion": litellm.text_completion(
            model="text-completion-openai/demo", prompt="One, two,", api_base=f"{URL}/v1",
            api_key="none", max_tokens=4, temperature=0,
        ).choices[0].text,
        "responses": litellm.responses(
            model="openai/demo", input=ASKED, api_base=f"{URL}/v1", api_key="none",
            temperature=0, max_output_tokens=60,
        ).output[0].content[0].text,
        "refused": refused(),
    }  # fmt: skip
    json.dump(seen, sys.stdout)


if __name__ == "__main__":
    main()
