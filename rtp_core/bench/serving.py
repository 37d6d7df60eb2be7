"""`rtp bench serve`: Poisson arrivals over HTTP."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from rtp_core.bench.bodies import bodies, body_of, text_ask, words_for
from rtp_core.bench.offline import Load, check_fits, check_length
from rtp_core.bench.prompts import Ask, random_choices
from rtp_core.bench.report import Report
from rtp_core.bench.service_level import serve_results
from rtp_core.bench.session import Client, Session, Where, client_params, open_session, warm_up
from rtp_core.bench.traffic import Send, drive, poisson


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


def serve(where: Where, client: Client, load: OpenLoop, show: Callable[[str], None]) -> Report:
    """Poisson arrivals at a rate, streamed answers.

    Raises ConfigError, before one's own server is started, when a request does not fit.
    """
    if where.url is None and load.asks is None:
        check_fits(where.config, Load(load.input_len, load.output_len, 1), together=False)
    with open_session(where, show) as session:
        return asyncio.run(_serve(session, client, load))


async def _serve(session: Session, client: Client, load: OpenLoop) -> Report:
    route = session.route(load.endpoint, client)
    if load.asks is None and session.served.max_model_len is not None:
        check_length(load.input_len, load.output_len, session.served.max_model_len)
    asks = load.asks or await _random_asks(session, load)
    # Warm-up prompts are others: their blocks must not serve the measured ones.
    others = replace(load, seed=load.seed + 1, num_prompts=client.warmup)
    warm = await _random_asks(session, others) if client.warmup else []
    await warm_up(session, route, [body_of(session.served, load.endpoint, one) for one in warm])
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
        **client_params(client),
    }
    report = Report("serve", session.subject, params)
    session.show(f"{len(sends)} requests to {session.target.host}:{session.target.port}")
    traffic = await drive(route, sends)
    offered = len(sends) / sends[-1].at_s if sends[-1].at_s > 0 else None
    report.results = serve_results(traffic, client.goals)
    report.results["offered_requests_per_s"] = offered
    report.interrupted = traffic.interrupted
    return report


async def _random_asks(session: Session, load: OpenLoop) -> list[Ask]:
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
