"""The service as a user starts it: API process, engine process, OpenAI's own client."""

from __future__ import annotations

import os
import signal
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import openai
import pytest

from rtp_core import LLM, SamplingParams

sys.path.insert(0, str(Path(__file__).parent))
from serving import serving

QUESTION = [{"role": "user", "content": "abc"}]


@pytest.fixture(scope="module")
def server(tiny_model, tmp_path_factory):
    log = tmp_path_factory.mktemp("serve") / "log"
    with serving(
        tiny_model, log, "--dtype", "float32", "--set", "kv.memory=33554432",
        "--set", "speculation.methods=ngram", "--served-model-name", "tiny",
    ) as running:  # fmt: skip
        yield running


@pytest.fixture(scope="module")
def client(server):
    with openai.OpenAI(base_url=f"{server.url}/v1", api_key="none", max_retries=0) as made:
        yield made


@pytest.fixture(scope="module")
def llm(tiny_model):
    with LLM(model=str(tiny_model), dtype="float32", kv={"memory": 2**25}) as made:
        yield made


def test_http_equals_python_greedy_and_seeded(client, llm):
    for changes in ({"temperature": 0.0}, {"temperature": 1.0, "seed": 5, "top_p": 0.9}):
        answer = client.completions.create(model="tiny", prompt="hello", max_tokens=24, **changes)
        (ours,) = llm.generate("hello", SamplingParams(max_tokens=24, **changes))
        assert answer.choices[0].text == ours.outputs[0].text
        assert answer.choices[0].finish_reason == ours.outputs[0].finish_reason
        assert answer.usage.completion_tokens == len(ours.outputs[0].token_ids)


def test_streaming_equals_not_streaming(client):
    ask = {"model": "tiny", "messages": QUESTION, "seed": 3, "max_tokens": 40}
    whole = client.chat.completions.create(**ask)
    parts = client.chat.completions.create(
        **ask, stream=True, stream_options={"include_usage": True}
    )
    chunks = list(parts)
    text = "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)
    assert text == whole.choices[0].message.content
    assert chunks[-1].usage.completion_tokens == whole.usage.completion_tokens
    assert chunks[-1].usage.prompt_tokens == whole.usage.prompt_tokens


def test_many_at_once_equal_one_alone(client):
    def ask(number: int) -> str:
        answer = client.completions.create(
            model="tiny", prompt=f"prompt {number % 8}", max_tokens=16, temperature=0
        )
        return answer.choices[0].text

    alone = [ask(number) for number in range(8)]
    with ThreadPoolExecutor(32) as pool:
        together = list(pool.map(ask, range(64)))
    assert together == [alone[number % 8] for number in range(64)]


def test_plugins_stats_and_metrics_tell_the_same_story(server):
    effective = server.get("/v1/plugins").json()["effective"]
    on = {(one["role"], one["offer"]) for one in effective["features"] if one["on"]}
    assert {("speculator", "ngram"), ("scheduler", "fcfs"), ("kv_store", "dense")} <= on
    stats = server.get("/v1/stats").json()
    assert stats["state"] == "ready"
    assert stats["engine"]["generation_tokens"] > 0
    metrics = server.get("/metrics").text
    assert "rtp:generation_tokens_total" in metrics
    assert "rtp:spec_decode_num_accepted_tokens_total" in metrics


def test_a_disconnect_frees_the_engine(server):
    body = {"prompt": "x", "max_tokens": 400, "stream": True, "ignore_eos": True}
    with httpx.stream("POST", f"{server.url}/v1/completions", json=body, timeout=30) as stream:
        next(stream.iter_lines())
    deadline = time.monotonic() + 2
    while time.monotonic() < deadline:
        engine = server.get("/v1/stats").json()["engine"]
        if engine["num_running"] == 0 and engine["kv_usage"] == 0.0:
            return
        time.sleep(0.05)
    raise AssertionError("the request still holds blocks")


def test_errors_name_the_field_and_the_server_goes_on(server):
    cases = (
        ({"prompt": "x" * 2000}, "prompt"),
        ({"prompt": ""}, "prompt"),
        ({"prompt": [9999]}, "prompt"),
        ({"prompt": "x", "temperature": -1}, "temperature"),
        ({"prompt": "x", "max_tokenz": 3}, "max_tokenz"),
        ({"prompt": "x", "model": "other"}, "model"),
        ({"prompt": "x", "logit_bias": {"99999": 1}}, "logit_bias"),
    )
    for body, param in cases:
        answer = server.post("/v1/completions", body)
        assert answer.status_code in (400, 404), body
        assert answer.json()["error"]["param"] == param, answer.text
    assert server.get("/health").status_code == 200


def test_killing_the_engine_gives_clean_errors_and_a_new_engine(tiny_model, tmp_path):
    with serving(tiny_model, tmp_path / "log", "--dtype", "float32") as server:
        (engine,) = server.engine_pids()
        with ThreadPoolExecutor(1) as pool:
            body = {"prompt": "x", "max_tokens": 400, "ignore_eos": True}
            pending = pool.submit(server.post, "/v1/completions", body)
            time.sleep(0.3)
            os.kill(engine, signal.SIGKILL)
            answer = pending.result(10)
        if answer.status_code != 200:  # it may have finished before the kill
            assert answer.status_code == 503
            assert answer.json()["error"]["message"]
        server.wait_healthy()
        assert server.engine_pids() != [engine]
        assert server.post("/v1/completions", {"prompt": "x"}).status_code == 200


def test_sigterm_ends_the_service_and_its_engine(tiny_model, tmp_path):
    with serving(tiny_model, tmp_path / "log") as server:
        (engine,) = server.engine_pids()
        server.process.send_signal(signal.SIGTERM)
        assert server.process.wait(20) == 0
    assert not Path(f"/proc/{engine}").exists()


def test_a_model_that_cannot_load_ends_with_its_reason(tmp_path):
    (tmp_path / "broken").mkdir()
    with serving(tmp_path / "broken", tmp_path / "log", wait=False) as server:
        assert server.process.wait(60) == 1
    log = (tmp_path / "log").read_text()
    assert "config.json" in log
    assert "Traceback" not in log
