"""Calls of tools in every family's writing: found, or left as content, never lost."""

from __future__ import annotations

import gc
import json
import sys
import time
from pathlib import Path

import pytest
import tokenizers
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import AddedToken, decoders, models, pre_tokenizers

sys.path.insert(0, str(Path(__file__).parent))
from samples import FORMATS, MALFORMED, NOW, OSLO, SAMPLES, TOOLS, calls, content, squeezed, told

from rtp_core.api import ContentDelta, Role, ToolRules, ToolStart
from rtp_core.testing.conformance import check_name, suite
from rtp_core.text.formats import detect
from rtp_core.text.formats.grammar import closed
from rtp_core.text.formats.thinking import ThinkFormat

PIECES = [
    "<tool_call>", "</tool_call>", '{"name": "now"', ', "arguments": {', "}", "}", "{", "[", "]",
    "<function=", "now>", "<parameter=", "a>", "</parameter>", "</function>", "[TOOL_CALLS]",
    "[ARGS]", "<|python_tag|>", "; ", "[now(", "a=1", ")", "'", '"', "\\", "<｜tool▁calls▁begin｜>",
    "<｜tool▁call▁begin｜>", "function", "<｜tool▁sep｜>", "\n```json\n", "\n```",
    "<｜tool▁call▁end｜>", "<｜tool▁calls▁end｜>", " ", "\n", "text", "é", "<", "｜",
]  # fmt: skip


def parser(name):
    return FORMATS[name].parser(TOOLS)


@pytest.mark.parametrize(("name", "text", "said", "called"), SAMPLES)
@pytest.mark.parametrize("sizes", [(10**9,), (1,), (2,), (3, 7)])
def test_calls_are_found_however_the_text_arrives(name, text, said, called, sizes):
    events = told(parser(name), text, sizes)
    assert calls(events) == called
    assert content(events) == said


@pytest.mark.parametrize(("name", "text"), MALFORMED)
@pytest.mark.parametrize("sizes", [(10**9,), (1,), (5, 2)])
def test_what_is_no_call_is_content_to_the_letter(name, text, sizes):
    assert told(parser(name), text, sizes) == [ContentDelta(text)]


@pytest.mark.parametrize("name", FORMATS)
@settings(max_examples=150, deadline=None)
@given(
    parts=st.lists(st.sampled_from(PIECES) | st.text(max_size=4), max_size=25),
    sizes=st.lists(st.integers(1, 9), min_size=1, max_size=5),
)
def test_pieces_change_nothing_and_nothing_is_lost(name, parts, sizes):
    text = "".join(parts)
    events = told(parser(name), text)
    assert told(parser(name), text, sizes) == events
    for _, arguments in calls(events):
        assert isinstance(json.loads(arguments), dict)
    if not calls(events):
        assert content(events) == text
    kept = iter(squeezed(text))
    assert all(char in kept for char in squeezed(content(events)))


@pytest.mark.parametrize("name", FORMATS)
@pytest.mark.parametrize(
    "unit",
    ["<tool_call>", '<tool_call>{"a":', "{", "[", "[now(", "<function=", "[TOOL_CALLS]", "\n",
     "<|python_tag|>", "<｜tool▁call▁begin｜>", "<｜tool▁calls▁begin｜>", '{"a":"', "<tool_cal"],
)  # fmt: skip
def test_many_openings_take_linear_time(name, unit):
    """Eight times the text: eight times as long when linear, 64 times when quadratic."""

    def seconds(size):
        text, reader = unit * (size // len(unit)), parser(name)
        gc.collect()
        began = time.process_time()
        events = [one for at in range(0, len(text), 4) for one in reader.feed(text[at : at + 4])]
        events += reader.end()
        taken = time.process_time() - began
        assert "".join(one.text for one in events) == text
        return taken

    gc.disable()  # its passes over the events that are kept grow faster than their number
    try:
        assert seconds(2**18) < 20 * max(seconds(2**15), 0.005)
    finally:
        gc.enable()


def test_ids_are_as_the_families_demand():
    text = '[TOOL_CALLS][{"name": "now"}, {"name": "now"}]'
    ids = [one.id for one in parser("mistral").feed(text) if isinstance(one, ToolStart)]
    assert len(set(ids)) == 2
    assert all(len(one) == 9 and one.isalnum() for one in ids)
    (start, _) = parser("hermes").feed('<tool_call>{"name": "now"}</tool_call>')
    assert start.id.startswith("call_")


def test_content_before_a_call_does_not_wait_for_it():
    reader = parser("hermes")
    assert list(reader.feed("I will look")) == [ContentDelta("I will look")]
    assert list(reader.feed(" it up <tool")) == [ContentDelta(" it up")]
    assert list(reader.feed("s>")) == [ContentDelta(" <tools>")]


@pytest.mark.parametrize(
    ("template", "found"),
    [
        ('{{ "[TOOL_CALLS]" }}', "mistral"),
        ("<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>", "deepseek_v3"),
        ("<tool_call>\n<function=x>\n<parameter=y>", "qwen3_coder"),
        ("<tool_call>", "hermes"),
        ('<|python_tag|> {"name": function name, "parameters": …}', "llama3_json"),
        ("[func_name1(params_name1=params_value1)]", "pythonic"),
        ('respond with a JSON for a function call, {"name", "parameters"}', "llama3_json"),
        ("{{ message.content }}", None),
    ],
)
def test_the_template_tells_the_format(template, found):
    assert detect.tool_format(template) == found


def test_the_template_tells_how_thoughts_are_marked():
    assert detect.reasoning_format("x<think>y</think>") == "qwen3"
    assert detect.reasoning_format("content.split('</think>')[-1]") == "deepseek_r1"
    assert detect.reasoning_format("x") is None


def grammar_accepts(tokenizer, grammar, text):
    llguidance = pytest.importorskip("llguidance")
    library = llguidance.LLMatcher
    vocabulary = llguidance.LLTokenizer(tokenizer.to_str(), eos_token=1)
    matcher = library(vocabulary, library.grammar_from_lark(grammar), log_level=0)
    assert not matcher.is_error(), matcher.get_error()
    ids = tokenizer.encode(text, add_special_tokens=False).ids
    return all(matcher.consume_token(one) for one in ids) and matcher.is_accepting()


@pytest.fixture(scope="module")
def tokenizer():
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {"[TOOL_CALLS]": 0, "<eos>": 1}
    vocabulary |= {char: index for index, char in enumerate(alphabet, start=2)}
    backend = tokenizers.Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    backend.decoder = decoders.ByteLevel()
    backend.add_special_tokens([AddedToken(one, special=True) for one in ("[TOOL_CALLS]", "<eos>")])
    return backend


def spell(mark):
    return "<[0]>" if mark == "[TOOL_CALLS]" else json.dumps(mark, ensure_ascii=False)


FORCED = {
    "hermes": SAMPLES[0][1],
    "qwen3_coder": SAMPLES[9][1],
    "llama3_json": SAMPLES[11][1],
    "mistral": SAMPLES[13][1].replace("] [", "]["),
    "deepseek_v3": SAMPLES[17][1].removeprefix("Yes. "),
}


@pytest.mark.parametrize("name", FORCED)
def test_the_grammar_is_of_what_the_parser_reads(name, tokenizer):
    text = FORCED[name]
    assert calls(told(parser(name), text)) == [OSLO, NOW]
    grammar = FORMATS[name].grammar(ToolRules(TOOLS), spell)
    assert grammar_accepts(tokenizer, grammar, text)
    wrong = text.replace("days", "dais")
    assert not grammar_accepts(tokenizer, grammar, wrong)
    assert not grammar_accepts(tokenizer, grammar, text.replace("now", "then"))
    assert not grammar_accepts(tokenizer, grammar, "No.")
    single = FORMATS[name].grammar(ToolRules(TOOLS, parallel=False), spell)
    assert not grammar_accepts(tokenizer, single, text)


def test_objects_are_closed_where_they_are_of_one_schema():
    inner = {"type": "object", "properties": {"properties": {"type": "string"}}}
    several = {"allOf": [inner], "properties": {"b": inner}}
    schema = closed({"properties": {"a": inner, "c": several}, "enum": [{"properties": {}}]})
    assert schema["additionalProperties"] is False
    assert schema["properties"]["a"]["additionalProperties"] is False
    assert "additionalProperties" not in schema["properties"]["a"]["properties"]
    assert "additionalProperties" not in schema["properties"]["c"]
    assert schema["properties"]["c"]["allOf"] == [inner]
    assert schema["enum"] == [{"properties": {}}]
    assert closed({"properties": {}, "additionalProperties": True})["additionalProperties"] is True


def test_a_format_without_a_grammar_says_so():
    assert FORMATS["pythonic"].grammar(ToolRules(TOOLS), spell) is None


@pytest.mark.parametrize("check", suite(Role.TOOL_PARSER), ids=check_name)
@pytest.mark.parametrize("name", FORMATS)
def test_formats_of_calls_conform(name, check):
    check(lambda context: FORMATS[name])


@pytest.mark.parametrize("check", suite(Role.REASONING_PARSER), ids=check_name)
@pytest.mark.parametrize("inside", [False, True])
def test_formats_of_thoughts_conform(inside, check):
    check(lambda context: ThinkFormat(begins_inside=inside))
