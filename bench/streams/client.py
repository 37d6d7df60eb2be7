"""``python -m streams.client``: streams at once over plain sockets, and how old each token is.

Reads a JSON object of `Load`'s fields from standard input, writes one of `Seen`'s.
"""

from __future__ import annotations

import json
import math
import os
import re
import select
import socket
import sys
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from streams.engine import PERIOD_S, TICK_S

STAMP = re.compile(rb' (\d{5})(?=[ "])')
END = b"data: [DONE]\n\n\r\n0\r\n\r\n"
PATIENCE_S = 15.0
"""Without a byte on any stream for this long the run has failed."""


@dataclass(frozen=True, slots=True)
class Load:
    """What to ask for: all streams at once, one token each every `step_s`.

    `pid` is watched; `fields` join the bodies.
    """

    port: int
    pid: int
    core: int
    streams: int
    step_s: float
    steps: int
    warm_up_s: float
    path: str = "/v1/chat/completions"
    fields: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Seen:
    """Of the time between warm-up and the first stream's end; `lost` is of all of it.

    `behind_ms` is how much later tokens were at its end than at its beginning.
    """

    tokens: int
    chunks: int
    seconds: float
    lost: int
    delay_p50_ms: float
    delay_p99_ms: float
    delay_max_ms: float
    behind_ms: float
    server_cpu_s: float
    client_cpu_s: float


class Stream:
    """One connection."""

    def __init__(self, load: Load, number: int) -> None:
        self.tokens = 0
        self.done = False
        self._tail = b""
        self.socket = socket.create_connection(("127.0.0.1", load.port))
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        body = {"max_tokens": load.steps, "stream": True, "ignore_eos": True, **load.fields}
        body["seed"] = round(1e6 * load.step_s)
        if load.path.endswith("chat/completions"):
            body["messages"] = [{"role": "user", "content": f"stream {number}"}]
        else:
            body["prompt"] = f"stream {number}"
        content = json.dumps(body).encode()
        self.socket.sendall(
            b"POST %b HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
            b"Content-Length: %d\r\n\r\n%b" % (load.path.encode(), len(content), content)
        )

    def read(self) -> list[bytes]:
        """Stamps that arrived."""
        data = self.socket.recv(1 << 18)
        if not data:
            self.done = True
            return []
        data = self._tail + data
        cut = data.rfind(b"\n") + 1
        data, self._tail = data[:cut], data[cut:]
        self.done = data.endswith(END)
        stamps = STAMP.findall(data)
        self.tokens += len(stamps)
        return stamps


def cpu_seconds(pid: int) -> float:
    """Of all threads of a process."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


class Watch:
    """All streams from the first byte to the last."""

    def __init__(self, load: Load) -> None:
        self._load = load
        self._times: list[float] = []
        self._counts: list[int] = []
        self._stamps: list[bytes] = []
        self._usage: list[tuple[float, float, float]] = []
        self._due_s = math.inf
        self._num_begun = 0
        self._streams = [Stream(load, number) for number in range(load.streams)]

    def run(self) -> None:
        """Read until all streams have ended, or none says anything."""
        poller = select.epoll()
        open_streams = {one.socket.fileno(): one for one in self._streams}
        for number in open_streams:
            poller.register(number, select.EPOLLIN)
        while open_streams and (ready := poller.poll(PATIENCE_S)):
            for number, _ in ready:
                stream = open_streams[number]
                self._read(stream)
                if stream.done:
                    del open_streams[number]
                    poller.unregister(number)
            begins = not self._usage and time.monotonic() >= self._due_s
            ends = len(self._usage) == 1 and len(open_streams) < self._load.streams
            if begins or ends:
                self._note()

    def _read(self, stream: Stream) -> None:
        fresh = not stream.tokens
        new = stream.read()
        if not new:
            return
        now = time.monotonic()
        self._times.append(now)
        self._counts.append(len(new))
        self._stamps += new
        self._num_begun += fresh
        if fresh and self._num_begun == self._load.streams:
            self._due_s = now + self._load.warm_up_s

    def _note(self) -> None:
        """The beginning or the end of what is measured."""
        self._usage.append((time.monotonic(), cpu_seconds(self._load.pid), time.process_time()))

    def seen(self) -> Seen:
        """The sums."""
        lost = sum(self._load.steps - one.tokens for one in self._streams)
        if len(self._usage) < 2:
            raise SystemExit(f"the streams did not run together; {lost} tokens were lost")
        (began, server_0, client_0), (ended, server_1, client_1) = self._usage
        times = np.array(self._times)
        at = np.repeat(times, np.array(self._counts))
        inside = (at >= began) & (at <= ended)
        stamps = np.array(self._stamps, dtype=np.int64)[inside]
        delays_ms = 1000 * ((at[inside] - TICK_S * stamps) % PERIOD_S)
        tenth = max(1, len(delays_ms) // 10)
        return Seen(
            tokens=len(delays_ms),
            chunks=int(((times >= began) & (times <= ended)).sum()),
            seconds=ended - began,
            lost=lost,
            delay_p50_ms=float(np.percentile(delays_ms, 50)),
            delay_p99_ms=float(np.percentile(delays_ms, 99)),
            delay_max_ms=float(delays_ms.max()),
            behind_ms=float(np.median(delays_ms[-tenth:]) - np.median(delays_ms[:tenth])),
            server_cpu_s=server_1 - server_0,
            client_cpu_s=client_1 - client_0,
        )


def main() -> None:
    load = Load(**json.load(sys.stdin))
    os.sched_setaffinity(0, {load.core})
    watch = Watch(load)
    watch.run()
    json.dump(asdict(watch.seen()), sys.stdout)


if __name__ == "__main__":
    main()
