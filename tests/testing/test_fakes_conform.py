"""Every fake keeps its contract: it passes the suite its role's plugins must pass."""

from __future__ import annotations

import subprocess
import sys

import pytest

from rtp_core.api import Role
from rtp_core.testing import fakes
from rtp_core.testing.conformance import NotApplicableError, check_name, suite

FAKES = {
    Role.LOADER: lambda context: fakes.WholeFileLoader(),
    Role.SCHEDULER: lambda context: fakes.QueuePolicy(),
    Role.KV_STORE: lambda context: fakes.PlaneStore(),
    Role.KV_TIER: lambda context: fakes.DictTier(),
    Role.SPECULATOR: lambda context: fakes.ScriptedSpeculator(),
    Role.ENCODER: lambda context: (
        fakes.BytePlanner(),
        fakes.ConstantEncoder(context.model.hidden_size),
    ),
    Role.TRANSPORT: lambda context: fakes.LoopbackTransport(),
    Role.MODEL: lambda context: fakes.SuccessorFamily(),
}
CASES = [
    pytest.param(FAKES[role], check, id=f"{role.value}-{check_name(check)}")
    for role in FAKES
    for check in suite(role)
] + [
    pytest.param(lambda context: fakes.NearestSpeculator(), check, id=f"states-{check_name(check)}")
    for check in suite(Role.SPECULATOR)
]


@pytest.mark.parametrize(("make", "check"), CASES)
def test_fake_passes_the_suite_of_its_role(make, check):
    try:
        check(make)
    except NotApplicableError as reason:
        pytest.skip(str(reason))


def test_blocks_travel_between_peers_of_the_loopback():
    from rtp_core.testing.conformance.transport import blocks_arrive_unchanged

    blocks_arrive_unchanged(FAKES[Role.TRANSPORT], peer="peer")


def test_every_role_with_an_object_has_a_suite():
    without = {role for role in Role if not suite(role)}
    assert without == {
        Role.DRAFT_TRAINER,
        Role.KV_FORMAT,
        Role.ROUTER,
        Role.SERVE_ROLE,
        Role.COMMAND,
        Role.ROUTES,
    }


@pytest.mark.parametrize(
    "module",
    [
        "rtp_core.testing.fakes",
        "rtp_core.testing.contexts",
        "rtp_core.testing.conformance",
        "rtp_core.testing.conformance.scheduling",
        "rtp_core.testing.conformance.speculation",
        "rtp_core.testing.conformance.kv_tier",
    ],
)
def test_import_loads_no_torch(module):
    code = f"import sys, {module}; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
