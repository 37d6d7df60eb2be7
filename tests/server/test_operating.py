"""Operators drain a server and reset its cache; routers read its numbers."""

from __future__ import annotations

import asyncio

import pytest
from kit import ScriptBackend, client_of, settings

HELLO = {"messages": [{"role": "user", "content": "Hi"}]}
CHAT, DRAIN = "/v1/chat/completions", "/v1/rtp/drain"


async def test_a_drain_ends_nothing_and_can_be_undone(client, backend):
    backend.gate.clear()
    running = asyncio.create_task(client.post(CHAT, json=HELLO))
    while not backend.requests:
        await asyncio.sleep(0.01)
    assert (await client.get(DRAIN)).json() == {"draining": False, "in_flight": 1}
    assert (await client.post(DRAIN)).json() == {"draining": True, "in_flight": 1}
    for path, body in ((CHAT, HELLO), ("/v1/responses", {"input": "x"})):
        refused = await client.post(path, json=body)
        assert refused.status_code == 503
        assert refused.headers["retry-after"]
        assert refused.json()["error"]["code"] == "server_draining"
    assert (await client.get("/health")).status_code == 503
    assert (await client.get("/v1/stats")).json()["state"] == "draining"
    backend.gate.set()
    answer = await running
    assert answer.status_code == 200
    assert answer.json()["choices"][0]["message"]["content"] == "Hello, world!"
    assert (await client.get(DRAIN)).json() == {"draining": True, "in_flight": 0}
    assert (await client.get("/v1/rtp/cost")).status_code == 200
    assert (await client.delete(DRAIN)).json() == {"draining": False, "in_flight": 0}
    assert (await client.get("/health")).status_code == 200
    assert (await client.post(CHAT, json=HELLO)).status_code == 200


@pytest.mark.parametrize("topic", ["cost", "blocks"])
async def test_routers_read_numbers(client, topic):
    assert (await client.get(f"/v1/rtp/{topic}")).json() == {"topic": topic}


async def test_numbers_wait_for_the_model(model_dir):
    backend = ScriptBackend(model_dir)
    backend.state = "loading"
    async with client_of(backend) as client:
        assert (await client.get("/v1/rtp/cost")).status_code == 503


ORDERS = [("POST", DRAIN), ("DELETE", DRAIN), ("POST", "/reset_prefix_cache")]


@pytest.mark.parametrize(("method", "path"), ORDERS)
async def test_strangers_give_no_orders(model_dir, method, path):
    backend = ScriptBackend(model_dir)
    async with client_of(backend, settings(host="0.0.0.0")) as client:
        refused = await client.request(method, path)
        assert refused.status_code == 403
        assert refused.json()["error"]["type"] == "permission_error"
        assert (await client.get(DRAIN)).json()["draining"] is False
    assert backend.resets == 0
    for allowed in ({"open_operations": True}, {"api_keys": ("sk",)}):
        config = settings(host="0.0.0.0", **allowed)
        async with client_of(backend, config, headers={"x-api-key": "sk"}) as client:
            assert (await client.request(method, path)).status_code == 200
    async with client_of(backend, settings(api_keys=("sk",))) as client:
        assert (await client.request(method, path)).status_code == 401


async def test_a_shutdown_is_not_undone(model_dir):
    from rtp_core.server.accounting import Books
    from rtp_core.server.traffic import Traffic

    traffic = Traffic(ScriptBackend(model_dir), Books.of_model("m", settings().server), 1)
    await traffic.drain(0.01)
    traffic.paused = False
    assert traffic.draining
