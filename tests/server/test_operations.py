"""Deadlines, quotas, TLS and traces: what operators set."""

from __future__ import annotations

import hashlib
import ssl
from itertools import pairwise

import httpx
import pytest
import trustme
from kit import LiveServer, ScriptBackend, client_of, events_of, settings, until
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from rtp_core.errors import ConfigError, RequestError
from rtp_core.server import accounting
from rtp_core.server import listener as listening
from rtp_core.server.quotas import Quotas
from rtp_core.server.tracing import Traces, exporter_to

HELLO = {"messages": [{"role": "user", "content": "Hi"}]}
CHAT = "/v1/chat/completions"
KEYS = ("first-key", "second-key")


def bearer(key):
    return {"authorization": f"Bearer {key}"}


# ---- deadline


async def test_a_request_past_its_deadline_gets_504_and_leaves_nothing(model_dir):
    backend = ScriptBackend(model_dir)
    backend.gate.clear()
    async with client_of(backend, settings(request_timeout_s=0.05)) as client:
        answer = await client.post(CHAT, json=HELLO)
        assert answer.status_code == 504
        error = answer.json()["error"]
        assert (error["type"], error["code"]) == ("timeout_error", "deadline_exceeded")
        assert "server.request_timeout_s" in error["message"]
        await until(lambda: not backend.live)


async def test_a_stream_past_its_deadline_ends_with_the_error(model_dir):
    backend = ScriptBackend(model_dir, ("word " * 40,))
    backend.step_s = 0.02
    async with client_of(backend, settings(request_timeout_s=0.3)) as client:
        answer = await client.post(CHAT, json=HELLO | {"stream": True})
        events = events_of(answer.text)
        assert answer.status_code == 200
        assert events[-1]["error"]["code"] == "deadline_exceeded"
        assert len(events) > 3
        await until(lambda: not backend.live)


async def test_a_request_within_its_deadline_is_answered(model_dir):
    async with client_of(ScriptBackend(model_dir), settings(request_timeout_s=30)) as client:
        answer = await client.post(CHAT, json=HELLO)
        assert answer.json()["choices"][0]["message"]["content"] == "Hello, world!"


# ---- quotas


class Clock:
    now = 100.0

    def __call__(self):
        return self.now


def test_a_tenant_has_so_many_requests_under_way_and_others_are_not_touched():
    quotas = Quotas(max_requests=1, tokens_per_minute=0)
    with quotas.visit("a"):
        with pytest.raises(RequestError) as refused, quotas.visit("a"):
            pass
        assert (refused.value.status, refused.value.retry_after_s) == (429, 1)
        with quotas.visit("b"):
            pass
    with quotas.visit("a"):
        pass


def test_tokens_come_back_with_time():
    clock = Clock()
    quotas = Quotas(max_requests=0, tokens_per_minute=60, clock=clock)
    with quotas.visit("a"):
        quotas.charge("a", 90)  # thirty more than there were
    with pytest.raises(RequestError) as refused, quotas.visit("a"):
        pass
    assert refused.value.retry_after_s == 31
    clock.now += 30.9
    with pytest.raises(RequestError), quotas.visit("a"):
        pass
    clock.now += 0.2
    with quotas.visit("a"):
        pass
    clock.now += 1e6  # a bucket holds no more than a minute's tokens
    quotas.charge("a", 61)
    with pytest.raises(RequestError), quotas.visit("a"):
        pass


async def test_a_key_over_its_tokens_gets_429_and_the_other_is_served(model_dir):
    config = settings(api_keys=KEYS, tokens_per_minute_per_key=10)
    async with client_of(ScriptBackend(model_dir), config) as client:
        first = await client.post(CHAT, json=HELLO, headers=bearer(KEYS[0]))
        assert first.json()["usage"]["total_tokens"] > 10
        again = await client.post(CHAT, json=HELLO, headers=bearer(KEYS[0]))
        assert again.status_code == 429
        assert again.json()["error"]["code"] == "rate_limit_exceeded"
        assert int(again.headers["retry-after"]) > 60
        other = await client.post(CHAT, json=HELLO, headers=bearer(KEYS[1]))
        assert other.status_code == 200


async def test_requests_under_way_count_until_their_answers_left(model_dir):
    backend = ScriptBackend(model_dir)
    backend.gate.clear()
    config = settings(api_keys=KEYS, max_requests_per_key=1)
    async with client_of(backend, config) as client:
        import asyncio

        running = asyncio.create_task(client.post(CHAT, json=HELLO, headers=bearer(KEYS[0])))
        await until(lambda: backend.live)
        refused = await client.post(CHAT, json=HELLO, headers=bearer(KEYS[0]))
        assert refused.status_code == 429
        assert (await client.get("/metrics", headers=bearer(KEYS[0]))).status_code == 200
        backend.gate.set()
        assert (await running).status_code == 200
        assert (await client.post(CHAT, json=HELLO, headers=bearer(KEYS[0]))).status_code == 200


# ---- TLS


@pytest.fixture(scope="module")
def authority():
    return trustme.CA()


@pytest.fixture(scope="module")
def files(authority, tmp_path_factory):
    folder = tmp_path_factory.mktemp("tls")
    issued = authority.issue_cert("127.0.0.1")
    chain, key = folder / "chain.pem", folder / "key.pem"
    for blob in issued.cert_chain_pems:
        blob.write_to_path(chain, append=True)
    issued.private_key_pem.write_to_path(key)
    return {"ssl_certfile": str(chain), "ssl_keyfile": str(key)}


def test_a_server_with_a_certificate_speaks_tls(model_dir, authority, files, capfd):
    context = ssl.create_default_context()
    authority.configure_trust(context)

    class Secure(LiveServer):
        def _health(self):
            self.url = f"https://127.0.0.1:{self.port}"
            try:
                return httpx.get(f"{self.url}/health", verify=context, timeout=5).status_code
            except httpx.HTTPError:
                return None

    with Secure(lambda: ScriptBackend(model_dir), settings(port=0, **files)) as server:
        answer = httpx.post(server.url + CHAT, json=HELLO, verify=context)
        assert answer.json()["choices"][0]["message"]["content"] == "Hello, world!"
        with pytest.raises(httpx.HTTPError):
            httpx.get(f"http://127.0.0.1:{server.port}/health")
    assert "at https://127.0.0.1:" in capfd.readouterr().out


def test_certificates_are_checked_before_anything_starts(files, tmp_path):
    listening.check_tls(settings().server)
    listening.check_tls(settings(**files).server)
    broken = tmp_path / "broken.pem"
    broken.write_text("nothing")
    for wrong in (
        {"ssl_keyfile": files["ssl_keyfile"]},
        files | {"ssl_certfile": str(broken)},
        files | {"ssl_certfile": str(tmp_path / "absent.pem")},
        files | {"ssl_keyfile": files["ssl_certfile"]},
    ):
        with pytest.raises(ConfigError) as error:
            listening.check_tls(settings(**wrong).server)
        assert error.value.field == "server.ssl_certfile"


# ---- traces


async def test_a_request_leaves_one_span_with_its_stations(model_dir, monkeypatch):
    exporter = InMemorySpanExporter()
    monkeypatch.setattr(accounting, "open_traces", lambda _, name: Traces(exporter, name))
    parent = "00-" + "ab" * 16 + "-" + "cd" * 8 + "-01"
    async with client_of(ScriptBackend(model_dir)) as client:
        answer = await client.post(
            CHAT, json=HELLO, headers={"traceparent": parent, "x-request-id": "known"}
        )
        assert answer.status_code == 200
    spans = {span.name: span for span in exporter.get_finished_spans()}
    assert len(spans) == 4
    server = next(span for name, span in spans.items() if name.startswith("chat "))
    assert f"{server.context.trace_id:032x}" == "ab" * 16
    assert f"{server.parent.span_id:016x}" == "cd" * 8
    assert server.attributes["gen_ai.response.id"] == "known"
    assert server.attributes["gen_ai.usage.output_tokens"] == 14
    assert server.attributes["gen_ai.response.finish_reasons"] == ("stop",)
    stations = [spans[name] for name in ("queue", "prefill", "decode")]
    for before, after in pairwise(stations):
        assert before.end_time == after.start_time
        assert after.parent.span_id == server.context.span_id
    assert server.start_time <= stations[0].start_time
    assert stations[-1].end_time <= server.end_time
    told = " ".join(str(span.attributes) for span in spans.values())
    assert "Hello" not in told
    assert "Hi" not in told


async def test_a_request_that_failed_is_marked(model_dir, monkeypatch):
    exporter = InMemorySpanExporter()
    monkeypatch.setattr(accounting, "open_traces", lambda _, name: Traces(exporter, name))
    backend = ScriptBackend(model_dir)
    backend.error_after = "the engine failed"
    async with client_of(backend) as client:
        assert (await client.post(CHAT, json=HELLO)).status_code == 500
    (server,) = [s for s in exporter.get_finished_spans() if s.name.startswith("chat ")]
    assert server.status.is_ok is False
    assert server.attributes["http.response.status_code"] == 500


def test_an_endpoint_that_is_no_address_is_refused():
    with pytest.raises(ConfigError) as error:
        exporter_to("localhost:4318")
    assert error.value.field == "server.otlp_traces_endpoint"
    assert "http://localhost:4318/v1/traces" in str(error.value)


def test_tenants_are_digests_so_that_tables_of_quotas_name_no_key():
    from rtp_core.server.auth import Guard

    tenant = Guard(KEYS).tenant(bearer(KEYS[0]))
    assert tenant == hashlib.sha256(KEYS[0].encode()).hexdigest()
