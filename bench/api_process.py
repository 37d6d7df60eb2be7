"""The API process under many streams: does it keep up on one core, and what does it add?

    python bench/api_process.py --streams 256 --rate 20000

An engine without a model (its own process, over the real wire) gives every stream a token a
step; each token tells when it was made. A client in a third process reads all streams and looks
how old the tokens are. The server is alone on one core; engine and client share another.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import signal
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

from streams.client import Load, Seen
from streams.engine import write_model

from rtp_core.bench.report import Report, Subject
from rtp_core.config.environment import process_environment

HERE = Path(__file__).parent
Run = dict[str, Any]
COMPARED = ("delay_p50_ms", "delay_p99_ms", "server_cpu_s_per_1000_tokens")
KEPT_UP = 0.99
"""Share of the engine's tokens that must have arrived when the time is over."""


@contextmanager
def server(folder: Path, core: int, profile: Path | None) -> Iterator[tuple[int, int]]:
    """Port and process id of a server that is ready."""
    command = [sys.executable, "-m", "streams.server", str(folder), str(core)]
    if profile is not None:
        command.append(str(profile))
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment())
    assert process.stdout is not None
    try:
        found = re.search(r":(\d+)$", process.stdout.readline().strip())
        if found is None:
            raise SystemExit("the server did not start")
        yield int(found[1]), process.pid
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(30)


def environment() -> dict[str, str]:
    """For processes that import from this folder."""
    path = os.pathsep.join([str(HERE), *filter(None, sys.path)])
    return {**process_environment(), "PYTHONPATH": path}


def run(load: Load) -> Run:
    """All streams once, from a fresh client."""
    done = subprocess.run(
        [sys.executable, "-m", "streams.client"],
        input=json.dumps(asdict(load)),
        stdout=subprocess.PIPE,
        text=True,
        env=environment(),
        check=True,
    )
    seen = Seen(**json.loads(done.stdout))
    offered = load.streams / load.step_s
    rate = seen.tokens / seen.seconds
    return {
        "offered_tokens_per_s": offered,
        "tokens_per_s": rate,
        "tokens_per_chunk": seen.tokens / seen.chunks,
        "lost": seen.lost,
        "kept_up": rate >= KEPT_UP * offered and not seen.lost,
        "delay_p50_ms": seen.delay_p50_ms,
        "delay_p99_ms": seen.delay_p99_ms,
        "delay_max_ms": seen.delay_max_ms,
        "behind_ms": seen.behind_ms,
        "server_cpu_share": seen.server_cpu_s / seen.seconds,
        "server_cpu_s_per_1000_tokens": 1000 * seen.server_cpu_s / seen.tokens,
        "client_cpu_share": seen.client_cpu_s / seen.seconds,
    }


def told(one: Run) -> str:
    """A run in a line."""
    return (
        f"{one['offered_tokens_per_s']:8.0f} tokens/s offered, {one['tokens_per_s']:8.0f} seen"
        f" ({one['tokens_per_chunk']:.2f} a chunk, {one['lost']} lost)"
        f"  delay p50 {one['delay_p50_ms']:6.1f} p99 {one['delay_p99_ms']:6.1f} ms"
        f"  cpu {one['server_cpu_share']:.2f} = {one['server_cpu_s_per_1000_tokens']:.4f} s/1000"
        f"  client {one['client_cpu_share']:.2f}  {'kept up' if one['kept_up'] else 'FELL BEHIND'}"
    )


class Bench:
    """Runs against one server."""

    def __init__(self, given: argparse.Namespace, port: int, pid: int) -> None:
        self._given = given
        self._port = port
        self._pid = pid

    def run(self, rate: float) -> Run:
        """One run at this many tokens a second."""
        given, step_s = self._given, self._given.streams / rate
        steps = round((given.seconds + given.warm_up) / step_s)
        where = (self._port, self._pid, given.client_core)
        ask = (given.path, given.fields)
        one = run(Load(*where, given.streams, step_s, steps, given.warm_up, *ask))
        print(told(one), flush=True)
        return one

    def highest(self) -> float:
        """The last of rates, each a quarter above the one before, with which it keeps up.

        At all of them a token may be as late as a step takes at the first.
        """
        rate, sustained = self._given.rate, 0.0
        latest_ms = 1000 * self._given.streams / rate
        while (one := self.run(rate))["kept_up"] and one["delay_p99_ms"] <= latest_ms:
            rate, sustained = 1.25 * rate, rate
        return sustained


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Streams at once through one API process.")
    parser.add_argument("--streams", type=int, default=256)
    parser.add_argument("--rate", type=float, default=20_000, help="tokens/s of all streams")
    parser.add_argument("--seconds", type=float, default=5.0, help="measured time a run")
    parser.add_argument("--warm-up", type=float, default=1.5, help="seconds before it")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--highest", action="store_true", help="look for the highest rate, too")
    parser.add_argument("--path", default="/v1/chat/completions")
    parser.add_argument("--fields", type=json.loads, default={}, help="JSON that joins the bodies")
    parser.add_argument("--server-core", type=int, default=0)
    parser.add_argument("--client-core", type=int, default=1, help="of client and engine")
    parser.add_argument("--profile", type=Path, help="write a cProfile of the server's loop")
    parser.add_argument("--json", type=Path)
    return parser.parse_args()


def main() -> None:
    given = arguments()
    files = ("json", "profile")
    params = {name: value for name, value in vars(given).items() if name not in files}
    report = Report("api_process", Subject("clock", "cpu"), params)
    with tempfile.TemporaryDirectory() as name:
        write_model(Path(name), given.client_core)
        with server(Path(name), given.server_core, given.profile) as (port, pid):
            bench = Bench(given, port, pid)
            runs = [bench.run(given.rate) for _ in range(given.repeats)]
            report.results["runs"] = runs
            for word, of in (("best", min), ("median", statistics.median)):
                report.results[word] = {key: of(one[key] for one in runs) for key in COMPARED}
                print(word, json.dumps(report.results[word]))
            if given.highest:
                report.results["highest_tokens_per_s"] = bench.highest()
    print(f"load average {os.getloadavg()[0]:.1f}")
    if given.json is not None:
        given.json.parent.mkdir(parents=True, exist_ok=True)
        given.json.write_text(json.dumps(report.as_json(), indent=2) + "\n")


if __name__ == "__main__":
    main()
