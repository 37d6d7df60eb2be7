"""Clients that ask for everything at once, in every way, and often leave before the answer."""

from __future__ import annotations

import asyncio
import json
import random
import time
from dataclasses import dataclass, field

import httpx

TOPICS = (
    "rivers",
    "the moon",
    "old maps",
    "a blue door",
    "bread",
    "snow in April",
    "prime numbers",
)
SYSTEM = "You are a helpful assistant. Answer in one short paragraph, in plain words. " * 3
SCHEMA = {
    "type": "object",
    "properties": {"name": {"type": "string", "maxLength": 20}, "age": {"type": "integer"}},
    "required": ["name", "age"],
    "additionalProperties": False,
}
STRUCTURED = (
    {"response_format": {"type": "json_schema", "json_schema": {"name": "p", "schema": SCHEMA}}},
    {"structured_outputs": {"regex": "[a-z]{3,12}( [a-z]{3,12}){0,5}"}},
    {"structured_outputs": {"choice": ["yes", "no", "it depends"]}},
)
PATIENCE_S = 120.0
"""An answer that takes longer counts as lost."""


@dataclass(slots=True)
class Ask:
    """One request; the client leaves `leave_s` after sending it, if that is a number."""

    id: str
    path: str
    body: dict
    leave_s: float | None

    @property
    def choices(self) -> int:
        return self.body.get("n", 1)

    @property
    def stream(self) -> bool:
        return self.body.get("stream", False)


@dataclass(slots=True)
class Ending:
    """How a request ended for its client: ``done``, ``refused`` (an error, told), ``left``, or
    ``lost`` (anything else, and `words` say what)."""

    ask: Ask
    kind: str
    status: int = 0
    completion_tokens: int | None = None
    prompt_tokens: int | None = None
    words: str = ""


def draw(rng: random.Random, number: int, *, deadlines: bool = True) -> Ask:
    """The request of this number."""
    path = rng.choices(
        ("/v1/chat/completions", "/v1/completions", "/v1/messages", "/v1/responses"), (6, 4, 1, 1)
    )[0]
    topic = rng.choice(TOPICS)
    limit = rng.randint(1, 48)
    body: dict = {"stream": rng.random() < 0.6}
    if path == "/v1/completions":
        body |= {"prompt": f"A story about {topic}, number {rng.randint(0, 50)}: "}
    elif path == "/v1/responses":
        body |= {"input": f"Tell me of {topic}.", "max_output_tokens": limit}
    else:
        body |= {"messages": [{"role": "user", "content": f"{SYSTEM} Tell me of {topic}."}]}
    if path == "/v1/messages":
        body |= {"max_tokens": limit}
    elif path != "/v1/responses":
        body |= {"max_tokens": limit} | _sampling(rng, deadlines)
    if body["stream"] and path.endswith("completions"):
        body["stream_options"] = {"include_usage": True}
    leave_s = rng.choice((0.0, 0.02, rng.uniform(0, 0.3), rng.uniform(0, 3)))
    return Ask(f"soak-{number}", path, body, leave_s if rng.random() < 0.3 else None)


def _sampling(rng: random.Random, deadlines: bool) -> dict:
    fields: dict = {"temperature": rng.choice((0.0, 0.7, 1.0)), "priority": rng.randint(0, 3)}
    if rng.random() < 0.25:
        fields["n"] = rng.randint(2, 4)
    if rng.random() < 0.25:
        fields["stop"] = rng.choice((["."], [" the", "\n"], ["zebra"]))
    if rng.random() < 0.2:
        fields |= rng.choice(STRUCTURED)
    if rng.random() < 0.2:
        fields["return_token_ids"] = True
    if deadlines and rng.random() < 0.03:
        fields |= {"max_tokens": 800, "ignore_eos": True}  # the server's deadline ends it
        fields.pop("stop", None)
    return fields


@dataclass
class Crowd:
    """`size` clients, each with one request at a time, until the time is over."""

    url: str
    seed: int
    size: int = 24
    deadlines: bool = True
    endings: list[Ending] = field(default_factory=list)
    _sent: int = 0

    async def run(self, seconds: float) -> None:
        until_s = time.monotonic() + seconds
        await asyncio.gather(*(self._person(until_s) for _ in range(self.size)))

    async def _person(self, until_s: float) -> None:
        async with httpx.AsyncClient(base_url=self.url, timeout=PATIENCE_S) as client:
            while time.monotonic() < until_s:
                number, self._sent = self._sent, self._sent + 1
                rng = random.Random(f"{self.seed}/{number}")
                ask = draw(rng, number, deadlines=self.deadlines)
                self.endings.append(await end(client, ask))


async def end(client: httpx.AsyncClient, ask: Ask) -> Ending:
    """Send a request and read, or leave."""
    try:
        async with asyncio.timeout(ask.leave_s):
            return await (_stream if ask.stream else _whole)(client, ask)
    except TimeoutError:
        return Ending(ask, "left")
    except (httpx.HTTPError, ValueError, KeyError, AssertionError) as error:
        return Ending(ask, "lost", words=f"{type(error).__name__}: {error}")


async def _whole(client: httpx.AsyncClient, ask: Ask) -> Ending:
    answer = await client.post(ask.path, json=ask.body, headers={"x-request-id": ask.id})
    if answer.status_code != 200:
        return _refused(ask, answer.status_code, answer.json())
    found = answer.json()
    if "choices" in found:
        assert sorted(one["index"] for one in found["choices"]) == list(range(ask.choices))
        assert all(one["finish_reason"] for one in found["choices"])
    return _done(ask, found["usage"])


async def _stream(client: httpx.AsyncClient, ask: Ask) -> Ending:
    headers = {"x-request-id": ask.id}
    async with client.stream("POST", ask.path, json=ask.body, headers=headers) as answer:
        if answer.status_code != 200:
            await answer.aread()
            return _refused(ask, answer.status_code, answer.json())
        told = _Told()
        async for line in answer.aiter_lines():
            if line.startswith("data: "):
                told.take(line.removeprefix("data: "))
    if told.error is not None:
        return _refused(ask, 200, {"error": told.error})
    assert told.ends == ask.choices, f"{told.ends} ends of {ask.choices} choices"
    assert told.last, "the stream was cut"
    return _done(ask, told.usage)


class _Told:
    """What matters of a stream of either API."""

    def __init__(self) -> None:
        self.ends = 0
        self.last = False
        self.usage: dict = {}
        self.error: dict | None = None

    def take(self, data: str) -> None:
        assert not self.last, "something came after the end"
        if data == "[DONE]":
            self.last = True
            return
        event = json.loads(data)
        if event.get("error"):
            self.error = event["error"]
        self.ends += sum(bool(one["finish_reason"]) for one in event.get("choices", ()))
        self.usage |= event.get("usage") or {}
        match event.get("type"):
            case "message_start":
                self.usage |= event["message"]["usage"]
            case "message_stop":
                self.ends, self.last = self.ends + 1, True
            case "response.completed" | "response.incomplete":
                self.usage |= event["response"]["usage"]
                self.ends, self.last = self.ends + 1, True
            case "response.failed":
                self.error = event["response"]["error"]


def _refused(ask: Ask, status: int, found: dict) -> Ending:
    error = found["error"]
    return Ending(ask, "refused", status, words=str(error.get("code") or error.get("type")))


def _done(ask: Ask, usage: dict) -> Ending:
    """Messages count cached tokens apart from the others."""
    prompt = usage.get("prompt_tokens", usage.get("input_tokens", 0))
    prompt += usage.get("cache_read_input_tokens", 0)
    output = usage["completion_tokens"] if "completion_tokens" in usage else usage["output_tokens"]
    return Ending(ask, "done", 200, output, prompt)
