"""Below a prefix everything is answered, whether or not the proxy takes the prefix off."""

from __future__ import annotations

import json
import re

import pytest
from kit import LiveServer, ScriptBackend, client_of, settings

from rtp_core.config.read import load_config
from rtp_core.errors import ConfigError
from rtp_core.server.limits import Limits
from rtp_core.server.root_path import FIRST_SEGMENTS, check_root_path
from rtp_core.server.routes import operations
from rtp_core.server.service import Service

PREFIX = "/teams/llm-1"


@pytest.fixture
async def below(model_dir):
    async with client_of(ScriptBackend(model_dir), settings(root_path=PREFIX)) as client:
        yield client


@pytest.mark.parametrize("prefix", ["", PREFIX], ids=["stripped", "unstripped"])
async def test_every_path_is_answered_as_without_a_prefix(below, prefix, model_dir):
    described = (await below.get(f"{prefix}/openapi.json")).json()
    assert described["servers"] == [{"url": PREFIX}]
    paths = [path for path, methods in described["paths"].items() if "get" in methods]
    assert len(paths) > 8
    async with client_of(ScriptBackend(model_dir)) as plain:
        for path in [*paths, "/", "/static/app.js"]:
            asked = path.replace("{id}", "demo").replace("{file}", "app.js")
            wanted, found = await plain.get(asked), await below.get(prefix + asked)
            assert found.status_code == wanted.status_code, asked
            assert found.headers["content-type"] == wanted.headers["content-type"]
            assert found.headers["content-length"] == wanted.headers["content-length"] or (
                asked in ("/openapi.json", "/metrics", "/v1/stats")
            )


@pytest.mark.parametrize("prefix", ["", PREFIX], ids=["stripped", "unstripped"])
async def test_an_answer_and_a_stream(below, prefix):
    body = {"prompt": "hi", "max_tokens": 5}
    whole = await below.post(f"{prefix}/v1/completions", json=body)
    assert whole.json()["choices"][0]["text"] == "Hello"
    streamed = await below.post(f"{prefix}/v1/completions", json=body | {"stream": True})
    events = [line[6:] for line in streamed.text.splitlines() if line.startswith("data: {")]
    assert "".join(json.loads(one)["choices"][0]["text"] for one in events) == "Hello"


async def test_the_prefix_alone_leads_to_the_page(below):
    answer = await below.get(PREFIX)
    assert answer.status_code == 307
    assert answer.headers["location"] == f"{PREFIX}/"
    page = await below.get(PREFIX, follow_redirects=True)
    assert page.headers["content-type"].startswith("text/html")


@pytest.mark.parametrize(
    "path", [f"{PREFIX}x/health", f"{PREFIX}{PREFIX}/health", "/teams/health", f"{PREFIX}/nothing"]
)
async def test_what_only_looks_like_the_prefix_is_not_found(below, path):
    answer = await below.get(path)
    assert answer.status_code == 404
    assert set(answer.json()) == {"error"}


async def test_a_key_is_asked_for_below_the_prefix_too(model_dir):
    config = settings(root_path=PREFIX, api_keys=("k",))
    async with client_of(ScriptBackend(model_dir), config) as client:
        assert (await client.get(f"{PREFIX}/v1/models")).status_code == 401
        assert (await client.get(f"{PREFIX}/health")).status_code == 200


async def test_without_a_prefix_the_description_names_no_server(model_dir):
    async with client_of(ScriptBackend(model_dir)) as client:
        assert "servers" not in (await client.get("/openapi.json")).json()
        assert (await client.get(f"{PREFIX}/health")).status_code == 404


@pytest.mark.parametrize(
    "given",
    ["llm", "/", "/llm/", "//x", "/a//b", "/a b", "/a?b", "/a#b", "/..", "/a/../b", "/.", "/%41",
     "/ü", "/a\r\nx: y", "/a\n"],
)  # fmt: skip
def test_what_is_no_prefix_is_refused(given):
    with pytest.raises(ConfigError, match=r"server\.root_path: .*write it as /llm"):
        load_config(environ={}, overrides={"server": {"root_path": given}})


@pytest.mark.parametrize("given", ["/v1", "/static/x", "/health"])
def test_a_prefix_that_could_be_a_path_of_ours_is_refused(given):
    with pytest.raises(ConfigError, match=rf"{given}.*/llm{given.rsplit('/x', 1)[0]}"):
        check_root_path(settings(root_path=given).server)


@pytest.mark.parametrize("given", [None, "/v1x", "/a/v1", "/.hidden", "/a.b/c~d"])
def test_other_prefixes_are_taken(given):
    check_root_path(settings(root_path=given).server)


def test_the_first_segments_are_those_of_all_paths(model_dir):
    service = Service(settings(), ScriptBackend(model_dir), Limits())
    found = {re.split("/", one.path)[1] for one in operations(service)} - {""}
    assert found == FIRST_SEGMENTS


def test_over_a_socket(model_dir):
    import httpx

    with LiveServer(lambda: ScriptBackend(model_dir), settings(port=0, root_path=PREFIX)) as server:
        for prefix in ("", PREFIX):
            assert httpx.get(f"{server.url}{prefix}/v1/models").status_code == 200
        assert httpx.get(f"{server.url}{PREFIX}").headers["location"] == f"{PREFIX}/"
