from __future__ import annotations

import pytest
from rtp_wfq.policy import FairPolicy
from rtp_wfq.weights import read_weights

from rtp_core.api import QueuedRequest, Role
from rtp_core.errors import ConfigError
from rtp_core.testing.conformance import check_name, suite


def policy(*weights):
    return FairPolicy(read_weights(weights, 1.0), max_admitted=32)


def request(name, tenant, arrival=0.0, tokens=10):
    return QueuedRequest(name, arrival, 0, tenant, tokens, 10)


def order(one):
    return list(one.candidates(0.0, lambda _: 0))


def admit(one, sequence_id, tokens):
    one.remove(sequence_id)
    one.on_scheduled(sequence_id, tokens)


@pytest.mark.parametrize("check", suite(Role.SCHEDULER), ids=check_name)
def test_it_conforms(check):
    check(lambda context: policy("t0=3"))


def test_one_call_mixes_tenants_by_weight():
    one = policy("gold=3")
    for number in range(8):
        one.add(request(f"free{number}", "free"))
        one.add(request(f"gold{number}", "gold"))
    first = order(one)[:8]
    assert sum(name.startswith("gold") for name in first) == 6


def test_a_tenant_keeps_its_own_order():
    one = policy()
    for arrival, name in ((3.0, "c"), (1.0, "a"), (2.0, "b")):
        one.add(request(name, "t", arrival))
    assert order(one) == ["a", "b", "c"]


def test_who_was_served_waits_for_the_others():
    one = policy()
    for name in ("a1", "a2", "b1"):
        one.add(request(name, name[0], float(name[1])))
    admit(one, "a1", 500)
    assert order(one) == ["b1", "a2"]


def test_idleness_is_not_saved_up():
    one = policy()
    for number in range(50):
        one.add(request(f"busy{number}", "busy", number))
    for number in range(20):
        admit(one, f"busy{number}", 100)
        order(one)
    for number in range(5):
        one.add(request(f"back{number}", "back", 100 + number))
    first = order(one)[:6]
    assert 2 <= sum(name.startswith("back") for name in first) <= 4


def test_the_victim_belongs_to_whom_had_most():
    one = policy()
    running = [request(name, name[0], float(name[1])) for name in ("a1", "b1", "a2")]
    one.add(request("keeps the queue busy", "z"))
    for each in running:
        one.add(each)
        admit(one, each.sequence_id, 10)
    assert one.victim(running) == "a2"


@pytest.mark.parametrize("wrong", ["gold", "gold=", "gold=0", "gold=-1", "gold=inf", "gold=x"])
def test_a_wrong_weight_is_refused_with_an_example(wrong):
    with pytest.raises(ConfigError, match="tenant=number"):
        read_weights([wrong], 1.0)
