"""The whole service with many requests in flight when it is told to stop, or its engine dies."""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx

sys.path.insert(0, str(Path(__file__).parent.parent / "e2e"))
from serving import serving

CHAT = "/v1/chat/completions"
FLAGS = ("--dtype", "float32", "--set", "kv.memory=33554432", "--max-num-seqs", "8")
ASK = {"messages": [{"role": "user", "content": "abc"}], "ignore_eos": True, "max_tokens": 300}
KINDS = (
    {"stream": True},
    {"stream": True, "n": 2},
    {"stream": False},
    {"stream": True, "seed": 4, "temperature": 1.0},
)
COUNT = 24
"""More than run at once, so that some wait when it happens."""
CHOICES = sum(KINDS[number % len(KINDS)].get("n", 1) for number in range(COUNT))


class Crowd:
    """`COUNT` requests of all kinds under way, each in a thread."""

    def __init__(self, url):
        self._url = url
        self._pool = ThreadPoolExecutor(COUNT)
        bodies = [{**ASK, **KINDS[number % len(KINDS)]} for number in range(COUNT)]
        self.answers = [self._pool.submit(self._ask, body) for body in bodies]
        until_s = time.monotonic() + 20
        while sum(at_work(url)) < CHOICES:
            assert time.monotonic() < until_s
            time.sleep(0.01)

    def _ask(self, body):
        with httpx.Client(base_url=self._url, timeout=60) as client:
            answer = client.post(CHAT, json=body)
        return body, answer

    def results(self, seconds=60):
        """Bodies and answers once all are there; a cut connection raises."""
        try:
            return [one.result(seconds) for one in self.answers]
        finally:
            self._pool.shutdown()


def at_work(url):
    """Choices that run and that wait."""
    engine = httpx.get(f"{url}/v1/stats", timeout=30).json()["engine"]
    return engine["num_running"], engine["num_waiting"]


def events(answer):
    """Of a stream that came to its end."""
    assert answer.status_code == 200
    lines = [line for line in answer.text.splitlines() if line.startswith("data: ")]
    assert lines[-1] == "data: [DONE]"
    return [json.loads(line.removeprefix("data: ")) for line in lines[:-1]]


def is_whole(body, answer):
    """True for an answer of full length; fails when it is neither whole nor an error, told."""
    if answer.status_code != 200 or not body.get("stream"):
        return answer.status_code == 200
    told = events(answer)
    if "error" in told[-1]:
        return False
    ends = [one for event in told for one in event["choices"] if one["finish_reason"]]
    assert [one["finish_reason"] for one in ends] == ["length"] * body.get("n", 1)
    return True


def failure(body, answer):
    """Code of the error that ended a request; a refusal says when to come back."""
    if body.get("stream") and answer.status_code == 200:
        return events(answer)[-1]["error"]["code"]
    assert answer.status_code == 503
    assert int(answer.headers["retry-after"]) > 0
    return answer.json()["error"]["code"]


def gone(pids):
    return all(not Path(f"/proc/{pid}").exists() for pid in pids)


def test_a_drain_cuts_no_stream_and_refuses_newcomers(tiny_model, tmp_path):
    flags = (*FLAGS, "--shutdown-timeout", "60")
    with serving(tiny_model, tmp_path / "log", *flags) as server:
        pids = server.engine_pids()
        with httpx.Client(base_url=server.url, timeout=30) as kept:
            assert kept.get("/health").status_code == 200
            crowd = Crowd(server.url)
            server.process.send_signal(signal.SIGTERM)
            while server.get("/health").status_code != 503:
                time.sleep(0.01)
            for client in (kept, httpx):
                base = "" if client is kept else server.url
                for body in (ASK, {**ASK, "stream": True}):
                    answer = client.post(base + CHAT, json=body, timeout=30)
                    assert failure(body, answer) == "server_draining"
        assert all(is_whole(*one) for one in crowd.results())
        assert server.process.wait(15) == 0
        assert gone(pids)


def test_what_outlasts_the_grace_period_is_ended_and_told_so(tiny_model, tmp_path):
    flags = (*FLAGS, "--shutdown-timeout", "0.3")
    with serving(tiny_model, tmp_path / "log", *flags) as server:
        crowd = Crowd(server.url)
        began = time.monotonic()
        server.process.send_signal(signal.SIGTERM)
        ends = [failure(*one) for one in crowd.results() if not is_whole(*one)]
        assert set(ends) == {"server_draining"}
        assert len(ends) > COUNT // 2
        assert server.process.wait(15) == 0
        assert time.monotonic() - began < 15


def test_a_killed_engine_is_told_to_all_and_comes_back(tiny_model, tmp_path):
    with serving(tiny_model, tmp_path / "log", "--verbose", *FLAGS) as server:
        for _ in range(2):
            (pid,) = server.engine_pids()
            crowd = Crowd(server.url)
            began = time.monotonic()
            os.kill(pid, signal.SIGKILL)
            results = crowd.results(20)
            assert time.monotonic() - began < 20
            ends = [failure(*one) for one in results if not is_whole(*one)]
            assert set(ends) <= {"engine_dead", "model_loading"}
            assert len(ends) > COUNT // 2
            server.wait_healthy()
            assert server.engine_pids() != [pid]
        assert is_whole(ASK, server.post(CHAT, ASK))
        assert at_work(server.url) == (0, 0)
    lines = [line for line in server.log.read_text().splitlines() if "request_finished" in line]
    ids = [line.split(" id=")[1].split()[0] for line in lines]
    assert len(ids) == len(set(ids)) == 2 * COUNT + 1
