from __future__ import annotations

import hashlib

import pytest
from kit import ScriptBackend, client_of, settings

HELLO = {"messages": [{"role": "user", "content": "Hi"}]}
CHAT = "/v1/chat/completions"
KEYS = ("first-key", "second-kéy")


@pytest.fixture
async def guarded(model_dir):
    backend = ScriptBackend(model_dir)
    async with client_of(backend, settings(api_keys=KEYS)) as client:
        yield client, backend


async def test_everything_but_health_version_and_page_asks_for_a_key(guarded):
    client, _ = guarded
    for method, path in (
        ("GET", "/v1/models"),
        ("GET", "/v1/models/demo"),
        ("POST", CHAT),
        ("POST", "/v1/completions"),
        ("POST", "/tokenize"),
        ("POST", "/detokenize"),
        ("GET", "/metrics"),
        ("GET", "/v1/plugins"),
        ("GET", "/v1/stats"),
        ("POST", "/reset_prefix_cache"),
        ("GET", "/openapi.json"),
    ):
        answer = await client.request(method, path)
        assert answer.status_code == 401, path
        assert answer.json()["error"]["type"] == "authentication_error"
        assert answer.headers["www-authenticate"] == "Bearer"
    for path in ("/health", "/ping", "/version"):
        assert (await client.get(path)).status_code == 200


@pytest.mark.parametrize(
    "headers",
    [
        {"authorization": "Bearer wrong"},
        {"authorization": "Bearer "},
        {"authorization": "first-key"},
        {"authorization": "Basic first-key"},
        {"authorization": "Bearer first-key2"},
        {"x-api-key": ""},
    ],
)
async def test_a_wrong_key_is_401(guarded, headers):
    client, backend = guarded
    answer = await client.post(CHAT, json=HELLO, headers=headers)
    assert answer.status_code == 401
    assert "first-key" not in answer.text
    assert backend.requests == []


async def test_each_key_has_its_own_part_of_the_prefix_cache(guarded):
    client, backend = guarded
    for headers in (
        {"authorization": "Bearer first-key"},
        {"authorization": b"bearer second-k\xc3\xa9y"},
        {"x-api-key": "first-key"},
    ):
        answer = await client.post(CHAT, json=HELLO, headers=headers)
        assert answer.status_code == 200, answer.text
    tenants = [request.tenant for request in backend.requests]
    assert tenants[0] == tenants[2] == hashlib.sha256(b"first-key").hexdigest()
    assert tenants[1] == hashlib.sha256("second-kéy".encode()).hexdigest()


async def test_no_browser_of_another_origin_is_let_in_by_default(client):
    answer = await client.get("/v1/models", headers={"origin": "http://evil.example"})
    assert "access-control-allow-origin" not in answer.headers
    preflight = await client.options(
        CHAT,
        headers={"origin": "http://evil.example", "access-control-request-method": "POST"},
    )
    assert preflight.status_code == 405


async def test_listed_origins_are_let_in(model_dir):
    config = settings(cors_origins=("http://good.example",), api_keys=KEYS)
    async with client_of(ScriptBackend(model_dir), config) as client:
        headers = {"origin": "http://good.example"}
        preflight = await client.options(
            CHAT,
            headers={
                **headers,
                "access-control-request-method": "POST",
                "access-control-request-headers": "authorization,content-type",
            },
        )
        assert preflight.status_code == 200
        assert preflight.headers["access-control-allow-origin"] == "http://good.example"
        answer = await client.post(CHAT, json=HELLO, headers=headers)
        assert answer.status_code == 401
        assert answer.headers["access-control-allow-origin"] == "http://good.example"
        evil = await client.get("/version", headers={"origin": "http://evil.example"})
        assert "access-control-allow-origin" not in evil.headers
