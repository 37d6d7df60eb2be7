"""GET /v1/models and /v1/models/{id}."""

from __future__ import annotations

from typing import Any

from rtp_core.server.exchange import Answer, Call, Reply
from rtp_core.server.service import Service


async def list_models(service: Service, call: Call) -> Answer:
    """One card a served name."""
    return Reply.json({"object": "list", "data": [_card(service, name) for name in service.names]})


async def show_model(service: Service, call: Call) -> Answer:
    """The card of one name; names may hold slashes."""
    return Reply.json(_card(service, service.check_model(call.path_params["id"])))


def _card(service: Service, name: str) -> dict[str, Any]:
    return {
        "id": name,
        "object": "model",
        "created": service.started_unix_s,
        "owned_by": "rtp",
        "root": service.info.name,
        "parent": None,
        "max_model_len": service.info.max_model_len,
    }
