"""What breaks around the engine process, and what is left standing."""

from __future__ import annotations

import asyncio
import dataclasses
import json
import os
import signal
import subprocess
import sys
import threading
import time
from contextlib import aclosing, suppress
from pathlib import Path

import pytest
import zmq

sys.path.insert(0, str(Path(__file__).parent.parent / "engine"))
import scripted_engine as script
from backend_cases import (
    find_scripts,
    idle,
    new_process_backend,
    process_backend,
    read,
    request,
    until,
)

from rtp_core.engine.supervisor import Patience, RestartBudget
from rtp_core.engine.wire import (
    MAX_FRAME_BYTES,
    Hello,
    Refused,
    decode_from_engine,
    describe,
    encode,
)
from rtp_core.errors import CapacityError, ConfigError, EngineDeadError, RequestError, RtpError

QUICK = Patience(max_restarts=2, window_s=60.0, first_delay_s=0.05, longest_delay_s=0.1)
FOREVER = 10**6
ENGINE_TESTS = Path(__file__).parent.parent / "engine"


async def lost(reader):
    """The error of a reader whose engine died, and how long it took to come."""
    began = time.monotonic()
    with pytest.raises(EngineDeadError) as caught:
        await asyncio.wait_for(reader, 5)
    return caught.value, time.monotonic() - began


async def works_again(backend, name="again"):
    await until(lambda: backend.state == "ready", 10)
    assert (await read(backend, request(name)))[0] == {0: [0, 1, 2]}


def exists(pid):
    """False for a process that is gone or waits to be reaped."""
    with suppress(FileNotFoundError, ProcessLookupError):
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    return False


# ---- the process dies


async def test_killed_mid_stream_it_fails_every_request_at_once_and_comes_back():
    async with process_backend(QUICK, delay_s=0.002) as backend:
        first = backend.pid
        wanted = [request(f"r{i}", n=2, max_tokens=FOREVER) for i in range(20)]
        readers = [asyncio.ensure_future(read(backend, one)) for one in wanted]
        await until(lambda: idle_is(backend, False))
        os.kill(first, signal.SIGKILL)
        for reader in readers:
            error, seconds = await lost(reader)
            assert seconds < 1.0
            assert "killed by SIGKILL" in str(error)
            assert "retry" in error.remedy
        assert backend.state in ("loading", "ready")
        await works_again(backend)
        assert backend.pid != first


async def idle_is(backend, expected):
    return await idle(backend) is expected


async def test_tokens_that_arrived_before_the_death_are_delivered():
    async with process_backend(QUICK) as backend:
        got = []

        async def collect():
            async for event in backend.generate(request("r", script.DIE_IN_STEP)):
                got.extend(event.token_ids)

        with pytest.raises(EngineDeadError):
            await collect()
        assert got == [0, 1]


async def test_while_it_restarts_requests_are_refused_at_once():
    slow = Patience(max_restarts=2, window_s=60.0, first_delay_s=1.0)
    async with process_backend(slow) as backend:
        os.kill(backend.pid, signal.SIGKILL)
        await until(lambda: backend.state == "loading")
        began = time.monotonic()
        with pytest.raises(EngineDeadError, match="retry in a few seconds"):
            await read(backend, request())
        with pytest.raises(EngineDeadError):
            await backend.explain()
        assert (await backend.stats()).num_running == 0
        assert time.monotonic() - began < 0.5
        await works_again(backend)


async def test_an_exception_in_a_step_is_a_clean_error_and_a_new_process():
    async with process_backend(QUICK, delay_s=0.002) as backend:
        first = backend.pid
        neighbour = asyncio.ensure_future(read(backend, request("n", max_tokens=FOREVER)))
        await asyncio.sleep(0.02)
        for reader in (read(backend, request("bad", script.RAISE_IN_STEP)), neighbour):
            error, _ = await lost(reader)
            assert "failed in a step" in str(error)
            assert "secret" not in str(error)
        await works_again(backend)
        assert backend.pid != first


async def test_a_lost_device_is_named_to_every_reader_and_a_new_process_serves():
    async with process_backend(QUICK, delay_s=0.002) as backend:
        first = backend.pid
        neighbour = asyncio.ensure_future(read(backend, request("n", max_tokens=FOREVER)))
        await asyncio.sleep(0.02)
        for reader in (read(backend, request("bad", script.LOSE_DEVICE)), neighbour):
            error, seconds = await lost(reader)
            assert "the engine ends itself: the GPU cannot be used" in str(error)
            assert "retry" in error.remedy
            assert seconds < 2.0
        await works_again(backend)
        assert backend.pid != first
        assert not exists(first)


async def test_a_restart_does_not_fall_back_to_another_device():
    async with process_backend(QUICK) as backend:
        supervisor = backend._supervisor
        assert supervisor._config.model.device == "auto"
        assert (await backend.explain())["device"] == "auto"
        supervisor.status.info = dataclasses.replace(backend.info, device="cuda")
        os.kill(backend.pid, signal.SIGKILL)
        await until(lambda: backend.state == "loading")
        await works_again(backend)
        assert (await backend.explain())["device"] == "cuda"


async def test_a_bug_while_queueing_refuses_one_request_and_keeps_the_process():
    async with process_backend(QUICK) as backend:
        first = backend.pid
        with pytest.raises(RequestError, match="could not queue") as caught:
            await read(backend, request("bad", script.RAISE_IN_SUBMIT))
        assert caught.value.status == 500
        await works_again(backend)
        assert backend.pid == first
        assert await until(lambda: idle(backend))


async def test_a_step_too_large_to_send_is_a_clean_error():
    async with process_backend(QUICK) as backend:
        error, _ = await lost(read(backend, request("huge", script.HUGE_STEP, max_tokens=9)))
        assert "failed in a step" in str(error)
        await works_again(backend)


async def test_a_process_that_hangs_is_killed_and_replaced():
    patience = Patience(first_delay_s=0.05, hang_s=0.6)
    async with process_backend(patience) as backend:
        first = backend.pid
        error, seconds = await lost(read(backend, request("r", script.HANG_IN_STEP)))
        assert "no sign of life for 0.6 s" in str(error)
        assert 0.5 < seconds < 3.0
        await works_again(backend)
        assert not exists(first)


async def test_a_process_with_long_steps_or_without_work_is_not_taken_for_hung():
    patience = Patience(max_restarts=0, hang_s=0.6)
    async with process_backend(patience, delay_s=0.4, prefill=True) as backend:
        first = backend.pid
        await asyncio.sleep(1.0)
        await read(backend, request("r", *([1] * 4), max_tokens=1))
        assert backend.pid == first


async def test_too_many_deaths_are_final():
    async with process_backend(QUICK) as backend:
        for _ in range(3):
            await until(lambda: backend.state == "ready", 10)
            with pytest.raises(EngineDeadError):
                await read(backend, request("r", script.DIE_IN_STEP))
        await until(lambda: backend.state == "broken")
        assert "SIGKILL" in backend.failure
        assert "2 restarts in 60 s" in backend.failure
        assert backend.pid is None
        with pytest.raises(EngineDeadError, match="SIGKILL"):
            await read(backend, request())


def test_restarts_wait_longer_each_time_and_are_forgiven():
    patience = Patience(max_restarts=3, window_s=100, first_delay_s=1, longest_delay_s=3)
    budget = RestartBudget(patience)
    assert [budget.next_delay_s(now) for now in (0, 1, 2, 3)] == [1, 2, 3, None]
    assert budget.next_delay_s(102.5) == 2


# ---- loading goes wrong


async def failing_start(backend):
    try:
        with pytest.raises(RtpError) as caught:
            await asyncio.wait_for(backend.start(), 15)
        return caught.value
    finally:
        await backend.close()


def loads(marker):
    return len(marker.read_text().split()) if marker.exists() else 0


async def test_an_error_in_the_configuration_is_raised_whole_and_not_tried_again(tmp_path):
    marker = tmp_path / "loads"
    backend = new_process_backend(QUICK, load="config", marker=str(marker))
    try:
        with pytest.raises(ConfigError) as caught:
            await backend.start()
        assert caught.value.field == "kv.block_size"
        assert caught.value.remedy == "set 16"
        assert str(caught.value) == "kv.block_size: must divide 256 (set 16)"
        assert backend.state == "broken"
        assert backend.failure == str(caught.value)
        with pytest.raises(ConfigError):
            await backend.start()
        with pytest.raises(EngineDeadError, match="must divide 256"):
            await read(backend, request())
        with pytest.raises(EngineDeadError):
            _ = backend.info
        assert loads(marker) == 1
    finally:
        await backend.close()


async def test_a_bug_while_loading_is_reported_and_not_tried_again(tmp_path):
    marker = tmp_path / "loads"
    backend = new_process_backend(QUICK, load="bug", marker=str(marker))
    error = await failing_start(backend)
    assert type(error) is EngineDeadError
    assert "KeyError" in str(error)
    assert loads(marker) == 1


async def test_a_process_that_exits_while_loading_is_tried_again_until_the_limit(tmp_path):
    marker = tmp_path / "loads"
    backend = new_process_backend(QUICK, load="exit", marker=str(marker))
    error = await failing_start(backend)
    assert "exited with status 7, after 2 restarts" in str(error)
    assert loads(marker) == 3


async def test_a_builder_that_cannot_be_imported_is_reported():
    error = await failing_start(new_process_backend(QUICK, builder="no_such_module:build"))
    assert "no_such_module" in str(error)


async def test_a_process_that_dies_at_import_is_tried_again_until_the_limit(tmp_path, monkeypatch):
    (tmp_path / "dies_at_import.py").write_text("import os; os._exit(9)\n")
    find_scripts()
    monkeypatch.setenv("PYTHONPATH", f"{tmp_path}{os.pathsep}{os.environ['PYTHONPATH']}")
    error = await failing_start(new_process_backend(QUICK, builder="dies_at_import:build"))
    assert "exited with status 9, after 2 restarts" in str(error)


async def test_killed_while_loading_it_starts_again(tmp_path):
    marker = tmp_path / "loads"
    backend = new_process_backend(QUICK, load="slow", marker=str(marker))
    start = asyncio.ensure_future(backend.start())
    try:
        await until(lambda: backend.progress is not None, 5)
        assert backend.state == "loading"
        with pytest.raises(EngineDeadError, match="loading"):
            await read(backend, request())
        os.kill(backend.pid, signal.SIGKILL)
        await until(lambda: loads(marker) == 2, 5)
        assert not start.done()
    finally:
        await backend.close()
        await asyncio.gather(start, return_exceptions=True)


async def test_close_during_load_is_immediate_and_ends_the_waiting_start():
    backend = new_process_backend(QUICK, load="slow")
    start = asyncio.ensure_future(backend.start())
    await until(lambda: backend.progress is not None, 5)
    pid = backend.pid
    await asyncio.wait_for(backend.close(), 1)
    with pytest.raises(EngineDeadError, match="closed"):
        await start
    assert not exists(pid)


async def test_a_cancelled_start_leaves_the_load_running():
    backend = new_process_backend(QUICK)
    try:
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(backend.start(), 0.01)
        await backend.start()
        assert backend.state == "ready"
    finally:
        await backend.close()


async def test_close_without_start_and_start_after_close():
    backend = new_process_backend(QUICK)
    with pytest.raises(EngineDeadError, match="not started"):
        await read(backend, request())
    await backend.close()
    await backend.close()
    with pytest.raises(EngineDeadError, match="closed"):
        await backend.start()


async def test_a_socket_path_that_is_too_long_names_the_remedy(tmp_path, monkeypatch):
    long = tmp_path / ("x" * 100)
    long.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(long))
    backend = new_process_backend(QUICK)
    with pytest.raises(ConfigError, match=r"TMPDIR.*shorter directory"):
        await backend.start()
    await backend.close()
    assert list(long.iterdir()) == []


async def test_a_process_that_does_not_stop_is_killed_after_the_timeout():
    async with process_backend(QUICK, shutdown_timeout_s=0.3) as backend:
        pid = backend.pid
        reader = asyncio.ensure_future(read(backend, request("r", script.HANG_IN_STEP)))
        await asyncio.sleep(0.1)
        began = time.monotonic()
        await backend.close()
        assert 0.25 < time.monotonic() - began < 2.0
        assert not exists(pid)
        with pytest.raises(EngineDeadError):
            await reader


# ---- strangers on the socket


@pytest.fixture
async def besieged(tmp_path, monkeypatch):
    """A backend, and the endpoint that others of this user can reach."""
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    async with process_backend(QUICK, delay_s=0.001) as backend:
        (directory,) = tmp_path.iterdir()
        yield backend, f"ipc://{directory}/engine"


class Stranger:
    def __init__(self, endpoint, **options):
        self.context = zmq.Context()
        self.socket = self.context.socket(zmq.DEALER)
        for name, value in options.items():
            self.socket.set(getattr(zmq, name), value)
        self.socket.connect(endpoint)

    def close(self):
        self.context.destroy(linger=0)


async def test_a_stranger_is_neither_heard_nor_told_anything(besieged):
    backend, endpoint = besieged
    first = backend.pid
    stranger = Stranger(endpoint)
    reader = asyncio.ensure_future(read(backend, request("r", max_tokens=200)))
    refusal = RequestError(None, "forged")
    for frame in (
        encode(Hello("0" * 64)),
        encode(Refused("r", describe(refusal))),
        encode(Hello("é")),
        b"\xc1garbage",
        b"",
        os.urandom(100_000),
    ):
        stranger.socket.send(frame)
        stranger.socket.send_multipart([frame, b"more", frame])
    tokens, _ = await reader
    assert tokens == {0: list(range(200))}
    assert stranger.socket.poll(50) == 0
    stranger.close()
    assert backend.pid == first


async def test_an_oversized_frame_costs_the_stranger_its_connection(besieged):
    backend, endpoint = besieged
    stranger = Stranger(endpoint, RECONNECT_IVL=-1)
    monitor = stranger.socket.get_monitor_socket(zmq.EVENT_DISCONNECTED)
    stranger.socket.send(bytes(MAX_FRAME_BYTES + 1), copy=False)
    assert await asyncio.to_thread(monitor.poll, 5000)
    stranger.close()
    await works_again(backend)


PUPPET = """
import os, sys, zmq
from rtp_core.engine.wire import Hello, Ready, Stats, encode
from scripted_engine import INFO

def main(endpoint):
    token = os.read(0, 65).decode().strip()
    socket = zmq.Context().socket(zmq.DEALER)
    socket.connect(endpoint)
    socket.send(encode(Hello(token)))
    socket.recv()
    socket.send(encode(Ready(INFO)))
    socket.recv()
    {deed}
    while True:
        socket.recv()
"""


@pytest.mark.parametrize(
    "deed",
    [
        "socket.send(b'\\xc1garbage')",
        "socket.send(b'')",
        "socket.send(encode(Hello(token)))",
        "socket.disconnect(endpoint); import time; time.sleep(60)",
    ],
)
async def test_an_engine_that_speaks_garbage_or_hangs_up_is_replaced(tmp_path, monkeypatch, deed):
    (tmp_path / "puppet.py").write_text(PUPPET.format(deed=deed))
    find_scripts()
    monkeypatch.setenv("PYTHONPATH", f"{tmp_path}{os.pathsep}{os.environ['PYTHONPATH']}")
    monkeypatch.setattr(
        "rtp_core.engine.child.COMMAND", ("-c", "import puppet, sys; puppet.main(sys.argv[1])")
    )
    patience = Patience(max_restarts=0, hang_s=1.0)
    async with process_backend(patience) as backend:
        _, seconds = await lost(read(backend, request()))
        assert seconds < 3.0
        await until(lambda: backend.state == "broken", 5)
        assert backend.pid is None


async def test_garbage_from_the_parent_ends_the_process():
    find_scripts()
    context = zmq.Context()
    router = context.socket(zmq.ROUTER)
    port = router.bind_to_random_port("tcp://127.0.0.1")
    command = [
        sys.executable,
        "-m",
        "rtp_core.engine.process_main",
        f"tcp://127.0.0.1:{port}",
        "scripted_engine:build",
    ]
    child = subprocess.Popen(command, stdin=subprocess.PIPE, stderr=subprocess.PIPE)
    try:
        child.stdin.write(b"token\n")
        child.stdin.flush()
        assert router.poll(5000)
        peer, hello = router.recv_multipart()
        assert decode_from_engine(hello) == Hello("token")
        router.send_multipart([peer, b"\xc1garbage"])
        log = await asyncio.to_thread(child.stderr.read)
        assert await asyncio.to_thread(child.wait, 5) == 1
        assert b"DecodeError" in log
    finally:
        child.kill()
        child.communicate()
        context.destroy(linger=0)


# ---- the parent dies


PARENT = """
import asyncio, json, os, sys
sys.path.insert(0, {tests!r})
from backend_cases import new_process_backend

async def main():
    backend = new_process_backend(**json.loads(sys.argv[1]))
    start = asyncio.ensure_future(backend.start())
    while backend.progress is None:
        await asyncio.sleep(0.01)
    print(backend.pid, flush=True)
    await start
    {then}

asyncio.run(main())
"""


def run_parent(then, **script):
    source = PARENT.format(tests=str(ENGINE_TESTS), then=then)
    return subprocess.Popen(
        [sys.executable, "-c", source, json.dumps(script)], stdout=subprocess.PIPE, text=True
    )


@pytest.mark.parametrize("load", ["well", "slow"])
async def test_when_the_parent_is_killed_the_engine_is_gone(load):
    parent = run_parent("await asyncio.sleep(60)", load=load)
    pid = int(await asyncio.to_thread(parent.stdout.readline))
    assert exists(pid)
    parent.kill()
    parent.wait()
    await until(lambda: not exists(pid), 2)
    parent.stdout.close()


async def test_a_parent_that_ends_without_closing_leaves_nothing_behind(tmp_path, monkeypatch):
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    parent = run_parent("pass")
    pid = int(await asyncio.to_thread(parent.stdout.readline))
    assert await asyncio.to_thread(parent.wait, 10) == 0
    await until(lambda: not exists(pid), 2)
    parent.stdout.close()
    assert list(tmp_path.iterdir()) == []


async def test_without_the_kernels_help_end_of_file_tells_the_engine():
    find_scripts()
    code = (
        "import rtp_core.engine.process_main as m, sys;"
        "m.sys.platform = 'other';"
        "sys.exit(m.main(['ipc:///nonexistent/socket', 'scripted_engine:build']))"
    )
    child = subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE)
    child.stdin.write(b"token\n")
    child.stdin.flush()
    await asyncio.sleep(0.5)
    assert child.poll() is None
    child.stdin.close()
    assert await asyncio.to_thread(child.wait, 2) == 5


# ---- readers


async def test_a_reader_that_never_reads_is_ended_and_its_neighbour_is_served():
    async with process_backend(QUICK) as backend:
        stalled = backend.generate(request("stalled", max_tokens=FOREVER, logprobs=20))
        await anext(stalled)
        tokens, _ = await read(backend, request("neighbour", max_tokens=100))
        assert tokens == {0: list(range(100))}
        await until(lambda: idle(backend), 20)
        assert (await backend.stats()).generation_tokens < 20_000
        with pytest.raises(CapacityError, match="unread"):
            await anext(stalled)


@pytest.mark.parametrize("stage", ["queue", "prefill", "decode"])
async def test_a_generator_closed_early_frees_the_request(stage):
    async with process_backend(QUICK, delay_s=0.005, slots=1, prefill=True) as backend:
        blocker = backend.generate(request("blocker", max_tokens=FOREVER))
        if stage == "queue":
            await anext(blocker)
        prompt = (1,) * (1000 if stage == "prefill" else 1)
        async with aclosing(backend.generate(request("r", *prompt, max_tokens=FOREVER))) as events:
            with suppress(TimeoutError):
                await asyncio.wait_for(anext(events), 0.05)
        await blocker.aclose()
        await until(lambda: idle(backend))


def test_a_loop_closed_during_generation_frees_the_request():
    backend = new_process_backend(QUICK, delay_s=0.002)
    asyncio.run(backend.start())
    loop = asyncio.new_event_loop()
    events = backend.generate(request(max_tokens=FOREVER))
    loop.run_until_complete(anext(events))
    loop.close()

    async def afterwards():
        await until(lambda: idle(backend))
        await works_again(backend)
        await backend.close()

    asyncio.run(afterwards())


async def test_nothing_is_left_running_after_close():

    before = set(threading.enumerate())
    async with process_backend(QUICK) as backend:
        await read(backend, request())
    await until(
        lambda: not {t for t in threading.enumerate() if t.name.startswith("rtp-")} - before
    )
    assert asyncio.all_tasks() == {asyncio.current_task()}
