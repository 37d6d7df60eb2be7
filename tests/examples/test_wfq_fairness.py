"""Weighted fair queueing under the real scheduler: shares, waiting, preemption, memory."""

from __future__ import annotations

import random
import sys
from pathlib import Path

import pytest

from rtp_core.scheduling.policies import ArrivalPolicy

sys.path.insert(0, str(Path(__file__).parent))
from simulation import Simulation

STEPS = 3000


def fair(*weights):
    from rtp_wfq.policy import FairPolicy
    from rtp_wfq.weights import read_weights

    return FairPolicy(read_weights(weights, 1.0), max_admitted=32)


def prompt(draw, length):
    return [draw.randrange(1000) for _ in range(length)]


def backlog(simulation, shapes, seed=1):
    """Keep four requests of every tenant waiting; `shapes` tenant -> (prompt, output) range."""
    draw = random.Random(seed)
    counts = dict.fromkeys(shapes, 0)

    def refill():
        for tenant, (inputs, outputs) in shapes.items():
            for _ in range(4 - simulation.num_waiting[tenant]):
                name = f"{tenant}-{counts[tenant]}"
                counts[tenant] += 1
                simulation.submit(
                    name, tenant, prompt(draw, draw.randint(*inputs)), draw.randint(*outputs)
                )

    return refill


def run(simulation, refill, steps=STEPS):
    for _ in range(steps):
        refill()
        simulation.step()
    return simulation.outcome


@pytest.mark.parametrize(
    "shapes",
    [
        {"free": ((20, 60), (10, 50)), "gold": ((20, 60), (10, 50))},
        {"free": ((100, 200), (5, 10)), "gold": ((4, 10), (20, 60))},
    ],
    ids=["alike", "long prompts against long answers"],
)
def test_two_tenants_of_weights_1_and_3_get_tokens_1_to_3(importable, shapes):
    simulation = Simulation(fair("gold=3"))
    tokens = run(simulation, backlog(simulation, shapes)).tokens
    assert tokens["gold"] / tokens["free"] == pytest.approx(3.0, rel=0.05)


def test_first_come_first_served_does_not_keep_such_shares(importable):
    shapes = {"free": ((100, 200), (5, 10)), "gold": ((4, 10), (20, 60))}
    simulation = Simulation(ArrivalPolicy())
    tokens = run(simulation, backlog(simulation, shapes), steps=1000).tokens
    assert tokens["gold"] / tokens["free"] < 1.0


def flood(policy):
    """300 requests of one tenant at once; a light tenant sends one every 60 steps."""
    draw = random.Random(3)
    simulation = Simulation(policy)
    for number in range(300):
        simulation.submit(f"flood-{number}", "flood", prompt(draw, 40), 40)
    step = 0
    while simulation.step():
        if step % 60 == 0 and step < 900:
            simulation.submit(f"light-{step}", "light", prompt(draw, 20), 10)
        step += 1
    waits = simulation.outcome.waits
    assert len(waits) == 315
    return max(wait for name, wait in waits.items() if name.startswith("light"))


def test_a_light_tenant_does_not_wait_behind_a_flood(importable):
    longest_service = 45
    assert flood(fair()) <= longest_service
    assert flood(ArrivalPolicy()) > 20 * longest_service


def test_shares_hold_when_sequences_are_preempted(importable):
    shapes = {"free": ((30, 60), (60, 90)), "gold": ((30, 60), (60, 90))}
    simulation = Simulation(fair("gold=3"), num_blocks=40)
    outcome = run(simulation, backlog(simulation, shapes))
    assert outcome.preemptions > 10
    assert outcome.tokens["gold"] / outcome.tokens["free"] == pytest.approx(3.0, rel=0.05)


def test_what_the_policy_remembers_is_bounded(importable):
    policy = fair()
    simulation = Simulation(policy)
    draw = random.Random(5)
    for number in range(400):
        simulation.submit(f"r{number}", f"tenant-{number}", prompt(draw, 4), 2)
    while simulation.step():
        pass
    assert len(policy._waiting) == 0
    assert len(policy._admitted) <= 32
    simulation.submit("last", "last", [1, 2, 3], 2)
    assert len(policy._tenants) == 1
