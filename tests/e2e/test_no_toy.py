"""What tells an engine from an imitation: shared steps, shared blocks, bounded memory."""

from __future__ import annotations

import random
import time

import pytest

from rtp_core import LLM, SamplingParams
from rtp_core.api import Request
from rtp_core.config.read import load_config
from rtp_core.engine.assemble import build_engine

GREEDY = SamplingParams(temperature=0.0, max_tokens=20, ignore_eos=True)
BLOCK_BYTES = 3 * 2 * 2 * 16 * 16 * 4
"""layers, planes, KV heads, head size, tokens, float32: one block of the tiny model."""


def prompt(length: int, seed: int) -> tuple[int, ...]:
    draw = random.Random(seed)
    return tuple(draw.randrange(256) for _ in range(length))


@pytest.fixture
def engine(tiny_model):
    config = load_config(
        overrides={"model": str(tiny_model), "dtype": "float32", "kv": {"memory": 2**24}}
    )
    return build_engine(config)


def run(engine) -> dict[str, list[int]]:
    tokens: dict[str, list[int]] = {}
    while engine.has_work:
        for event in engine.step():
            tokens.setdefault(event.request_id, []).extend(event.token_ids)
    return tokens


def request(name: str, ids, tenant: str = "", sampling=GREEDY) -> Request:
    return Request(name, tuple(ids), sampling, time.monotonic(), tenant=tenant)


def test_eight_equal_requests_share_steps_and_forwards(engine):
    engine.submit(request("one", prompt(40, 1)))
    run(engine)
    single = engine.stats().num_steps
    engine.reset_prefix_cache()
    for number in range(8):
        engine.submit(request(f"of eight {number}", prompt(40, 1)))
    tokens = run(engine)
    assert len({tuple(one) for one in tokens.values()}) == 1
    assert engine.stats().num_steps - single <= 1.2 * single
    assert engine._runner.num_forwards == engine.stats().num_steps


def test_a_poisoned_shared_block_changes_both_readers(engine):
    """Two prompts with one prefix read the same physical block."""
    shared = prompt(48, 2)
    names = ("left", "right")
    for name, tail in zip(names, ((1, 2, 3), (7, 8, 9)), strict=True):
        engine.submit(request(name, shared + tail))
    right = run(engine)
    for name, tail in zip(names, ((1, 2, 3), (7, 8, 9)), strict=True):
        engine.submit(request(name, shared + tail))
    engine.step()
    tables = [one.blocks.tables[0] for one in engine._scheduler._batch]
    assert tables[0][:3] == tables[1][:3]
    keys, values = engine._memory.planes(1)
    begin = tables[0][1] * 16
    keys[:, begin : begin + 16] += 3.0
    values[:, begin : begin + 16] -= 3.0
    poisoned = run(engine)
    for name in names:
        assert poisoned[name] != right[name][1:]


def test_two_tenants_never_share_a_block(engine):
    shared = prompt(64, 3)
    for tenant in ("a", "b"):
        engine.submit(request(tenant, shared, tenant))
    engine.step()
    tables = [set(one.blocks.tables[0]) for one in engine._scheduler._batch]
    assert not tables[0] & tables[1]
    tokens = run(engine)
    assert tokens["a"] == tokens["b"]
    engine.submit(request("again", shared, "b"))
    engine.step()
    (again,) = engine._scheduler._batch
    assert set(again.blocks.tables[0]) & tables[1]
    assert not set(again.blocks.tables[0]) & tables[0]


def test_two_hundred_requests_pass_through_a_pool_for_five(tiny_model):
    settings = {"memory": 5 * 4 * BLOCK_BYTES, "block_size": 16}
    with LLM(model=str(tiny_model), dtype="float32", max_model_len=64, kv=settings) as llm:
        lengths = random.Random(5)
        many = [prompt(lengths.randrange(5, 40), number) for number in range(200)]
        results = llm.generate(many, GREEDY)
        assert all(one.finished and len(one.outputs[0].token_ids) == 20 for one in results)
        assert llm.stats()["kv_bytes"] <= settings["memory"]
        assert llm.stats()["kv_usage"] == 0.0
        alone = [llm.generate([one], GREEDY)[0].outputs[0].token_ids for one in many[:10]]
    assert alone == [one.outputs[0].token_ids for one in results[:10]]


def test_two_engines_live_in_one_process(tiny_model):
    with LLM(model=str(tiny_model), dtype="float32") as one:
        with LLM(model=str(tiny_model), dtype="float32") as two:
            first = one.stream(prompt(20, 6), GREEDY)
            second = two.stream(prompt(20, 6), GREEDY)
            pairs = [(a.text, b.text) for a, b in zip(first, second, strict=True)]
        assert all(a == b for a, b in pairs)
