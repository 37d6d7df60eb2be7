"""Offers of this distribution."""

from __future__ import annotations

from dataclasses import dataclass

from rtp_core.api import BuildContext, Offer, Role, SchedulingPolicy, hookimpl


@dataclass(frozen=True, slots=True)
class WfqOptions:
    """``[plugins.wfq]``: ``weights = ["gold=3", "free=0.5"]``; others have `default_weight`."""

    weights: tuple[str, ...] = ()
    default_weight: float = 1.0


@hookimpl
def rtp_plugin_options() -> type:
    return WfqOptions


@hookimpl
def rtp_scheduling_policies() -> tuple[Offer, ...]:
    return (Offer(Role.SCHEDULER, "wfq", _build),)


def _build(context: BuildContext, options: WfqOptions) -> SchedulingPolicy:
    from rtp_wfq.policy import FairPolicy
    from rtp_wfq.weights import read_weights

    weights = read_weights(options.weights, options.default_weight)
    return FairPolicy(weights, max_admitted=4 * context.limits.max_num_seqs)
