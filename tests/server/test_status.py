from __future__ import annotations

import asyncio
import logging
import re

import pytest
from kit import EOS, ScriptBackend, client_of, settings, until
from prometheus_client.parser import text_string_to_metric_families

from rtp_core import __version__

HELLO = {"messages": [{"role": "user", "content": "Hi"}]}
CHAT, TEXT = "/v1/chat/completions", "/v1/completions"


async def scrape(client):
    """Samples by name and labels."""
    page = await client.get("/metrics")
    assert page.status_code == 200
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(page.text)
        for sample in family.samples
    }


def total(samples, name, **labels):
    wanted = set(labels.items())
    return sum(
        value for (found, kept), value in samples.items() if found == name and wanted <= set(kept)
    )


async def test_health_and_ping_are_empty(client):
    for method, path in (("GET", "/health"), ("GET", "/ping"), ("POST", "/ping")):
        answer = await client.request(method, path)
        assert (answer.status_code, answer.content) == (200, b"")


async def test_version(client):
    assert (await client.get("/version")).json() == {"version": __version__}


async def test_every_served_name_has_a_card(model_dir):
    from dataclasses import replace

    config = settings()
    names = ("org/tiny", "tiny")
    config = replace(config, model=replace(config.model, served_name=names))
    async with client_of(ScriptBackend(model_dir), config) as client:
        cards = (await client.get("/v1/models")).json()["data"]
        assert [card["id"] for card in cards] == list(names)
        assert (await client.get("/v1/models/org/tiny")).json() == cards[0]
        assert cards[0]["object"] == "model"
        assert cards[0]["max_model_len"] == 256
        answer = await client.get("/v1/models/org/huge")
        assert answer.status_code == 404
        assert answer.json()["error"]["code"] == "model_not_found"
        body = (await client.post(CHAT, json={**HELLO, "model": "tiny"})).json()
        assert body["model"] == "tiny"


async def test_tokenize_counts_what_usage_counts(client):
    for path, body in ((CHAT, HELLO), (TEXT, {"prompt": "Zürich"})):
        tokens = (await client.post("/tokenize", json=body)).json()
        usage = (await client.post(path, json=body)).json()["usage"]
        assert tokens["count"] == len(tokens["tokens"]) == usage["prompt_tokens"]
        assert tokens["max_model_len"] == 256


async def test_tokens_come_back_as_text(client):
    answer = await client.post("/tokenize", json={"prompt": "aé", "return_token_strs": True})
    body = answer.json()
    assert body["token_strs"] == ["a", "\ufffd", "\ufffd"]
    again = await client.post("/detokenize", json={"tokens": [*body["tokens"], EOS]})
    assert again.json() == {"prompt": "aé<|im_end|>"}


async def test_plugins_and_what_is_effective(client):
    body = (await client.get("/v1/plugins")).json()
    assert body["object"] == "list"
    names = {row["name"]: row for row in body["data"]}
    assert names["core.loading"]["selected"] is True
    assert {"name", "version", "api", "provides", "summary", "broken"} <= set(body["data"][0])
    assert body["effective"]["features"][0]["role"] == "loader"


async def test_the_prefix_cache_is_reset_when_idle(client, backend):
    assert (await client.post("/reset_prefix_cache")).status_code == 200
    assert backend.resets == 1
    backend.live.add("someone")
    answer = await client.post("/reset_prefix_cache")
    assert answer.status_code == 503
    assert answer.headers["retry-after"]


async def test_request_ids_are_echoed_or_made(client):
    answer = await client.post(CHAT, json=HELLO, headers={"x-request-id": "trace-1.a_B"})
    assert answer.headers["x-request-id"] == "trace-1.a_B"
    assert answer.json()["id"] == "chatcmpl-trace-1.a_B"
    for bad in ("x" * 129, "a b", "a;b"):
        answer = await client.get("/version", headers={"x-request-id": bad})
        assert re.fullmatch("[0-9a-f]{32}", answer.headers["x-request-id"])


async def test_counters_are_the_sums_of_usage(client, backend):
    backend.cached = 3
    used = []
    for path, body in (
        (CHAT, HELLO),
        (CHAT, {**HELLO, "n": 3}),
        (CHAT, {**HELLO, "stop": "wor"}),
        (TEXT, {"prompt": ["a", "bc"], "n": 2, "max_tokens": 3}),
        (TEXT, {"prompt": "a", "echo": True, "max_tokens": 0}),
    ):
        used.append((await client.post(path, json=body)).json()["usage"])
    samples = await scrape(client)
    for name, key in (
        ("prompt_tokens", "prompt_tokens"),
        ("generation_tokens", "completion_tokens"),
    ):
        assert total(samples, f"rtp:{name}_total") == sum(usage[key] for usage in used)
    cached = sum(usage["prompt_tokens_details"]["cached_tokens"] for usage in used)
    assert total(samples, "rtp:prompt_tokens_cached_total") == cached == 18
    assert total(samples, "rtp:request_success_total", finished_reason="stop") == 5
    assert total(samples, "rtp:request_success_total", finished_reason="length") == 5
    assert total(samples, "rtp:e2e_request_latency_seconds_count") == 10
    assert total(samples, "rtp:time_to_first_token_seconds_count") == 4


async def test_what_clients_send_never_becomes_a_label(client):
    await client.post(CHAT, json=HELLO)
    before = await scrape(client)
    for number in range(20):
        name = f"name{number}"
        await client.post(
            CHAT,
            json={**HELLO, "request_id": name, "user": name, "cache_salt": name},
            headers={"x-request-id": name, "user-agent": name},
        )
        await client.post(CHAT, json={**HELLO, "model": name})
        await client.get(f"/{name}")
    after = await scrape(client)
    assert before.keys() == after.keys()
    assert all(("model_name", "demo") in labels for _, labels in after if labels)


@pytest.mark.parametrize(
    "name",
    [
        "num_requests_running",
        "num_requests_waiting",
        "kv_cache_usage_perc",
        "prefix_cache_queries_total",
        "prefix_cache_hits_total",
        "num_preemptions_total",
        "prompt_tokens_total",
        "generation_tokens_total",
        "time_to_first_token_seconds_bucket",
        "inter_token_latency_seconds_bucket",
        "e2e_request_latency_seconds_bucket",
        "request_queue_time_seconds_bucket",
        "request_success_total",
        "spec_decode_num_drafts_total",
        "spec_decode_num_draft_tokens_total",
        "spec_decode_num_accepted_tokens_total",
        "kv_blocks",
        "step_host_seconds_sum",
        "load_bytes_total",
        "load_seconds",
        "admission_rejections_total",
    ],
)
async def test_promised_metrics_are_there(client, name):
    assert any(found == f"rtp:{name}" for found, _ in await scrape(client))


async def test_stats_have_the_pages_shape(client, backend):
    await client.post(CHAT, json=HELLO, headers={"x-request-id": "first"})
    await client.post(TEXT, json={"prompt": "a", "stream": True})
    stats = (await client.get("/v1/stats")).json()
    assert set(stats) == {
        "version",
        "state",
        "uptime_s",
        "model",
        "start",
        "engine",
        "latency",
        "history",
        "requests",
    }
    assert stats["state"] == "ready"
    assert stats["model"] == {
        "name": "demo",
        "architecture": "ScriptForCausalLM",
        "max_model_len": 256,
        "dtype": "float32",
    }
    assert stats["engine"]["generation_tokens"] == 28
    assert set(stats["latency"]) == {"ttft_s", "itl_s", "e2e_s"}
    assert stats["latency"]["ttft_s"]["n"] == 2
    assert set(stats["history"][0]) == {
        "t_unix_s",
        "running",
        "waiting",
        "kv_usage",
        "blocks",
        "cached_blocks",
        "prompt_tokens_per_s",
        "generation_tokens_per_s",
        "prefix_hit_rate",
        "spec_acceptance",
        "ttft_s",
        "itl_s",
    }
    newest, oldest = stats["requests"]
    assert newest["endpoint"] == TEXT
    assert oldest["id"] == "first"
    assert oldest["completion_tokens"] == 14
    assert oldest["finish_reason"] == "stop"
    assert oldest["status"] == 200
    assert 0 < oldest["ttft_s"] <= oldest["e2e_s"]
    assert oldest["queue_s"] >= 0


async def test_a_request_is_listed_while_it_runs(client, backend):
    backend.gate.clear()
    asking = asyncio.create_task(client.post(CHAT, json=HELLO, headers={"x-request-id": "live"}))
    await until(lambda: backend.live)
    (row,) = (await client.get("/v1/stats")).json()["requests"]
    assert (row["id"], row["state"], row["status"]) == ("live", "waiting", 0)
    assert row["ttft_s"] is None
    backend.gate.set()
    await asking
    (row,) = (await client.get("/v1/stats")).json()["requests"]
    assert (row["id"], row["state"], row["status"]) == ("live", "done", 200)


async def test_a_refused_prompt_does_not_stay_in_the_list(client):
    long = {"role": "user", "content": "word " * 400}
    answer = await client.post(CHAT, json={"messages": [long]})
    assert answer.status_code == 400
    (row,) = (await client.get("/v1/stats")).json()["requests"]
    assert (row["state"], row["status"]) == ("done", 400)


async def test_stats_since_a_time_have_what_is_newer(client):
    await client.post(CHAT, json=HELLO)
    whole = (await client.get("/v1/stats")).json()
    newest = whole["history"][-1]["t_unix_s"]
    assert (await client.get(f"/v1/stats?since={newest}")).json()["history"][0] == {
        **whole["history"][-1]
    }
    later = (await client.get(f"/v1/stats?since={newest + 3600}")).json()
    assert (later["history"], later["requests"]) == ([], [])
    assert later["engine"] == whole["engine"]
    refused = await client.get("/v1/stats?since=yesterday")
    assert (refused.status_code, refused.json()["error"]["param"]) == (400, "since")


async def test_one_line_a_request_without_its_text(client, caplog):
    caplog.set_level(logging.INFO, "rtp.request")
    await client.post(CHAT, json=HELLO, headers={"x-request-id": "abc"})
    (line,) = [one.getMessage() for one in caplog.records if one.name == "rtp.request"]
    assert line.startswith("request_finished id=abc endpoint=/v1/chat/completions status=200 ")
    assert " completion_tokens=14 " in line
    assert " finish=stop" in line
    assert "Hello" not in line


async def test_a_full_queue_is_503_with_retry_after(model_dir):
    backend = ScriptBackend(model_dir)
    backend.gate.clear()
    async with client_of(backend, settings(max_queued_requests=2)) as client:
        waiting = [asyncio.create_task(client.post(CHAT, json=HELLO)) for _ in range(2)]
        await until(lambda: len(backend.live) == 2)
        refused = await client.post(CHAT, json=HELLO)
        assert refused.status_code == 503
        assert refused.json()["error"]["code"] == "queue_full"
        assert refused.headers["retry-after"] == "1"
        too_many = await client.post(CHAT, json={**HELLO, "n": 3})
        assert (too_many.status_code, too_many.json()["error"]["param"]) == (400, "n")
        samples = await scrape(client)
        assert total(samples, "rtp:admission_rejections_total", reason="queue_full") == 1
        backend.gate.set()
        for answer in await asyncio.gather(*waiting):
            assert answer.status_code == 200
        assert (await client.post(CHAT, json={**HELLO, "n": 2})).status_code == 200


async def test_a_dead_engine_is_503_until_it_is_back(client, backend):
    from rtp_core.errors import EngineDeadError

    backend.break_after = (2, EngineDeadError("its process died"))
    answer = await client.post(CHAT, json=HELLO)
    assert answer.status_code == 503
    assert answer.json()["error"]["code"] == "engine_dead"
    assert answer.headers["retry-after"]
    streamed = await client.post(CHAT, json={**HELLO, "stream": True})
    assert '"code":"engine_dead"' in streamed.text
    assert streamed.text.endswith("data: [DONE]\n\n")
    backend.break_after = None
    backend.state = "broken"
    assert (await client.get("/health")).status_code == 503
    assert (await client.post(CHAT, json=HELLO)).status_code == 503
    assert (await client.get("/v1/stats")).json()["state"] == "broken"
    backend.state = "ready"
    assert (await client.post(CHAT, json=HELLO)).status_code == 200


async def test_while_loading_only_the_server_answers(model_dir):
    backend = ScriptBackend(model_dir)
    backend.state = "loading"
    async with client_of(backend) as client:
        for method, path in (
            ("GET", "/health"),
            ("GET", "/ping"),
            ("GET", "/v1/models"),
            ("POST", CHAT),
            ("POST", "/tokenize"),
            ("GET", "/v1/plugins"),
        ):
            answer = await client.request(method, path)
            assert answer.status_code == 503, path
            assert answer.json()["error"]["code"] == "model_loading"
            assert answer.headers["retry-after"] == "5"
        assert (await client.get("/version")).status_code == 200
        assert (await client.get("/metrics")).status_code == 200
        stats = (await client.get("/v1/stats")).json()
        assert stats["state"] == "loading"
        assert stats["model"]["max_model_len"] is None
        backend.state = "ready"
        async with asyncio.timeout(5):
            while (await client.get("/health")).status_code != 200:
                await asyncio.sleep(0.01)
        assert (await client.post(CHAT, json=HELLO)).status_code == 200


async def test_a_model_whose_tokenizer_is_damaged_is_broken(model_dir, tmp_path):
    from dataclasses import replace

    (tmp_path / "tokenizer.json").write_text("{")
    backend = ScriptBackend(model_dir)
    backend.info = replace(backend.info, tokenizer_dir=str(tmp_path))
    async with client_of(backend) as client:
        answer = await client.get("/health")
        assert answer.status_code == 503
        assert answer.json()["error"]["code"] == "engine_dead"
