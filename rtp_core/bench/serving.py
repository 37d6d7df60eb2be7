"""`rtp bench serve`: arrivals at a rate, over HTTP."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from rtp_core.bench.bodies import GREEDY, bodies, body_of, text_ask, words, words_for
from rtp_core.bench.offline import Load, check_fits, check_length
from rtp_core.bench.prompts import Ask, Lengths, random_choices
from rtp_core.bench.report import Report
from rtp_core.bench.service_level import serve_results
from rtp_core.bench.session import Client, Session, Where, client_params, open_session, warm_up
from rtp_core.bench.traffic import Send, arrivals, drive
from rtp_core.bench.vllm_keys import Keys, vllm_keys


@dataclass(frozen=True, slots=True)
class OpenLoop:
    """What `rtp bench serve` sends.

    `rate` in requests a second; `asks` replace random prompts of `lengths`; `sampling` are fields
    of each request; `keys` say which of vLLM's are told beside our own.
    """

    endpoint: str
    rate: float
    num_prompts: int
    lengths: Lengths
    seed: int
    asks: Sequence[Ask] | None = None
    burstiness: float = 1.0
    sampling: Mapping[str, Any] = field(default_factory=lambda: GREEDY)
    keys: Keys = field(default_factory=Keys)


def serve(where: Where, client: Client, load: OpenLoop, show: Callable[[str], None]) -> Report:
    """Arrivals at a rate, streamed answers.

    Raises ConfigError, before one's own server is started, when a request does not fit.
    """
    if where.url is None and load.asks is None:
        check_fits(where.config, Load(*load.lengths.longest, 1), together=False)
    with open_session(where, show) as session:
        return asyncio.run(_serve(session, client, load))


async def _serve(session: Session, client: Client, load: OpenLoop) -> Report:
    route = session.route(load.endpoint, client)
    if load.asks is None and session.served.max_model_len is not None:
        check_length(*load.lengths.longest, session.served.max_model_len)
    asks = load.asks or await _random_asks(session, load)
    # Warm-up prompts are others: their blocks must not serve the measured ones.
    others = replace(load, seed=load.seed + 1, num_prompts=client.warmup)
    warm = await _random_asks(session, others) if client.warmup else []
    first = [body_of(session.served, load.endpoint, one, load.sampling) for one in warm]
    await warm_up(session, route, first)
    made = bodies(session.served, load.endpoint, asks, load.sampling)
    times = itertools.islice(arrivals(load.rate, load.seed, load.burstiness), len(asks))
    sends = [
        Send(at, ask.output_len, body) for at, ask, body in zip(times, asks, made, strict=True)
    ]
    params = _params(load, len(asks)) | client_params(client)
    report = Report("serve", session.subject, params)
    session.show(f"{len(sends)} requests to {session.target.host}:{session.target.port}")
    traffic = await drive(route, sends)
    offered = len(sends) / sends[-1].at_s if sends[-1].at_s > 0 else None
    report.results = serve_results(traffic, client.goals)
    report.results["offered_requests_per_s"] = offered
    report.beside = vllm_keys(report, traffic, load.keys)
    report.traffic = traffic
    report.interrupted = traffic.interrupted
    return report


def _params(load: OpenLoop, num_prompts: int) -> dict[str, Any]:
    lengths, random = load.lengths, load.asks is None
    return {
        "endpoint": load.endpoint,
        "request_rate": load.rate if load.rate < float("inf") else "inf",
        "burstiness": load.burstiness,
        "num_prompts": num_prompts,
        "input_len": lengths.input_len if random else None,
        "output_len": lengths.output_len,
        "range_ratio": lengths.range_ratio if random else None,
        "prefix_len": lengths.prefix_len if random else None,
        "dataset": not random,
        "seed": load.seed,
        "sampling": dict(load.sampling),
    }


async def _random_asks(session: Session, load: OpenLoop) -> list[Ask]:
    """Exact lengths where the server tells its tokens; words of about that length elsewhere."""
    ids, lengths = session.served.token_ids, load.lengths
    drawn = lengths.draw(load.num_prompts, load.seed)
    if load.endpoint == "completions" and ids:
        prefix = random_choices(1, lengths.prefix_len, ids, load.seed + 7_919)[0]
        longest = max((length for length, _ in drawn), default=0)
        prompts = random_choices(load.num_prompts, longest, ids, load.seed)
        return [
            Ask(prefix + prompt[:tokens], None, output_len)
            for prompt, (tokens, output_len) in zip(prompts, drawn, strict=True)
        ]
    per_token = await words_for(session.target, load.endpoint, lengths.input_len)
    per_token /= lengths.input_len
    prefix = words(lengths.prefix_len, load.seed) + " " if lengths.prefix_len else ""
    first = load.seed * 1_000_003
    return [
        text_ask(max(1, round(tokens * per_token)), load.endpoint, out, first + number, prefix)
        for number, (tokens, out) in enumerate(drawn)
    ]
