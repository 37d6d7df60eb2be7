"""The engine on a thread: streams, aborts, refusals, ends, from one loop or several."""

from __future__ import annotations

import asyncio
import gc
import sys
import threading
import time
from contextlib import aclosing, suppress
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))
import scripted_engine as script
from backend_cases import idle, read, request, until
from scripted_engine import INFO, ScriptedEngine

from rtp_core.api import FinishReason
from rtp_core.engine.thread_backend import ThreadBackend
from rtp_core.errors import CapacityError, EngineDeadError, RequestError


@pytest.fixture
async def started():
    backends = []

    def start(**script):
        engine = ScriptedEngine(**script)
        backend = ThreadBackend(engine)
        backends.append(backend)
        return engine, backend

    yield start
    for backend in backends:
        await backend.close()


async def test_a_request_runs_to_the_end_of_every_choice(started):
    _, backend = started()
    tokens, last = await read(backend, request(n=3, max_tokens=5))
    assert tokens == {choice: [0, 1, 2, 3, 4] for choice in range(3)}
    assert {event.finish_reason for event in last.values()} == {FinishReason.LENGTH}
    assert last[2].timing.finished_s == 4.0
    assert (backend.state, backend.info, backend.failure) == ("ready", INFO, None)


async def test_nothing_is_submitted_before_the_first_event_is_asked_for(started):
    engine, backend = started()
    events = backend.generate(request())
    await backend.explain()
    assert engine.num_steps == 0
    await events.aclose()


async def test_a_refusal_is_raised_with_all_it_says_and_others_go_on(started):
    _, backend = started()
    with pytest.raises(RequestError, match="maximum context length") as caught:
        await read(backend, request("bad", script.REFUSE))
    error = caught.value
    assert (error.param, error.status, error.code) == (
        "messages",
        413,
        "context_length_exceeded",
    )
    assert error.remedy == "shorten the prompt"
    assert (await read(backend, request("bad")))[0] == {0: [0, 1, 2]}


async def test_an_id_under_way_is_refused(started):
    _, backend = started(delay_s=0.01)
    async with aclosing(backend.generate(request(max_tokens=1000))) as events:
        await anext(events)
        with pytest.raises(RequestError, match="'r' is under way"):
            await read(backend, request())


@pytest.mark.parametrize("stage", ["queue", "prefill", "decode"])
async def test_closing_the_generator_frees_the_request(started, stage):
    engine, backend = started(delay_s=0.005, slots=2, prefill=True)
    prompt = (1,) * (1000 if stage == "prefill" else 1)
    blocker = backend.generate(request("blocker", n=2, max_tokens=1000))
    if stage == "queue":
        await anext(blocker)
    events = backend.generate(request("r", *prompt, n=2, max_tokens=1000))
    if stage == "decode":
        await anext(events)
    else:
        waiting = asyncio.ensure_future(anext(events))
        await asyncio.sleep(0.05)
        assert not waiting.done()
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
    await events.aclose()
    await blocker.aclose()
    await until(lambda: idle(backend))
    assert ("r", None) in engine.aborted


async def test_an_id_is_free_again_once_the_engine_has_ended_it(started):
    _, backend = started()
    async with aclosing(backend.generate(request(max_tokens=10**6))) as events:
        await anext(events)

    async def again():
        with suppress(RequestError):
            return await read(backend, request())

    assert (await until(again))[0] == {0: [0, 1, 2]}


async def test_an_abort_ends_the_stream_with_its_last_events(started):
    _, backend = started(delay_s=0.001)
    async with aclosing(backend.generate(request(n=2, max_tokens=10**6))) as events:
        await anext(events)
        await backend.abort("r", 1)
        ends = []
        async for event in events:
            if event.finish_reason is not None:
                ends.append((event.choice, event.finish_reason))
                await backend.abort("r")
    assert ends == [(1, FinishReason.ABORT), (0, FinishReason.ABORT)]
    await backend.abort("unknown")


async def test_questions_are_answered(started):
    _, backend = started(delay_s=0.005)
    assert (await backend.explain())["loader"] == {"offer": "scripted"}
    assert await backend.reset_prefix_cache()
    async with aclosing(backend.generate(request(max_tokens=1000))) as events:
        await anext(events)
        assert not await backend.reset_prefix_cache()
        assert (await backend.stats()).num_running == 1


async def test_statistics_do_not_wait_for_a_long_step(started):
    _, backend = started(delay_s=2.0)
    reader = asyncio.ensure_future(read(backend, request(max_tokens=1)))
    await asyncio.sleep(0.05)
    began = time.monotonic()
    await backend.stats()
    assert time.monotonic() - began < 1.0
    await reader


async def test_a_slow_reader_gets_merged_events_and_all_tokens(started):
    engine, backend = started()
    async with aclosing(backend.generate(request(max_tokens=500, logprobs=1))) as events:
        first = await anext(events)
        await until(lambda: engine.generated == 500)
        rest = [event async for event in events]
    assert len(rest) == 1
    assert [*first.token_ids, *rest[0].token_ids] == list(range(500))
    assert len(rest[0].logprobs) == len(rest[0].token_ids)
    assert rest[0].finish_reason is FinishReason.LENGTH


async def test_a_reader_that_never_reads_is_ended_and_costs_bounded_memory(started):
    engine, backend = started()
    events = backend.generate(request(max_tokens=10**6, logprobs=20))
    await anext(events)
    await until(lambda: engine.aborted == [("r", None)], seconds=20)
    await until(lambda: idle(backend))
    assert engine.generated < 5000
    with pytest.raises(CapacityError, match="unread"):
        await anext(events)
    await events.aclose()


async def test_an_exception_in_a_step_ends_every_request_and_breaks_the_backend(started):
    engine, backend = started(delay_s=0.005)
    others = [request(f"r{i}", max_tokens=10**6) for i in range(5)]
    readers = [asyncio.ensure_future(read(backend, one)) for one in others]
    await asyncio.sleep(0.02)
    readers.append(asyncio.ensure_future(read(backend, request("bad", script.RAISE_IN_STEP))))
    done = await asyncio.wait_for(asyncio.gather(*readers, return_exceptions=True), 2)
    assert {type(error) for error in done} == {EngineDeadError}
    assert len({id(error) for error in done}) == 6
    assert "secret" not in str(done[0])
    assert backend.state == "broken"
    assert "failed in a step" in backend.failure
    with pytest.raises(EngineDeadError, match="failed in a step"):
        await read(backend, request())
    with pytest.raises(EngineDeadError):
        await backend.explain()
    await backend.stats()
    await until(lambda: engine.closed == 1)


async def test_close_ends_readers_with_an_error_and_is_idempotent():
    engine = ScriptedEngine(delay_s=0.01)
    backend = ThreadBackend(engine)
    reader = asyncio.ensure_future(read(backend, request(max_tokens=10**6)))
    question = asyncio.ensure_future(backend.explain())
    await asyncio.sleep(0.05)
    await asyncio.wait_for(asyncio.gather(backend.close(), backend.close()), 2)
    with pytest.raises(EngineDeadError, match="closed"):
        await reader
    await asyncio.wait_for(asyncio.gather(question, return_exceptions=True), 1)
    with pytest.raises(EngineDeadError):
        await anext(backend.generate(request()))
    await backend.close()
    assert backend.state == "draining"
    assert engine.closed == 1


async def test_a_dropped_backend_ends_its_thread():
    engine = ScriptedEngine()
    backend = ThreadBackend(engine)
    await backend.explain()
    del backend
    gc.collect()
    await until(lambda: engine.closed == 1)


async def test_a_thousand_requests_at_once(started):
    _, backend = started()
    wanted = [request(f"r{i}", max_tokens=4) for i in range(1000)]
    done = await asyncio.gather(*(read(backend, one) for one in wanted))
    assert all(tokens == {0: [0, 1, 2, 3]} for tokens, _ in done)
    assert await idle(backend)


def test_loops_of_several_threads_share_one_engine():
    backend = ThreadBackend(ScriptedEngine(delay_s=0.001))
    results = []

    def serve(number):
        async def many():
            wanted = [request(f"{number}-{i}", max_tokens=20) for i in range(10)]
            return await asyncio.gather(*(read(backend, one) for one in wanted))

        results.extend(asyncio.run(many()))

    threads = [threading.Thread(target=serve, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    asyncio.run(backend.close())
    assert len(results) == 40
    assert all(tokens == {0: list(range(20))} for tokens, _ in results)


def test_a_loop_closed_under_a_request_frees_it():
    engine = ScriptedEngine(delay_s=0.002)
    backend = ThreadBackend(engine)
    loop = asyncio.new_event_loop()
    events = backend.generate(request(max_tokens=10**6))
    loop.run_until_complete(anext(events))
    loop.close()
    asyncio.run(until(lambda: engine.aborted == [("r", None)]))
    asyncio.run(until(lambda: idle(backend)))
    asyncio.run(backend.close())


def test_a_loop_closed_while_a_reader_waits_frees_the_request():
    engine = ScriptedEngine(delay_s=0.1)
    backend = ThreadBackend(engine)
    loop = asyncio.new_event_loop()
    reader = loop.create_task(anext(backend.generate(request(max_tokens=10**6))))
    loop.run_until_complete(asyncio.sleep(0.02))
    loop.close()
    asyncio.run(until(lambda: engine.aborted == [("r", None)]))
    reader._log_destroy_pending = False
    asyncio.run(backend.close())


async def test_readers_of_a_step_are_woken_together(started, monkeypatch):
    _, backend = started(delay_s=0.005)
    loop, calls = asyncio.get_running_loop(), 0
    original = loop.call_soon_threadsafe

    def counted(callback, *args, **options):
        nonlocal calls
        calls += callback.__name__ == "_resolve"
        return original(callback, *args, **options)

    monkeypatch.setattr(loop, "call_soon_threadsafe", counted)
    wanted = [request(f"r{i}", max_tokens=10) for i in range(32)]
    await asyncio.gather(*(read(backend, one) for one in wanted))
    assert calls <= 12
