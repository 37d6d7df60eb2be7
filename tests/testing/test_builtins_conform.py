"""The built-in parts pass the suites that third parties must pass."""

from __future__ import annotations

import pytest

from rtp_core.api import Role
from rtp_core.testing.conformance import NotApplicableError, check_name, suite


def _offers():
    from rtp_core.execution import plugin as execution
    from rtp_core.kv import plugin as kv
    from rtp_core.loading import plugin as loading
    from rtp_core.models import plugin as models
    from rtp_core.scheduling import plugin as scheduling
    from rtp_core.speculation import plugin as speculation

    # model:transformers reads a checkpoint, not a configuration; loader:dummy reads no file;
    # attention:triton runs on CUDA only. They are tried with tests of their own.
    return [
        *((offer, None) for offer in scheduling.rtp_scheduling_policies()),
        *((offer, None) for offer in loading.rtp_weight_loaders() if offer.name != "dummy"),
        *((offer, None) for offer in kv.rtp_kv_stores()),
        *((offer, None) for offer in models.rtp_models() if offer.name != "transformers"),
        *((offer, None) for offer in execution.rtp_attention_backends() if offer.name == "torch"),
        *((offer, speculation.SpeculationOptions()) for offer in speculation.rtp_speculators()),
    ]


CASES = [
    pytest.param(offer, options, check, id=f"{offer.key}-{check_name(check)}")
    for offer, options in _offers()
    for check in suite(offer.role)
]


@pytest.mark.parametrize(("offer", "options", "check"), CASES)
def test_built_in_offer_conforms(offer, options, check):
    try:
        check(lambda context: offer.build(context, options))
    except NotApplicableError as reason:
        pytest.skip(str(reason))


def test_every_built_in_role_is_covered():
    covered = {offer.role for offer, _ in _offers()}
    assert covered == {
        Role.SCHEDULER,
        Role.LOADER,
        Role.KV_STORE,
        Role.MODEL,
        Role.ATTENTION,
        Role.SPECULATOR,
    }
