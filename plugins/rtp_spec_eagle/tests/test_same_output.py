"""With a head that drafts, a request gets the tokens it gets without. float32, whole engine."""

from __future__ import annotations

import dataclasses
import random

import pytest
import torch

from rtp_core import LLM, SamplingParams
from rtp_core.api import Draft

GREEDY = SamplingParams(temperature=0.0, max_tokens=40, ignore_eos=True)
SEEDED = SamplingParams(
    temperature=1.0, top_p=0.95, top_k=60, min_p=0.01, seed=11, max_tokens=40, ignore_eos=True,
    presence_penalty=0.3, repetition_penalty=1.1,
)  # fmt: skip
MODES = pytest.mark.parametrize("sampling", [GREEDY, SEEDED], ids=["greedy", "seeded"])
LENGTHS = (1, 2, 15, 16, 17, 31, 32, 33, 65, 130)
BLOCK_BYTES = 3 * 2 * 2 * 16 * 16 * 4 + 2 * 2 * 16 * 16 * 4 + 48 * 4


def prompts() -> list[list[int]]:
    draw = random.Random(3)
    shared = [draw.randrange(256) for _ in range(48)]
    made = [[draw.randrange(256) for _ in range(length)] for length in LENGTHS]
    return [*made, shared + made[3], shared + made[4]]


def ids(results) -> list[list[int]]:
    return [list(choice.token_ids) for result in results for choice in result.outputs]


def open_llm(path, head=None, **settings) -> LLM:
    if head is not None:
        settings["speculation"] = {"methods": ["eagle"], "max_draft_tokens": 4}
        settings["plugins"] = {"spec_eagle": {"head": str(head)}}
    settings.setdefault("kv", {"memory": 2**25, "block_size": 16})
    return LLM(model=str(path), dtype="float32", **settings)


def drafter(llm):
    (held,) = dict(llm._engine._speculation._speculators).values()
    return held._speculator


def help_to_be_right(llm, texts) -> None:
    """Of the drafts, some become the true ones: all numbers of accepted drafts occur."""
    one = drafter(llm)
    own = one.propose

    def propose(rows):
        return [_mended(row, draft, texts) for row, draft in zip(rows, own(rows), strict=True)]

    one.propose = propose


def _mended(row, draft, texts) -> Draft:
    known = list(row.token_ids)
    whole = next((one for one in texts if one[: len(known)] == known), known)
    right = (len(known) * 7) % 6  # 0 … 5 true tokens, then the head's own
    truth = whole[len(known) : len(known) + right]
    return Draft((*truth, *draft.token_ids[len(truth) :])[: row.max_tokens])


@pytest.fixture(scope="module")
def alone(tiny_model):
    """Each prompt by itself, without a drafter and with nothing cached."""
    found = {}
    with open_llm(tiny_model) as llm:
        for sampling in (GREEDY, SEEDED):
            found[sampling.greedy] = []
            for prompt in prompts():
                assert llm.reset_prefix_cache()
                found[sampling.greedy] += ids(llm.generate([prompt], sampling))
    return found


def texts(alone, sampling):
    return [
        prompt + list(out) for prompt, out in zip(prompts(), alone[sampling.greedy], strict=True)
    ]


@pytest.fixture
def spec(tiny_model, tiny_head, alone, request):
    settings = getattr(request, "param", {})
    with open_llm(tiny_model, tiny_head, **settings) as llm:
        yield llm
        assert llm.stats()["plugin_errors"] == {}
        assert llm._engine._scheduler.cache.num_blocks_used == 0


@MODES
def test_in_one_batch_and_with_a_cached_prefix(spec, alone, sampling):
    help_to_be_right(spec, texts(alone, sampling))
    assert ids(spec.generate(prompts(), sampling)) == alone[sampling.greedy]
    again = spec.generate(prompts(), sampling)
    assert ids(again) == alone[sampling.greedy]
    assert again[-1].num_cached_tokens >= 48
    stats = spec.stats()
    assert 0 < stats["spec_accepted_tokens"] < stats["spec_draft_tokens"]


@MODES
@pytest.mark.parametrize(
    "spec",
    [{"scheduling": {"max_num_batched_tokens": chunk}} for chunk in (1, 7, 64)],
    indirect=True,
)
def test_in_chunks(spec, alone, sampling):
    help_to_be_right(spec, texts(alone, sampling))
    assert ids(spec.generate(prompts(), sampling)) == alone[sampling.greedy]


@MODES
@pytest.mark.parametrize(
    "spec",
    [
        {
            "kv": {"memory": 18 * BLOCK_BYTES, "block_size": 16, "watermark": 0.0},
            "max_model_len": 200,
        }
    ],
    indirect=True,
)
def test_when_preempted(spec, alone, sampling):
    help_to_be_right(spec, texts(alone, sampling))
    assert ids(spec.generate(prompts(), sampling)) == alone[sampling.greedy]
    assert spec.stats()["preemptions"] > 0


def test_choices_of_one_request(spec, tiny_model):
    four = dataclasses.replace(SEEDED, n=4)
    with open_llm(tiny_model) as plain:
        wanted = ids(plain.generate(prompts()[3:5], four))
    assert ids(spec.generate(prompts()[3:5], four)) == wanted


@pytest.mark.parametrize("most", [1, 2, 3, 5])
def test_short_answers(spec, alone, most):
    help_to_be_right(spec, texts(alone, GREEDY))
    short = dataclasses.replace(GREEDY, max_tokens=most)
    assert ids(spec.generate(prompts(), short)) == [out[:most] for out in alone[True]]


def test_an_abort_leaves_the_others_alone(spec, alone):
    engine, reader = spec._engine, spec._reader
    for number, prompt in enumerate(prompts()):
        request = reader.read(prompt, GREEDY)[0]
        engine.submit(dataclasses.replace(request, request_id=f"r{number}"))
    out = {f"r{number}": [] for number in range(len(prompts()))}
    for step in range(400):
        if not engine.has_work:
            break
        if step in (2, 6):
            engine.abort(f"r{step}")
        for event in engine.step():
            out[event.request_id] += event.token_ids
    for number, wanted in enumerate(alone[True]):
        got = out[f"r{number}"]
        assert got == (wanted[: len(got)] if number in (2, 6) else wanted)


def stored(llm, text):
    """Keys, values and states of the head in the cached blocks of a text, token by token."""
    engine = llm._engine
    cache = engine._scheduler.cache
    blocks = cache.open("", "", "exact")
    found = cache.lookup(blocks, text)
    table = found.blocks[1]
    keys, values = engine._memory.planes(3)
    slots = [block * 16 + place for block in table for place in range(16)][1:]
    return len(table), (keys[:, slots], values[:, slots], engine._memory.states(1)[list(table)])


def test_what_a_block_holds_depends_on_its_tokens_only(tiny_model, tiny_head, alone):
    """However it was computed: at once, in chunks, behind a hit, drafted for or not."""
    whole = texts(alone, GREEDY)
    wanted = None
    for chunk, cached, drafts in ((512, 0, True), (5, 0, True), (64, 40, True), (64, 70, False)):
        with open_llm(tiny_model, tiny_head, scheduling={"max_num_batched_tokens": chunk}) as llm:
            help_to_be_right(llm, whole)
            if not drafts:
                drafter(llm).propose = lambda rows: [Draft()] * len(rows)
            if cached:
                llm.generate(
                    [text[:cached] for text in whole], dataclasses.replace(GREEDY, max_tokens=1)
                )
            assert ids(llm.generate(prompts(), GREEDY)) == alone[True]
            got = [stored(llm, text) for text in whole]
            wanted = wanted or got
        for (count, one), (least, other) in zip(got, wanted, strict=True):
            assert count == least > 1
            assert all(torch.equal(a, b) for a, b in zip(one, other, strict=True))
