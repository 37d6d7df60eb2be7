"""Health, version, metrics, plugins, and the page's data."""

from __future__ import annotations

import asyncio
import time
from dataclasses import asdict
from typing import Any

from rtp_core import __version__
from rtp_core.errors import RequestError
from rtp_core.observe.metrics import CONTENT_TYPE, render
from rtp_core.observe.timeline import as_json
from rtp_core.plugins.discover import discover
from rtp_core.plugins.listing import list_plugins
from rtp_core.server.exchange import Answer, Call, Reply
from rtp_core.server.service import Service


async def health(service: Service, call: Call) -> Answer:
    """An empty 200 while requests are taken, else 503 in the one error shape."""
    service.check_ready()
    return Reply()


async def version(service: Service, call: Call) -> Answer:
    """The package's version."""
    return Reply.json({"version": __version__})


async def metrics(service: Service, call: Call) -> Answer:
    """Prometheus text format."""
    page = render(service.books.meters, await service.stats())
    return Reply(page, media_type=CONTENT_TYPE)


async def plugins(service: Service, call: Call) -> Answer:
    """Installed plugins, and what is really active with the reason a thing is off."""
    if not service.loaded:
        service.check_ready()
    rows = await asyncio.to_thread(lambda: list_plugins(discover(), None))
    effective = await service.backend.explain()
    on = {feature["plugin"] for feature in effective["features"] if feature["on"]}
    for row in rows:
        row["selected"] = row["name"] in on
    return Reply.json({"object": "list", "data": rows, "effective": effective})


async def stats(service: Service, call: Call) -> Answer:
    """Everything the page redraws each second.

    With ``?since=T`` (Unix seconds) history and ended requests from then on only. Raises 400.
    """
    since_unix_s = _since(call)
    return Reply.json(
        {
            "version": __version__,
            "state": service.state,
            "uptime_s": time.monotonic() - service.started_s,
            "model": _model(service),
            "start": as_json(service.info.start) if service.loaded else None,
            "engine": asdict(await service.stats()),
            "latency": service.books.latencies.summary(),
            "history": service.history.rows(since_unix_s),
            "requests": service.books.recent.newest_first(since_unix_s),
        }
    )


def _since(call: Call) -> float:
    given = call.query.get("since", "0")
    try:
        return float(given)
    except ValueError:
        raise RequestError(
            "since", "since must be a time in Unix seconds", remedy="leave it out for all there is"
        ) from None


def _model(service: Service) -> dict[str, Any]:
    """Facts of the model; None for those not known before it is loaded."""
    fields: dict[str, Any] = {"name": service.names[0]}
    info = service.info if service.loaded else None
    for name in ("architecture", "max_model_len", "dtype"):
        fields[name] = getattr(info, name, None)
    return fields
