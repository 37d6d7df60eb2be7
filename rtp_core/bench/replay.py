"""`rtp bench trace`: an arrival trace over HTTP."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

from rtp_core.bench.bodies import Served, body_of
from rtp_core.bench.prompts import Ask
from rtp_core.bench.report import Report
from rtp_core.bench.service_level import serve_results
from rtp_core.bench.session import Client, Session, Where, client_params, open_session, warm_up
from rtp_core.bench.trace import Arrival, Scale, ideal_hit_rate, scaled, tokens_of
from rtp_core.bench.traffic import Send, drive
from rtp_core.errors import RtpError


@dataclass(frozen=True, slots=True)
class Replay:
    """What `rtp bench trace` sends; `name` is the file's."""

    name: str
    arrivals: Sequence[Arrival]
    scale: Scale


def trace(where: Where, client: Client, replay: Replay, show: Callable[[str], None]) -> Report:
    """The arrivals of a trace at their times, or other times; requests too long are left out."""
    with open_session(where, show) as session:
        return asyncio.run(_trace(session, client, replay))


async def _trace(session: Session, client: Client, replay: Replay) -> Report:
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
    await warm_up(session, route, [body_of(served, "completions", warm)] * client.warmup)
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
        **client_params(client),
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
    report.results = {**ended, **more}
    report.traffic = traffic
    report.interrupted = traffic.interrupted
    return report


def _trace_body(served: Served, arrival: Arrival, scale: Scale) -> bytes:
    prompt = tokens_of(arrival, scale.block_tokens, served.token_ids)
    return body_of(served, "completions", Ask(tuple(prompt), None, arrival.output_length))
