"""Grammars in the whole engine: nothing a batch does beside them may change a text."""

from __future__ import annotations

import json
import re
import threading

import jsonschema
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from rtp_core import SamplingParams
from rtp_core.api import Request, StructuredOutput
from rtp_core.config.read import load_config
from rtp_core.engine import grammar_desk
from rtp_core.engine.assemble import build_engine
from rtp_core.engine.llm import LLM
from rtp_core.errors import RequestError
from rtp_core.text.structured.grammars import Grammars

PERSON = {
    "type": "object",
    "properties": {
        "name": {"type": "string", "maxLength": 6},
        "age": {"type": "integer", "minimum": 0, "maximum": 120},
        "tags": {"type": "array", "items": {"enum": ["a", "b"]}, "maxItems": 3},
    },
    "required": ["name", "age", "tags"],
    "additionalProperties": False,
}
KINDS = [
    StructuredOutput.of_schema(PERSON),
    StructuredOutput("regex", "[a-f]{3,9}-[0-9]{2}"),
    StructuredOutput.of_choices(["yes", "no", "👩‍👩‍👧 maybe"]),
    StructuredOutput("grammar", 'start: "<" WORD ("," WORD){2} ">"\nWORD: /[a-z]{1,4}/'),
]
PROMPTS = [tuple(range(40, 40 + length)) for length in (3, 20, 50, 90)]


def check(kind, text):
    match kind.kind:
        case "json_schema":
            jsonschema.validate(json.loads(text), json.loads(kind.text))
        case "regex":
            assert re.fullmatch(kind.text, text)
        case "choice":
            assert text in kind.choices
        case "grammar":
            assert re.fullmatch("<[a-z]{1,4}(,[a-z]{1,4}){2}>", text)


def requests(**fields):
    params = {"temperature": 1.0, "max_tokens": 90, "seed": 5, **fields}
    constrained = [
        Request(f"g{number}", prompt, SamplingParams(structured=kind, **params))
        for number, (prompt, kind) in enumerate(zip(PROMPTS, KINDS, strict=True))
    ]
    free = [
        Request(f"f{number}", prompt, SamplingParams(**params))
        for number, prompt in enumerate(PROMPTS)
    ]
    return [one for pair in zip(constrained, free, strict=True) for one in pair]


def configured(path, **sections):
    scheduling = {"max_num_seqs": 16, "max_num_batched_tokens": 256}
    return load_config(
        overrides={
            "model": str(path),
            "dtype": "float32",
            "max_model_len": 256,
            "scheduling": scheduling,
            **sections,
        }
    )


def run(engine, work):
    """Token ids and last reasons by (request, choice)."""
    tokens, reasons = {}, {}
    for request in work:
        engine.submit(request)
    for _ in range(20_000):
        if not engine.has_work:
            return tokens, reasons
        for event in engine.step():
            key = event.request_id, event.choice
            tokens.setdefault(key, []).extend(event.token_ids)
            if event.finish_reason is not None:
                assert key not in reasons
                reasons[key] = event.finish_reason.value, event.error
    raise AssertionError("still busy")


@pytest.fixture(scope="module")
def alone(tiny_model):
    """Each request by itself, the free ones too."""
    engine = build_engine(configured(tiny_model))
    found = {}
    for request in requests(n=2):
        found |= run(engine, [request])[0]
    return found


def test_texts_keep_their_constraints(tiny_model):
    with LLM(str(tiny_model), dtype="float32") as llm:
        for kind in KINDS:
            sampling = SamplingParams(structured=kind, temperature=1.0, seed=1, n=4, max_tokens=200)
            (answer,) = llm.generate([PROMPTS[1]], sampling)
            assert len({one.text for one in answer.outputs}) > 1
            for one in answer.outputs:
                assert (one.finish_reason, one.stop_reason) == ("stop", None)
                check(kind, one.text)
            whole = [one.text for one in answer.outputs]
            parts = ["", "", "", ""]
            for chunk in llm.stream(PROMPTS[1], sampling):
                assert "\ufffd" not in chunk.text
                parts[chunk.choice] += chunk.text
            assert parts == whole


@pytest.mark.parametrize(
    "sections",
    [
        {},
        {"scheduling": {"max_num_seqs": 16, "max_num_batched_tokens": 16}},
        {"scheduling": {"max_num_seqs": 3, "max_num_batched_tokens": 64}},
        {"speculation": {"methods": ["ngram"], "max_draft_tokens": 4}},
        {"kv": {"prefix_caching": False}},
    ],
    ids=["batched", "chunked", "queued", "speculating", "no prefix cache"],
)
def test_what_happens_beside_it_changes_no_text(tiny_model, alone, sections):
    engine = build_engine(configured(tiny_model, **sections))
    found, reasons = run(engine, requests(n=2))
    assert found == alone
    assert {reason for reason, _ in reasons.values()} <= {"stop", "length"}
    assert engine._scheduler.cache.num_blocks_used == 0


def test_preemption_brings_a_matcher_back(tiny_model, alone):
    from rtp_core.engine import assemble

    prepared = assemble.prepare(configured(tiny_model))
    (group,) = prepared.spec.kv_groups
    block = prepared.store.block_bytes(group, prepared.context.limits.block_size)
    few = configured(tiny_model, kv={"memory": 22 * block, "watermark": 0.0})
    engine = build_engine(few)
    found, _ = run(engine, requests(n=2))
    assert engine.stats().preemptions > 0
    assert found == alone


def test_drafts_that_the_grammar_bars_change_nothing(tiny_model):
    """A repeating text under a repeating grammar: drafts are accepted, and end with it."""
    kind = StructuredOutput("regex", "(abcabd){3,9}x")
    work = [
        Request(f"r{seed}", PROMPTS[1], SamplingParams(structured=kind, seed=seed, max_tokens=80))
        for seed in range(4)
    ]
    expected = run(build_engine(configured(tiny_model)), work)
    drafting = configured(tiny_model, speculation={"methods": ["ngram"], "max_draft_tokens": 5})
    engine = build_engine(drafting)
    assert run(engine, work) == expected
    assert engine.stats().spec_accepted_tokens > 0


def test_truncated_json_is_length_and_other_fields_hold(tiny_model):
    kind = StructuredOutput.of_schema(PERSON)
    with LLM(str(tiny_model), dtype="float32") as llm:
        ask = lambda **fields: llm.generate([PROMPTS[0]], SamplingParams(structured=kind, **fields))  # noqa: E731
        (cut,) = ask(max_tokens=5, temperature=0.0)
        assert cut.outputs[0].finish_reason == "length"
        assert len(cut.outputs[0].token_ids) == 5
        (stopped,) = ask(max_tokens=90, stop=('"age"',), seed=1)
        assert stopped.outputs[0].stop_reason == '"age"'
        (late,) = ask(max_tokens=200, min_tokens=60, seed=1)  # the grammar ends before: so be it
        check(kind, late.outputs[0].text)
        (endless,) = ask(max_tokens=200, ignore_eos=True, seed=1)
        check(kind, endless.outputs[0].text)
        assert endless.outputs[0].finish_reason == "stop"
        digit = llm.tokenizer.encode("7", add_special_tokens=False, allow_special=False)[0]
        (biased,) = ask(max_tokens=200, logit_bias={digit: 100.0}, seed=1)
        assert json.loads(biased.outputs[0].text)["age"] in (7, 77)
        (raw,) = ask(max_tokens=3, logprobs=2, temperature=0.0)
        first = raw.outputs[0].logprobs[0]
        assert (
            first.token_id
            == llm.tokenizer.encode("{", add_special_tokens=False, allow_special=False)[0]
        )
        assert first.top[0][1] >= first.logprob  # of the distribution before the mask


def test_the_constraint_may_begin_behind_a_marker(tiny_model):
    kind = StructuredOutput.of_choices(["yes"])
    with LLM(str(tiny_model), dtype="float32") as llm:
        marker = tuple(llm.tokenizer.encode("#", add_special_tokens=False, allow_special=False))
        sampling = SamplingParams(
            structured=kind,
            structured_after=marker,
            logit_bias={marker[0]: 4.0},
            ignore_eos=True,
            seed=2,
            max_tokens=200,
        )
        (answer,) = llm.generate([PROMPTS[0]], sampling)
        thought, _, said = answer.outputs[0].text.partition("#")
        assert len(thought) > 0
        assert said == "yes"


# ---- refusals, aborts and slowness


def test_a_grammar_that_cannot_be_compiled_is_refused_in_python(tiny_model):
    with LLM(str(tiny_model), dtype="float32") as llm:
        bad = SamplingParams(structured=StructuredOutput("regex", "("))
        with pytest.raises(RequestError, match="regex"):
            llm.generate([PROMPTS[0]], bad)
        (fine,) = llm.generate([PROMPTS[0]], SamplingParams(max_tokens=2))
        assert len(fine.outputs[0].token_ids) == 2


def test_the_engine_itself_ends_such_a_request_and_goes_on(tiny_model):
    engine = build_engine(configured(tiny_model))
    bad = SamplingParams(structured=StructuredOutput("regex", "("), n=2)
    tokens, reasons = run(engine, [Request("bad", PROMPTS[0], bad), *requests()])
    assert {reasons["bad", choice][0] for choice in (0, 1)} == {"error"}
    assert "regex" in reasons["bad", 0][1]
    assert len(reasons) == 10
    assert ("bad", 0) not in tokens or tokens["bad", 0] == []


@pytest.fixture
def gate(monkeypatch):
    """Compilation waits for it."""
    gate = threading.Event()
    compiled = Grammars.matcher

    def matcher(self, structured):
        gate.wait(20)
        return compiled(self, structured)

    monkeypatch.setattr(Grammars, "matcher", matcher)
    yield gate
    gate.set()


def step_until(engine, seen, done, most=3000):
    for _ in range(most):
        for event in engine.step():
            seen.setdefault(event.request_id, []).append(event)
        if done():
            return
    raise AssertionError("it never came")


def test_others_run_while_a_grammar_is_compiled_and_the_abort_leaves_nothing(tiny_model, gate):
    engine = build_engine(configured(tiny_model))
    slow, free, gone = requests()[0], requests()[1], requests()[2]
    seen = {}
    engine.submit(slow)
    engine.submit(gone)
    engine.submit(free)
    step_until(engine, seen, lambda: free.request_id in seen and seen["f0"][-1].finish_reason)
    assert slow.request_id not in seen
    assert engine.has_work
    assert engine.stats().num_waiting == 2
    engine.abort(gone.request_id)
    step_until(engine, seen, lambda: gone.request_id in seen)
    assert seen[gone.request_id][-1].finish_reason == "abort"
    gate.set()
    step_until(engine, seen, lambda: not engine.has_work)
    assert seen[slow.request_id][-1].finish_reason == "stop"
    assert engine.stats().num_waiting == 0
    assert engine._scheduler.cache.num_blocks_used == 0


def test_a_grammar_that_takes_too_long_is_given_up(tiny_model, gate, monkeypatch):
    monkeypatch.setattr(grammar_desk, "COMPILE_S", 0.05)
    engine = build_engine(configured(tiny_model))
    _, reasons = run(engine, [requests()[0]])
    ((reason, error),) = reasons.values()
    assert reason == "error"
    assert "not compiled within" in error


# ---- any schema

SCALARS = st.sampled_from(
    [
        {"type": "boolean"},
        {"type": "null"},
        {"type": "integer", "minimum": -20, "maximum": 300},
        {"type": "string", "maxLength": 4},
        {"enum": ["x", 1, None, "é"]},
        {"const": {"k": [1]}},
    ]
)
SCHEMAS = st.recursive(
    SCALARS,
    lambda inner: st.one_of(
        inner.map(lambda one: {"type": "array", "items": one, "maxItems": 2}),
        st.lists(inner, min_size=2, max_size=2).map(lambda two: {"anyOf": two}),
        st.dictionaries(st.text('ab"\\é', min_size=1, max_size=2), inner, max_size=3).map(
            lambda own: {
                "type": "object",
                "properties": own,
                "required": sorted(own)[:2],
                "additionalProperties": False,
            }
        ),
    ),
    max_leaves=5,
)


@pytest.fixture(scope="module")
def llm(tiny_model):
    with LLM(str(tiny_model), dtype="float32") as llm:
        yield llm


@settings(
    max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(SCHEMAS, st.integers(0, 2**32))
def test_any_schema_is_kept(llm, schema, seed):
    kind = StructuredOutput.of_schema(schema)
    sampling = SamplingParams(structured=kind, seed=seed, max_tokens=400, temperature=1.0)
    (answer,) = llm.generate([PROMPTS[0]], sampling)
    (one,) = answer.outputs
    assert one.finish_reason == "stop"
    jsonschema.validate(json.loads(one.text), schema)
