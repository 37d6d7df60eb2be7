"""`rtp bench serve` and `trace`: requests over HTTP, to a server that runs or to one's own."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from rtp_core.bench.bodies import PATHS, Served, bodies, body_of, inspect, text_ask, words_for
from rtp_core.bench.client import Record, Target, fetch, stream
from rtp_core.bench.offline import check_length
from rtp_core.bench.own_server import num_threads, own_server
from rtp_core.bench.prompts import Ask, random_choices
from rtp_core.bench.report import Report, Subject, cpu_device
from rtp_core.bench.service_level import Goals, serve_results
from rtp_core.bench.trace import Arrival, Scale, ideal_hit_rate, scaled, tokens_of
from rtp_core.bench.traffic import Route, Send, Traffic, drive, poisson
from rtp_core.config.schema import EngineConfig
from rtp_core.errors import RtpError


@dataclass(frozen=True, slots=True)
class Where:
    """A running server at `url`, or one's own of `config`, with so many threads."""

    url: str | None
    config: EngineConfig
    threads: int | None = None


@dataclass(frozen=True, slots=True)
class Client:
    """How to ask: seconds a request may take, requests at once, warm-up requests, goals."""

    timeout_s: float | None
    max_concurrency: int | None
    warmup: int
    goals: Goals


@dataclass(frozen=True, slots=True)
class OpenLoop:
    """What `rtp bench serve` sends. `rate` in requests a second; asks replace random prompts."""

    endpoint: str
    rate: float
    num_prompts: int
    input_len: int
    output_len: int
    seed: int
    asks: Sequence[Ask] | None = None


@dataclass(frozen=True, slots=True)
class Replay:
    """What `rtp bench trace` sends; `name` is the file's."""

    name: str
    arrivals: Sequence[Arrival]
    scale: Scale


@dataclass(frozen=True, slots=True)
class _Session:
    target: Target
    served: Served
    subject: Subject
    alive: Callable[[], bool]
    show: Callable[[str], None]

    def route(self, endpoint: str, client: Client) -> Route:
        return Route(
            self.target, PATHS[endpoint], client.timeout_s, client.max_concurrency, self.alive
        )


def serve(where: Where, client: Client, load: OpenLoop, show: Callable[[str], None]) -> Report:
    """Poisson arrivals at a rate, streamed answers."""
    with _session(where, show) as session:
        return asyncio.run(_serve(session, client, load))


def trace(where: Where, client: Client, replay: Replay, show: Callable[[str], None]) -> Report:
    """The arrivals of a trace at their times, or other times; requests too long are left out."""
    with _session(where, show) as session:
        return asyncio.run(_trace(session, client, replay))


async def _serve(session: _Session, client: Client, load: OpenLoop) -> Report:
    route = session.route(load.endpoint, client)
    if load.asks is None and session.served.max_model_len is not None:
        check_length(load.input_len, load.output_len, session.served.max_model_len)
    asks = load.asks or await _random_asks(session, load)
    # Warm-up prompts are others: their blocks must not serve the measured ones.
    others = replace(load, seed=load.seed + 1, num_prompts=client.warmup)
    warm = await _random_asks(session, others) if client.warmup else []
    await _warm_up(session, route, [body_of(session.served, load.endpoint, one) for one in warm])
    made = bodies(session.served, load.endpoint, asks)
    times = itertools.islice(poisson(load.rate, load.seed), len(asks))
    sends = [
        Send(at, ask.output_len, body) for at, ask, body in zip(times, asks, made, strict=True)
    ]
    params = {
        "endpoint": load.endpoint,
        "request_rate": load.rate if load.rate < float("inf") else "inf",
        "num_prompts": len(asks),
        "input_len": load.input_len if load.asks is None else None,
        "output_len": load.output_len,
        "dataset": load.asks is not None,
        "seed": load.seed,
        **_client_params(client),
    }
    report = Report("serve", session.subject, params)
    session.show(f"{len(sends)} requests to {session.target.host}:{session.target.port}")
    traffic = await drive(route, sends)
    offered = len(sends) / sends[-1].at_s if sends[-1].at_s > 0 else None
    _fill(report, traffic, client, {"offered_requests_per_s": offered})
    return report


async def _random_asks(session: _Session, load: OpenLoop) -> list[Ask]:
    """Exact lengths where the server tells its tokens; words of about that length elsewhere."""
    ids = session.served.token_ids
    if load.endpoint == "completions" and ids:
        prompts = random_choices(load.num_prompts, load.input_len, ids, load.seed)
        return [Ask(prompt, None, load.output_len) for prompt in prompts]
    wanted = load.input_len
    num_words = await words_for(session.target, load.endpoint, wanted)
    first = load.seed * 1_000_003
    return [
        text_ask(num_words, load.endpoint, load.output_len, first + number)
        for number in range(load.num_prompts)
    ]


async def _trace(session: _Session, client: Client, replay: Replay) -> Report:
    served, scale = session.served, replay.scale
    arrivals = scaled(replay.arrivals, scale)
    if not served.token_ids:
        raise RtpError(
            "the server has no POST /tokenize, so its vocabulary is unknown",
            remedy="replay against a server that has it, as rtp serve and vLLM do",
        )
    longest = served.max_model_len or 2**31
    fitting = [one for one in arrivals if one.input_length + one.output_length <= longest]
    if not fitting:
        shortest = min(one.input_length + one.output_length for one in arrivals)
        raise RtpError(
            f"every request of the trace is longer than the model's {longest} tokens; the "
            f"shortest has {shortest}",
            remedy="pass a smaller --length-scale",
        )
    route = session.route("completions", client)
    warm = Ask(served.token_ids[:8], None, 4)
    await _warm_up(session, route, [body_of(served, "completions", warm)] * client.warmup)
    sends = [
        Send(one.at_s, one.output_length, partial(_trace_body, served, one, scale))
        for one in fitting
    ]
    known = {
        "trace": replay.name,
        "requests": len(arrivals),
        "time_scale": scale.time,
        "length_scale": scale.length,
        "block_tokens": scale.block_tokens,
        **_client_params(client),
    }
    report = Report("trace", session.subject, known)
    session.show(f"{len(sends)} requests to {session.target.host}:{session.target.port}")
    traffic = await drive(route, sends)
    ended = serve_results(traffic, client.goals)
    given = ended["input_tokens"]
    more = {
        "prefix_cache_hit_rate": ended["cached_tokens"] / given if given else None,
        "prefix_cache_ideal_hit_rate": ideal_hit_rate(fitting, scale.block_tokens),
        "too_long_left_out": len(arrivals) - len(fitting),
    }
    _fill(report, traffic, client, more)
    return report


def _trace_body(served: Served, arrival: Arrival, scale: Scale) -> bytes:
    prompt = tokens_of(arrival, scale.block_tokens, served.token_ids)
    return body_of(served, "completions", Ask(tuple(prompt), None, arrival.output_length))


def _fill(report: Report, traffic: Traffic, client: Client, more: dict[str, Any]) -> None:
    report.results = {**serve_results(traffic, client.goals), **more}
    report.interrupted = traffic.interrupted


async def _warm_up(session: _Session, route: Route, warm: Sequence[bytes]) -> None:
    """Requests that do not count, then an empty prefix cache where the server can forget."""
    for body in warm:
        record = Record(0.0, 1)
        await stream(route.target, route.path, body, record, route.timeout_s)
        if record.error is not None:
            raise RtpError(
                f"a first request failed: {record.error}",
                remedy="see the server's log; nothing was measured",
            )
    await fetch(session.target, "POST", "/reset_prefix_cache")


def _client_params(client: Client) -> dict[str, Any]:
    goals_ms = {name: 1e3 * seconds for name, seconds in client.goals.items()}
    return {
        "max_concurrency": client.max_concurrency,
        "timeout_s": client.timeout_s,
        "warmup": client.warmup,
        "goodput_ms": goals_ms,
    }


@contextlib.contextmanager
def _session(where: Where, show: Callable[[str], None]) -> Iterator[_Session]:
    if where.url is not None:
        keys = where.config.server.api_keys
        target = Target.of(where.url, keys[0] if keys else None)
        served = asyncio.run(inspect(target))
        yield _Session(target, served, Subject(served.name, "remote"), lambda: True, show)
        return
    with own_server(where.config, where.threads) as server:
        served = asyncio.run(inspect(server.target))
        device = cpu_device(num_threads(where.threads))
        subject = Subject(served.name, device)
        yield _Session(server.target, served, subject, server.alive, show)
