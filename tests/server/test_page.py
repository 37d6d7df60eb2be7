from __future__ import annotations

import pytest
from kit import ScriptBackend, client_of, settings

from rtp_core.errors import RequestError
from rtp_core.server.exchange import Call
from rtp_core.server.limits import BodyLease, BodyMemory
from rtp_core.server.page import Page, read_folder


def call(**params):
    return Call("id", "/", {}, params, BodyLease(BodyMemory(0)))


async def test_files_are_served_below_a_strict_policy():
    page = Page({"index.html": b"<!doctype html>", "app.js": b"export {}"})
    index = await page.index(call())
    assert index.media_type == "text/html; charset=utf-8"
    policy = index.headers["content-security-policy"]
    for part in (
        "default-src 'self'",
        "img-src 'self' data: blob:",
        "frame-ancestors 'none'",
        "base-uri 'none'",
    ):
        assert part in policy
    assert index.headers["x-content-type-options"] == "nosniff"
    script = await page.static(call(file="app.js"))
    assert script.media_type.startswith("text/javascript")
    with pytest.raises(RequestError) as refused:
        await page.static(call(file="../app.js"))
    assert refused.value.status == 404


def test_only_files_of_known_types_are_shipped(tmp_path):
    (tmp_path / "index.html").write_text("x")
    (tmp_path / "secret.py").write_text("x")
    (tmp_path / "deeper").mkdir()
    assert set(read_folder(tmp_path)) == {"index.html"}
    assert read_folder(tmp_path / "nothing") == {}


async def test_the_page_can_be_switched_off(model_dir):
    async with client_of(ScriptBackend(model_dir), settings(ui=False)) as client:
        for path in ("/", "/static/app.js"):
            answer = await client.get(path)
            assert answer.status_code == 404
            assert set(answer.json()) == {"error"}


async def test_the_packaged_page_is_served_without_a_key_and_below_a_root_path(model_dir):
    async with client_of(ScriptBackend(model_dir), settings(api_keys=("k",))) as client:
        index = await client.get("/")
        assert index.status_code == 200
        assert index.headers["content-type"].startswith("text/html")
        assert 'src="/' not in index.text
        assert 'href="/' not in index.text
        client._transport.root_path = "/behind"
        assert (await client.get("/behind/")).status_code == 200
        assert (await client.get("/behind/static/app.js")).status_code == 200
