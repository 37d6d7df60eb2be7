"""The server's own records of a soak, and what must be true of them."""

from __future__ import annotations

import re
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

import httpx
from crowd import Ending

LINE = re.compile(r"request_finished (.*)$")
BAD_LOG = re.compile(r"^(WARNING|ERROR|CRITICAL)|Traceback|never retrieved|socket\.send\(\) raised")
REASONS = ("stop", "length", "abort", "error")


def resident_mb(pid: int) -> float:
    """Memory of a process that no other has, in MB: pages of files do not count."""
    text = Path(f"/proc/{pid}/smaps_rollup").read_text()
    kinds = re.findall(r"^Private_(?:Clean|Dirty): +(\d+) kB$", text, re.MULTILINE)
    return sum(map(int, kinds)) / 1024


@dataclass
class Memory:
    """Samples of (seconds, MB) of one process."""

    pid: int
    samples: list[tuple[float, float]] = field(default_factory=list)

    def sample(self) -> None:
        self.samples.append((time.monotonic(), resident_mb(self.pid)))

    def growth_mb(self) -> float:
        """How much higher the last fifth lies than the second: the first warms caches up."""
        fifth = max(1, len(self.samples) // 5)
        second = [size for _, size in self.samples[fifth : 2 * fifth]]
        last = [size for _, size in self.samples[-fifth:]]
        return sum(last) / len(last) - sum(second) / max(1, len(second))


def finished_rows(log: str) -> list[dict[str, str]]:
    """Fields of each line about a finished request."""
    found = (LINE.search(line) for line in log.splitlines())
    return [dict(part.split("=", 1) for part in one[1].split()) for one in found if one]


def bad_lines(log: str) -> list[str]:
    """Lines that a healthy server does not write."""
    return [line for line in log.splitlines() if BAD_LOG.search(line)]


def samples_of(text: str) -> dict[str, float]:
    """Sums of a metrics page over everything but the finish reason."""
    sums: Counter[str] = Counter()
    for line in text.splitlines():
        if line.startswith("rtp:"):
            name, _, rest = line.partition("{")
            reason = re.search(r'finished_reason="(\w+)"', rest)
            sums[f"{name}/{reason[1]}" if reason else name] += float(line.rsplit(" ", 1)[1])
    return dict(sums)


def settle(url: str, seconds: float = 30.0) -> dict:
    """The engine's stats once nothing runs or waits."""
    until_s = time.monotonic() + seconds
    while True:
        engine = httpx.get(f"{url}/v1/stats", timeout=30).json()["engine"]
        if engine["num_running"] == engine["num_waiting"] == 0:
            return engine
        assert time.monotonic() < until_s, f"still at work: {engine}"
        time.sleep(0.1)


def check(endings: list[Ending], log: str, metrics: str, engine: dict) -> Counter[str]:
    """Every request is accounted for exactly once, everywhere alike. Returns what there was."""
    lost = [f"{one.ask.id} {one.ask.path}: {one.words}" for one in endings if one.kind == "lost"]
    assert not lost, lost[:5]
    assert not bad_lines(log), bad_lines(log)[:5]
    rows = finished_rows(log)
    times = Counter(row["id"] for row in rows)
    assert max(times.values(), default=0) <= 1, times.most_common(3)
    by_id = {row["id"]: row for row in rows}
    asked = {one.ask.id: one for one in endings}
    assert set(by_id) <= set(asked)
    for one in endings:
        check_one(one, by_id.get(one.ask.id))
    check_sums(rows, asked, samples_of(metrics), engine)
    return Counter(one.kind if one.kind != "refused" else one.words for one in endings)


def check_one(ending: Ending, row: dict[str, str] | None) -> None:
    """A client's view of its request against the server's."""
    if row is None:
        assert ending.kind == "left", f"{ending} is in no record"
        return
    if ending.kind == "left":
        assert row["status"] in ("200", "499", "504"), row
    elif ending.kind == "refused":
        assert (row["status"], ending.words) == ("504", "deadline_exceeded"), (ending, row)
    else:
        assert row["status"] == "200", (ending, row)
        assert int(row["completion_tokens"]) == ending.completion_tokens, (ending, row)
        assert int(row["prompt_tokens"]) == ending.prompt_tokens, (ending, row)


def check_sums(
    rows: list[dict[str, str]], asked: dict[str, Ending], metrics: dict[str, float], engine: dict
) -> None:
    """Metrics are the sums of the records; the engine has nothing left."""
    for name, key in (
        ("rtp:generation_tokens_total", "completion_tokens"),
        ("rtp:prompt_tokens_total", "prompt_tokens"),
        ("rtp:prompt_tokens_cached_total", "cached_tokens"),
    ):
        assert metrics[name] == sum(int(row[key]) for row in rows), name
    ended = {one: metrics[f"rtp:request_success_total/{one}"] for one in REASONS}
    choices = sum(asked[row["id"]].ask.choices for row in rows)
    assert sum(ended.values()) == choices, (ended, choices)
    assert ended["error"] == 0
    # What was left before its prompt was a request of the engine never came there.
    assert ended["stop"] + ended["length"] <= sum(engine["finished"].values()) <= choices
    assert engine["kv_usage"] == 0
    assert not any(engine["blocks"].values()), engine["blocks"]
    assert engine["generation_tokens"] >= metrics["rtp:generation_tokens_total"]
