from __future__ import annotations

import random

import pytest

from rtp_core.api import QueuedRequest, Role
from rtp_core.scheduling.plugin import rtp_scheduling_policies
from rtp_core.scheduling.policies import ArrivalPolicy, PrefixPolicy, PriorityPolicy


def queued(name, arrival, priority=0):
    return QueuedRequest(name, arrival, priority, "", 10, 10)


def filled(policy, *requests):
    for request in requests:
        policy.add(request)
    return policy


def order(policy, now=0.0, cached=lambda name: 0):
    return list(policy.candidates(now, cached))


def test_first_come_first_served_whatever_the_order_of_adding():
    policy = filled(ArrivalPolicy(), queued("b", 2.0), queued("c", 3.0, -9), queued("a", 1.0, 9))
    assert order(policy) == ["a", "b", "c"]
    assert policy.victim([queued("a", 1.0), queued("c", 3.0), queued("b", 2.0)]) == "c"


def test_priority_goes_before_arrival_and_equal_ones_by_arrival():
    requests = [queued("a", 1.0, 1), queued("b", 2.0, -1), queued("c", 3.0, 1), queued("d", 4.0)]
    policy = filled(PriorityPolicy(), *requests)
    assert order(policy) == ["b", "d", "a", "c"]
    assert policy.victim(requests) == "c"


def test_the_longest_cached_prefix_goes_first_then_arrival():
    cached = {"a": 0, "b": 8, "c": 32, "d": 8}
    policy = filled(PrefixPolicy(), *(queued(name, at) for at, name in enumerate("abcd")))
    assert order(policy, 1.0, cached.__getitem__) == ["c", "b", "d", "a"]


def test_who_waited_long_enough_goes_before_any_prefix():
    policy = filled(PrefixPolicy(), queued("old", 0.0), queued("older", -1.0), queued("new", 5.0))
    cached = {"old": 0, "older": 4, "new": 99}.__getitem__
    assert order(policy, 1.5, cached) == ["older", "new", "old"]
    assert order(policy, PrefixPolicy.MAX_WAIT_S, cached) == ["older", "old", "new"]


def test_a_long_queue_is_served_by_arrival_without_looking_up_prefixes():
    policy = PrefixPolicy()
    names = [f"r{number:03}" for number in range(PrefixPolicy.MAX_SORTED + 1)]
    for at, name in enumerate(names):
        policy.add(queued(name, at + 100.0))

    def never(name):
        raise AssertionError(name)

    assert order(policy, 0.0, never) == names
    policy.remove("r000")
    assert order(policy, 0.0, lambda name: int(name == "r100"))[0] == "r100"


@pytest.mark.parametrize("policy", [ArrivalPolicy, PriorityPolicy, PrefixPolicy])
def test_removing_and_adding_again_keeps_the_order(policy):
    draw = random.Random(3)
    made, waiting = policy(), {}
    for number in range(400):
        if waiting and draw.random() < 0.5:
            name = draw.choice(sorted(waiting))
            made.remove(name)
            made.remove(name)
            del waiting[name]
        else:
            request = queued(f"r{number}", draw.random(), draw.randrange(3))
            made.add(request)
            waiting[request.sequence_id] = request
        made.on_scheduled("r0", 1)
        expected = sorted(waiting.values(), key=made.rank)
        assert order(made) == [request.sequence_id for request in expected]
    made.remove("never seen")


def test_the_built_in_policies_are_offers():
    offers = rtp_scheduling_policies()
    assert {offer.key for offer in offers} == {
        f"{Role.SCHEDULER.value}:{name}" for name in ("fcfs", "priority", "prefix")
    }
    kinds = {offer.name: type(offer.build(None, None)) for offer in offers}
    assert kinds == {"fcfs": ArrivalPolicy, "priority": PriorityPolicy, "prefix": PrefixPolicy}
