"""The real engine behind both borders gives the tokens that it gives without one."""

from __future__ import annotations

import asyncio
import sys
from contextlib import aclosing
from dataclasses import replace
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))
from backend_cases import idle, read, until

from rtp_core.api import Request, SamplingParams
from rtp_core.config.read import load_config
from rtp_core.engine.process_backend import ProcessBackend
from rtp_core.engine.thread_backend import ThreadBackend
from rtp_core.errors import RequestError, RtpError

PROMPTS = [tuple(range(3, 3 + length)) for length in (1, 7, 40)]
SAMPLING = SamplingParams(max_tokens=12, n=2, seed=5, temperature=0.8, logprobs=2, ignore_eos=True)


@pytest.fixture(scope="module")
def build():
    return pytest.importorskip("rtp_core.engine.assemble").build_engine


@pytest.fixture(scope="module")
def config(build, tiny_model):
    return load_config(overrides={"model": str(tiny_model), "dtype": "float32"})


def requests():
    return [Request(f"r{index}", prompt, SAMPLING) for index, prompt in enumerate(PROMPTS)]


@pytest.fixture(scope="module")
def expected(build, config):
    """Token ids by request and choice, from the engine stepped by hand."""
    engine = build(config)
    tokens = {request.request_id: {0: [], 1: []} for request in requests()}
    for request in requests():
        engine.submit(request)
    while engine.has_work:
        for event in engine.step():
            tokens[event.request_id][event.choice].extend(event.token_ids)
    engine.close()
    return tokens


async def check(backend, expected):
    results = await asyncio.gather(*(read(backend, request) for request in requests()))
    assert {f"r{index}": tokens for index, (tokens, _) in enumerate(results)} == expected
    costs = (await backend.report("cost"))["steps"]
    assert costs
    assert all(row["seconds"] > 0 and row["tokens_below"] > 1 for row in costs)
    groups = (await backend.report("blocks"))["groups"]
    assert groups[0]["published"] >= 2
    assert int(groups[0]["digest"], 16) != 0
    too_long = Request("long", tuple([3] * 600), SAMPLING)
    with pytest.raises(RequestError):
        await read(backend, too_long)
    endless = Request("left", (3,), replace(SAMPLING, max_tokens=400))
    async with aclosing(backend.generate(endless)) as events:
        await anext(events)
    await until(lambda: idle(backend), 10)
    stats = await backend.stats()
    assert stats.finished["length"] == 2 * len(PROMPTS)
    assert stats.blocks["device/dense"] == 0
    assert await backend.reset_prefix_cache()
    assert await backend.explain()


async def test_on_a_thread(build, config, expected):
    backend = ThreadBackend(build(config))
    try:
        await check(backend, expected)
    finally:
        await backend.close()


async def test_in_a_process(config, expected):
    backend = ProcessBackend(config)
    try:
        await backend.start()
        assert backend.progress[0] == backend.progress[1] > 0
        await check(backend, expected)
    finally:
        await backend.close()


async def test_a_model_that_is_not_there_is_told_by_start(config):
    backend = ProcessBackend(replace(config, model=replace(config.model, path="/no/such/model")))
    try:
        with pytest.raises(RtpError, match="/no/such/model"):
            await backend.start()
        assert backend.state == "broken"
    finally:
        await backend.close()
