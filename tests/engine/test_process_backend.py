"""The engine in its own process, when nothing goes wrong."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from contextlib import aclosing
from pathlib import Path

import pytest
import pytest_asyncio

sys.path.insert(0, str(Path(__file__).parent))
import scripted_engine as script
from backend_cases import idle, process_backend, read, request, until
from scripted_engine import INFO

from rtp_core.api import FinishReason
from rtp_core.errors import EngineDeadError, RequestError


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def backend():
    async with process_backend(delay_s=0.001) as backend:
        yield backend


pytestmark = pytest.mark.asyncio(loop_scope="module")


async def test_it_is_ready_with_what_the_engine_says_of_itself(backend):
    assert (backend.state, backend.info, backend.failure) == ("ready", INFO, None)
    assert backend.progress == (1000, 1000)
    explained = await backend.explain()
    assert explained["pid"] == backend.pid != os.getpid()


async def test_a_request_runs_to_the_end_of_every_choice(backend):
    tokens, last = await read(backend, request(n=3, max_tokens=5, logprobs=2))
    assert tokens == {choice: [0, 1, 2, 3, 4] for choice in range(3)}
    assert {event.finish_reason for event in last.values()} == {FinishReason.LENGTH}
    assert last[0].logprobs[-1].logprob == float("-inf")
    assert last[0].timing.finished_s == 4.0


async def test_a_refusal_is_raised_with_all_it_says(backend):
    with pytest.raises(RequestError) as caught:
        await read(backend, request("bad", script.REFUSE))
    error = caught.value
    assert (error.param, error.status, error.code, error.remedy) == (
        "messages",
        413,
        "context_length_exceeded",
        "shorten the prompt",
    )
    assert str(error) == "maximum context length is 4096 tokens (shorten the prompt)"


async def test_a_prompt_too_large_for_a_frame_is_refused_here(backend):
    with pytest.raises(RequestError, match="above the limit") as caught:
        await read(backend, request("big", *([2**31 - 1] * 7_000_000)))
    assert (caught.value.param, caught.value.status) == ("prompt", 413)
    assert (await read(backend, request("big")))[0] == {0: [0, 1, 2]}


@pytest.mark.parametrize("token", [1.5, True, "x"])
async def test_a_request_the_engine_cannot_read_is_refused_alone(backend, token):
    pid = backend.pid
    with pytest.raises(RequestError, match="cannot read"):
        await read(backend, request("odd", token))
    assert (await read(backend, request("good")))[0] == {0: [0, 1, 2]}
    assert backend.pid == pid


async def test_closing_the_generator_frees_the_request(backend):
    async with aclosing(backend.generate(request("left", n=4, max_tokens=10**6))) as events:
        await anext(events)
        assert not await idle(backend)
    await until(lambda: idle(backend))


async def test_an_abort_ends_one_choice_or_all(backend):
    ends = []
    async with aclosing(backend.generate(request("ab", n=2, max_tokens=10**6))) as events:
        await anext(events)
        await backend.abort("ab", 1)
        async for event in events:
            if event.finish_reason is not None:
                ends.append((event.choice, event.finish_reason))
                await backend.abort("ab")
    assert ends == [(1, FinishReason.ABORT), (0, FinishReason.ABORT)]


async def test_the_cache_is_reset_on_request(backend):
    await until(lambda: idle(backend))
    assert await backend.reset_prefix_cache() is True


async def test_a_thousand_requests_at_once(backend):
    wanted = [request(f"r{i}", max_tokens=4) for i in range(1000)]
    done = await asyncio.gather(*(read(backend, one) for one in wanted))
    assert all(tokens == {0: [0, 1, 2, 3]} for tokens, _ in done)
    await until(lambda: idle(backend))


async def test_another_event_loop_may_use_it(backend):
    def elsewhere():
        return asyncio.run(read(backend, request("elsewhere")))

    tokens, _ = await asyncio.to_thread(elsewhere)
    assert tokens == {0: [0, 1, 2]}


async def test_signals_that_stop_a_service_do_not_reach_the_engine(backend):
    pid = backend.pid
    assert os.getpgid(pid) != os.getpgid(0)
    async with aclosing(backend.generate(request("steady", max_tokens=10**6))) as events:
        for number in (signal.SIGINT, signal.SIGTERM):
            os.kill(pid, number)
            await asyncio.sleep(0.05)
            await anext(events)
    assert backend.pid == pid


async def test_close_ends_requests_stops_the_process_and_removes_the_socket(tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    async with process_backend(delay_s=0.001) as backend:
        (directory,) = tmp_path.iterdir()
        assert directory.stat().st_mode & 0o777 == 0o700
        pid = backend.pid
        reader = asyncio.ensure_future(read(backend, request(max_tokens=10**6)))
        await asyncio.sleep(0.05)
        await asyncio.wait_for(asyncio.gather(backend.close(), backend.close()), 3)
        with pytest.raises(EngineDeadError, match="shutting down"):
            await reader
        with pytest.raises(EngineDeadError):
            await read(backend, request())
        await backend.close()
        assert backend.state == "draining"
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)
    assert list(tmp_path.iterdir()) == []
