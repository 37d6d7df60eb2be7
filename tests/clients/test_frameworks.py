"""litellm and langchain-openai as they are, each in its own environment."""

from __future__ import annotations

import json

import pytest

pytestmark = [pytest.mark.long, pytest.mark.model, pytest.mark.timeout(1500)]


def test_litellm(program):
    seen = json.loads(program("litellm").run("use_litellm.py").splitlines()[-1])
    assert "Paris" in seen["whole"]
    assert seen["total"]
    for same in ("streamed", "vllm", "vllm_streamed", "anthropic", "anthropic_streamed"):
        assert seen[same] == seen["whole"], same
    assert seen["asynchronous"] == {"whole": seen["whole"], "streamed": seen["whole"]}
    assert seen["responses"] == seen["whole"]
    assert (seen["called"]["finish"], seen["called"]["name"]) == ("tool_calls", "weather")
    assert json.loads(seen["called"]["arguments"])["city"] in ("Paris", "Oslo")
    assert 1 <= seen["person"]["age"] <= 120
    assert seen["completion"]
    assert seen["refused"] == {
        "temperature": "BadRequestError",
        "model": "NotFoundError",
        "length": "ContextWindowExceededError",
    }


def test_langchain(program):
    seen = json.loads(program("langchain").run("use_langchain.py").splitlines()[-1])
    assert "Paris" in seen["whole"]
    assert seen["finish"] == "stop"
    assert seen["usage"]["total_tokens"] == seen["stream_usage"]["total_tokens"]
    assert seen["streamed"] == seen["whole"]
    assert seen["asynchronous"] == {"whole": seen["whole"], "streamed": seen["whole"]}
    assert seen["batch"] == [seen["whole"]] * 2
    agent = seen["agent"]
    assert (agent["name"], agent["result"]) == ("weather", True)
    assert agent["streamed"] == [["weather", agent["args"]]]
    assert agent["after"]
    for person in seen["persons"].values():
        assert 1 <= person["age"] <= 120
    assert seen["responses"] == seen["whole"]
    assert seen["completion"]
