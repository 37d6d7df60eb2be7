"""Offers of this room."""

from __future__ import annotations

from typing import Any

from rtp_core.api import BuildContext, Offer, Role, SchedulingPolicy, hookimpl


@hookimpl
def rtp_scheduling_policies() -> tuple[Offer, ...]:
    """The three built-in policies."""
    return (
        Offer(Role.SCHEDULER, "fcfs", _fcfs),
        Offer(Role.SCHEDULER, "priority", _priority),
        Offer(Role.SCHEDULER, "prefix", _prefix),
    )


def _fcfs(context: BuildContext, options: Any) -> SchedulingPolicy:
    del context, options
    from rtp_core.scheduling.policies import ArrivalPolicy

    return ArrivalPolicy()


def _priority(context: BuildContext, options: Any) -> SchedulingPolicy:
    del context, options
    from rtp_core.scheduling.policies import PriorityPolicy

    return PriorityPolicy()


def _prefix(context: BuildContext, options: Any) -> SchedulingPolicy:
    del context, options
    from rtp_core.scheduling.policies import PrefixPolicy

    return PrefixPolicy()
