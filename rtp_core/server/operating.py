"""What operators and routers ask of a running server: numbers, a drain, an empty cache."""

from __future__ import annotations

from functools import partial

from rtp_core.errors import RequestError
from rtp_core.server.errors import unavailable
from rtp_core.server.exchange import Answer, Call, Reply
from rtp_core.server.listener import is_loopback
from rtp_core.server.operation import Operation
from rtp_core.server.service import Service


def for_operators(service: Service) -> list[Operation]:
    """The cache's reset, and what a router reads and orders."""
    return [
        Operation(
            "POST",
            "/reset_prefix_cache",
            "Forget cached blocks.",
            partial(reset_prefix_cache, service),
            needs_model=True,
            operator=True,
        ),
        Operation("GET", "/v1/rtp/cost", "Measured seconds of steps.", partial(cost, service)),
        Operation("GET", "/v1/rtp/blocks", "Blocks of the cache.", partial(blocks, service)),
        Operation("GET", "/v1/rtp/drain", "Whether the server drains.", partial(drained, service)),
        *(
            Operation(method, "/v1/rtp/drain", summary, partial(order, service), operator=True)
            for method, summary, order in (
                ("POST", "Take no new requests.", drain),
                ("DELETE", "Take requests again.", undrain),
            )
        ),
    ]


async def reset_prefix_cache(service: Service, call: Call) -> Answer:
    """Forget cached blocks; 503 while requests hold some."""
    check_operator(service)
    if not await service.backend.reset_prefix_cache():
        raise unavailable("cache_in_use", "requests hold blocks of the cache; retry when idle")
    return Reply()


async def cost(service: Service, call: Call) -> Answer:
    """Seconds of steps by their sizes, as measured so far."""
    check_loaded(service)
    return Reply.json(await service.backend.report("cost"))


async def blocks(service: Service, call: Call) -> Answer:
    """How many blocks there are, and a digest of the prefixes they hold."""
    check_loaded(service)
    return Reply.json(await service.backend.report("blocks"))


async def drained(service: Service, call: Call) -> Answer:
    """Whether new requests are refused, and how many still run."""
    return _drain_state(service)


async def drain(service: Service, call: Call) -> Answer:
    """Refuse new requests with 503 and Retry-After; those in flight go on to their ends."""
    check_operator(service)
    service.traffic.paused = True
    return _drain_state(service)


async def undrain(service: Service, call: Call) -> Answer:
    """Take requests again, unless the server is shutting down."""
    check_operator(service)
    service.traffic.paused = False
    return _drain_state(service)


def check_loaded(service: Service) -> None:
    """A server that drains still reports; one that never loaded has nothing to report."""
    if not service.loaded:
        service.check_ready()


def check_operator(service: Service) -> None:
    """Without keys everybody is an operator, so only those on this machine may come.

    Raises 403 on a server that others reach without a key, unless its configuration allows it.
    """
    config = service.config.server
    if config.api_keys or config.open_operations or is_loopback(config.host):
        return
    raise RequestError(
        None,
        "this server is open to other machines without a key",
        status=403,
        code="operator_only",
        remedy="set server.api_keys, or server.open_operations to allow it to everybody",
    )


def _drain_state(service: Service) -> Reply:
    traffic = service.traffic
    return Reply.json({"draining": traffic.draining, "in_flight": traffic.num_visitors})
