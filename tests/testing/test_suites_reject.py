"""Every check can fail: for each there is a part that breaks just this rule."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from rtp_core.api import Role
from rtp_core.testing.conformance import NotConformingError, check_name, suite

sys.path.insert(0, str(Path(__file__).parent))
import mutants

MUTANTS = {
    Role.SCHEDULER: mutants.SCHEDULER,
    Role.SPECULATOR: mutants.SPECULATOR,
    Role.KV_STORE: mutants.KV_STORE,
    Role.KV_TIER: mutants.KV_TIER,
    Role.LOADER: mutants.LOADER,
    Role.TRANSPORT: mutants.TRANSPORT,
    Role.ENCODER: mutants.ENCODER,
    Role.MODEL: mutants.MODEL,
    Role.ATTENTION: mutants.ATTENTION,
}
NEEDS_A_PEER = {"blocks_arrive_unchanged"}
CASES = [
    pytest.param(check, MUTANTS[role].get(check_name(check)), id=f"{role}-{check_name(check)}")
    for role in MUTANTS
    for check in suite(role)
    if check_name(check) not in NEEDS_A_PEER
]


@pytest.mark.parametrize(("check", "mutant"), CASES)
def test_a_part_that_breaks_the_rule_is_told_what_to_do(check, mutant):
    assert mutant is not None, "no part that breaks this rule"
    with pytest.raises(NotConformingError) as caught:
        check(lambda context: mutant())
    lines = str(caught.value).splitlines()
    assert [line.split(":")[0] for line in lines] == ["expected", "found", "remedy"]
    assert all(line.split(":", 1)[1].strip() for line in lines)


def test_a_tier_that_raises_is_told_that_failing_is_a_miss():
    (check,) = (one for one in suite(Role.KV_TIER) if check_name(one) == "stored_blocks_come_back")
    with pytest.raises(NotConformingError, match="a failing tier is a miss"):
        check(lambda context: mutants.RAISING_TIER())


def test_a_transport_that_loses_blocks_is_noticed():
    from rtp_core.testing.conformance.transport import blocks_arrive_unchanged

    class Lossy(mutants.fakes.LoopbackTransport):
        def pull(self, peer, keys):
            return mutants.resolved([None] * len(keys))

    with pytest.raises(NotConformingError, match="order of its keys"):
        blocks_arrive_unchanged(lambda context: Lossy(), peer="peer")
