"""Whatever /openapi.json allows or forbids, by schemathesis: an answer it declares, soon, and
nothing kept."""

from __future__ import annotations

import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from schemathesis.generation import GenerationMode
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    negative_data_rejection,
    response_schema_conformance,
    status_code_conformance,
)
from target import HELLO, KEY

CHECKS = [
    content_type_conformance,
    negative_data_rejection,
    response_schema_conformance,
    status_code_conformance,
]
ANSWER_S = 10.0
GOOD = {
    "/v1/chat/completions": HELLO,
    "/v1/completions": {"prompt": "Hi"},
    "/v1/responses": {"input": "Hi"},
    "/v1/messages": {**HELLO, "max_tokens": 9},
    "/v1/messages/count_tokens": HELLO,
    "/tokenize": {"prompt": "Hi"},
    "/detokenize": {"tokens": [72]},
}
MIB = 2**20


@pytest.fixture(scope="module")
def operations(target):
    """Those that can be repeated: a drain would stop everything else."""
    document = target.client.get("/openapi.json").json()
    for methods in document["paths"].values():
        for operation in methods.values():
            operation["security"] = []
    schema = schemathesis.openapi.from_dict(document)
    schema.config.base_url = target.url
    every = [result.ok() for result in schema.get_all_operations()]
    return [one for one in every if one.path != "/v1/rtp/drain"]


def attack(operations, examples, **more):
    for operation in operations:
        run(operation, GenerationMode.POSITIVE, examples, **more)
        if operation.path in GOOD:
            run(operation, GenerationMode.NEGATIVE, examples, **more)
            run(operation, GenerationMode.POSITIVE, examples, thinned=True, **more)


def run(operation, mode, examples, *, thinned=False, **more):
    """`thinned` bodies are good but for a few fields, so that many get past the first check."""

    @hypothesis_settings(
        max_examples=examples, deadline=None, database=None, phases=[Phase.generate],
        suppress_health_check=list(HealthCheck), **more,
    )  # fmt: skip
    @given(operation.as_strategy(generation_mode=mode), st.integers(0, 9))
    def check(case, at):
        if thinned and isinstance(case.body, dict):
            items = list(case.body.items())
            few = dict(items[at : at + 2])
            case.body = (
                {**few, **GOOD[operation.path]} if at % 2 else {**GOOD[operation.path], **few}
            )
        answer = case.call(headers=KEY, timeout=ANSWER_S)
        assert answer.status_code < 500 or answer.status_code == 501, answer.text
        case.validate_response(answer, checks=CHECKS if not thinned else CHECKS[2:])

    check()


def test_every_operation_answers_as_it_declares(target, operations):
    attack(operations, 2, derandomize=True)
    check_growth(target, operations, 8, 16 * MIB, derandomize=True)


@pytest.mark.long
@pytest.mark.timeout(1200)
def test_every_operation_answers_at_length(target, operations):
    attack(operations, 50)
    check_growth(target, operations, 250, 32 * MIB)


def check_growth(target, operations, examples, most, **more):
    """Threads are those of pools, which start when first needed."""
    before = target.vitals()
    attack(operations, examples, **more)
    after = target.vitals()
    assert after.rss - before.rss < most
    assert after.threads <= before.threads + 4
    assert after.files <= before.files + 8
