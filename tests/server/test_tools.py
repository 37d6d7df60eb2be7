"""Calls of tools and thoughts in chat completions: stream and whole, every family, forced calls."""

from __future__ import annotations

import json
import shutil

import kit
import openai
import pytest
from kit import TEMPLATE, LiveServer, ScriptBackend, client_of, events_of, settings

PATH = "/v1/chat/completions"
HELLO = {"messages": [{"role": "user", "content": "Hi"}]}
SCHEMA = {
    "type": "object",
    "properties": {"city": {"type": "string"}},
    "required": ["city"],
}
WEATHER = {"type": "function", "function": {"name": "get_weather", "parameters": SCHEMA}}
NOW = {"type": "function", "function": {"name": "now", "description": "The time."}}
TOOLS = {"tools": [WEATHER, NOW]}
CALL = '<tool_call>\n{"name": "get_weather", "arguments": {"city": "Oslo"}}\n</tool_call>'
SECOND = '<tool_call>\n{"name": "now", "arguments": {}}\n</tool_call>'
NO_CALL = '<tool_call>\n{"name": "get_weather", "arguments": oh}\n</tool_call>'
THINKING = TEMPLATE + "{# <think> </think> #}"
TELLING = TEMPLATE.replace(
    "{% for message in messages %}",
    "{% if tools %}{{ tools | length }} tools <tool_call>\n{% endif %}"
    "{% for message in messages %}",
    1,
)


@pytest.fixture
def served(model_dir, tmp_path, monkeypatch):
    """A client of a server whose model says `script`; `template` is its chat template."""
    monkeypatch.setattr(kit, "MAX_MODEL_LEN", 4096)

    def make(*script, template=THINKING, size=3, **server):
        folder = tmp_path / str(len(list(tmp_path.iterdir())))
        shutil.copytree(model_dir, folder)
        (folder / "chat_template.jinja").write_text(template)
        backend = ScriptBackend(folder, script, size)
        client = client_of(backend, settings(**server))
        client.backend = backend
        return client

    return make


async def ask(client, **fields):
    answer = await client.post(PATH, json={**HELLO, **fields})
    assert answer.status_code == 200, answer.text
    return answer


async def both(client, **fields):
    """The choices of an answer, after a stream of the same request gave the same."""
    whole = (await ask(client, **fields)).json()
    options = {"include_usage": True}
    chunks = events_of((await ask(client, **fields, stream=True, stream_options=options)).text)
    told = assembled(chunks)
    assert len(told) == len(whole["choices"])
    for choice, streamed in zip(whole["choices"], told, strict=True):
        message = choice["message"]
        assert streamed["content"] == (message["content"] or "")
        assert streamed["reasoning"] == message.get("reasoning", "")
        assert streamed["finish"] == choice["finish_reason"]
        assert streamed["stop_reason"] == choice["stop_reason"]
        assert streamed["logprobs"] == (choice["logprobs"] or {}).get("content", [])
        functions = [call["function"] for call in message.get("tool_calls", [])]
        assert [call["function"] for call in streamed["calls"]] == functions
    assert chunks[-1]["usage"] == whole["usage"]
    return whole


def assembled(chunks):
    found = {}
    for choice in (choice for chunk in chunks for choice in chunk["choices"]):
        empty = {"content": "", "reasoning": "", "calls": [], "logprobs": [], "finish": None}
        one = found.setdefault(choice["index"], empty)
        assert one["finish"] is None
        delta = choice["delta"]
        one["content"] += delta.get("content") or ""
        one["reasoning"] += delta.get("reasoning", "")
        one["logprobs"] += (choice["logprobs"] or {}).get("content", [])
        for call in delta.get("tool_calls", []):
            if "id" in call:
                assert call["type"] == "function"
                assert call["function"]["arguments"] == ""
                assert call["index"] == len(one["calls"])
                one["calls"].append({"id": call["id"], "function": dict(call["function"])})
            else:
                assert set(call) == {"index", "function"}
                function = one["calls"][call["index"]]["function"]
                function["arguments"] += call["function"]["arguments"]
        one["finish"], one["stop_reason"] = choice["finish_reason"], choice.get("stop_reason")
    return [found[index] for index in sorted(found)]


def called(choice):
    calls = choice["message"].get("tool_calls", [])
    return [(call["function"]["name"], call["function"]["arguments"]) for call in calls]


@pytest.mark.parametrize(
    ("family", "text"),
    [
        ("hermes", CALL),
        (
            "qwen3_coder",
            "<tool_call>\n<function=get_weather>\n<parameter=city>\nOslo\n</parameter>\n"
            "</function>\n</tool_call>",
        ),
        ("llama3_json", '{"name": "get_weather", "parameters": {"city": "Oslo"}}'),
        ("mistral", '[TOOL_CALLS][{"name": "get_weather", "arguments": {"city": "Oslo"}}]'),
        ("pythonic", '[get_weather(city="Oslo")]'),
        (
            "deepseek_v3",
            "<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>function<｜tool▁sep｜>get_weather\n"
            '```json\n{"city": "Oslo"}\n```<｜tool▁call▁end｜><｜tool▁calls▁end｜>',
        ),
    ],
)
@pytest.mark.parametrize("size", [1, 4, 1000])
async def test_each_family_is_read(served, family, text, size):
    async with served(text, template=TELLING, size=size, tool_call_parser=family) as client:
        (choice,) = (await both(client, **TOOLS))["choices"]
    assert choice["finish_reason"] == "tool_calls"
    assert choice["message"]["content"] is None
    assert called(choice) == [("get_weather", '{"city": "Oslo"}')]


async def test_text_stays_beside_calls_and_several_calls_are_told(served):
    async with served(f"I look.\n{CALL}\n{SECOND}") as client:
        (choice,) = (await both(client, **TOOLS))["choices"]
        assert choice["message"]["content"] == "I look."
        assert called(choice) == [("get_weather", '{"city": "Oslo"}'), ("now", "{}")]
        ids = [call["id"] for call in choice["message"]["tool_calls"]]
        assert len(set(ids)) == 2
        (choice,) = (await both(client, **TOOLS, parallel_tool_calls=False))["choices"]
        assert called(choice) == [("get_weather", '{"city": "Oslo"}')]
        assert choice["finish_reason"] == "tool_calls"


async def test_without_tools_or_with_none_the_text_is_content(served):
    async with served(CALL) as client:
        for fields in ({}, {**TOOLS, "tool_choice": "none"}):
            (choice,) = (await both(client, **fields))["choices"]
            assert choice["message"]["content"] == CALL
            assert "tool_calls" not in choice["message"]
            assert choice["finish_reason"] == "stop"


async def test_a_malformed_or_cut_call_is_content(served):
    async with served(NO_CALL) as client:
        (choice,) = (await both(client, **TOOLS))["choices"]
        assert choice["message"]["content"] == NO_CALL
        assert choice["finish_reason"] == "stop"
        (choice,) = (await both(client, **TOOLS, max_tokens=20))["choices"]
        assert choice["message"]["content"] == NO_CALL[:20]
        assert choice["finish_reason"] == "length"


async def test_choices_are_read_apart_and_log_probabilities_count_all_tokens(served):
    async with served(CALL, "Just text") as client:
        first, second = (await both(client, **TOOLS, n=2, logprobs=True))["choices"]
    assert (first["finish_reason"], second["finish_reason"]) == ("tool_calls", "stop")
    assert second["message"]["content"] == "Just text"
    assert len(first["logprobs"]["content"]) == len(CALL) + 1


async def test_thoughts_are_told_apart_and_counted(served):
    thought = "<think>\nhm\n</think>\n\n"
    async with served(thought + "Yes.") as client:
        body = await both(client)
        message = body["choices"][0]["message"]
        assert (message["reasoning"], message["content"]) == ("hm", "Yes.")
        counted = body["usage"]["completion_tokens_details"]["reasoning_tokens"]
        assert len("hm") <= counted <= len(thought)
        hidden = await both(client, include_reasoning=False)
        assert "reasoning" not in hidden["choices"][0]["message"]
        assert hidden["usage"] == body["usage"]


async def test_the_old_name_of_thoughts_is_told_by_a_setting(served):
    async with served("<think>hm</think>Yes.", reasoning_content=True) as client:
        body = (await ask(client)).json()
        assert body["choices"][0]["message"]["reasoning_content"] == "hm"
        assert body["choices"][0]["message"]["reasoning"] == "hm"


async def test_thoughts_then_a_call(served):
    async with served(f"<think>{SECOND}</think>\n\n{CALL}") as client:
        (choice,) = (await both(client, **TOOLS))["choices"]
    assert called(choice) == [("get_weather", '{"city": "Oslo"}')]
    assert choice["message"]["reasoning"] == SECOND
    assert choice["message"]["content"] is None


async def test_stop_strings_count_in_content_only(served):
    text = f"<think>a stop b</think>One {CALL} two stop three"
    async with served(text) as client:
        (choice,) = (await both(client, **TOOLS, stop=["stop", "Oslo"]))["choices"]
    assert choice["message"]["reasoning"] == "a stop b"
    assert choice["message"]["content"] == "One  two "
    assert called(choice) == [("get_weather", '{"city": "Oslo"}')]
    assert choice["stop_reason"] == "stop"


async def test_required_and_named_calls_are_forced_by_a_grammar(served):
    client = served(CALL)
    async with client as session:
        (choice,) = (await both(session, **TOOLS, tool_choice="required"))["choices"]
        assert choice["finish_reason"] == "tool_calls"
        forced = client.backend.requests[-1].sampling
        assert forced.structured.kind == "grammar"
        assert "get_weather" in forced.structured.text
        assert "now" in forced.structured.text
        marker = client.backend.tokenizer.decode(list(forced.structured_after))
        assert marker == "</think>"
        named = {"type": "function", "function": {"name": "get_weather"}}
        (choice,) = (await both(session, **TOOLS, tool_choice=named))["choices"]
        assert choice["finish_reason"] == "stop"
        assert called(choice) == [("get_weather", '{"city": "Oslo"}')]
        assert '"const": "now"' not in client.backend.requests[-1].sampling.structured.text
        await ask(session, **TOOLS)
        assert client.backend.requests[-1].sampling.structured is None


async def test_what_cannot_be_chosen_is_refused(served):
    async def param(client, **fields):
        answer = await client.post(PATH, json={**HELLO, **fields})
        assert answer.status_code == 400, answer.text
        error = answer.json()["error"]
        return error["param"], error["message"]

    async with served("x", tool_call_parser="none") as client:
        name, message = await param(client, **TOOLS)
        assert name == "tool_choice"
        assert "--tool-call-parser" in message
    async with served("x", enable_auto_tool_choice=False) as client:
        name, message = await param(client, **TOOLS)
        assert "--enable-auto-tool-choice" in message
        unknown = {"type": "function", "function": {"name": "g"}}
        assert (await param(client, **TOOLS, tool_choice=unknown))[0] == "tool_choice.function.name"
        assert (await param(client, functions=[]))[0] == "functions"
        assert (await param(client, function_call="auto"))[0] == "function_call"


async def test_the_template_is_shown_the_tools_or_the_system_turn_tells_of_them(served):
    client = served("x", template=TELLING)
    async with client as session:
        await ask(session, **TOOLS)
        assert "2 tools" in prompt(client.backend)
        await ask(session, **TOOLS, tool_choice="none")
        assert "2 tools" not in prompt(client.backend)
    client = served("x")
    async with client as session:
        await ask(session, **TOOLS)
        text = prompt(client.backend)
        assert text.startswith("<|im_start|>system\n")
        assert json.dumps(WEATHER) in text
        assert "<tool_call>" in text


def prompt(backend):
    ids = backend.requests[-1].prompt_token_ids
    return backend.tokenizer.decode(list(ids), skip_special_tokens=False)


async def test_a_conversation_with_calls_is_rendered(served):
    template = THINKING + "{% for m in messages %}{{ m.reasoning_content }}{% endfor %}"
    client = served("x", template=template)
    call = {"id": "c1", "type": "function", "function": {"name": "now", "arguments": '{"z": 1}'}}
    turns = [
        *HELLO["messages"],
        {"role": "assistant", "content": None, "tool_calls": [call], "reasoning": "hm"},
        {"role": "tool", "tool_call_id": "c1", "content": "noon"},
    ]
    async with client as session:
        await ask(session, messages=turns, **TOOLS)
        assert "[now:z]" in prompt(client.backend)
        assert "noon" in prompt(client.backend)


@pytest.fixture(scope="module")
def tool_server(model_dir):
    text = f"<think>hm</think>I look. {CALL}"
    folder = model_dir.parent / "tools-model"
    shutil.copytree(model_dir, folder, dirs_exist_ok=True)
    (folder / "chat_template.jinja").write_text(
        "{{ tools is defined and '' }}<tool_call><think></think>{{ messages[0].content }}"
    )
    with LiveServer(lambda: ScriptBackend(folder, (text,), 2)) as server:
        yield server


def test_the_openai_client_reads_calls(tool_server):
    with openai.OpenAI(base_url=f"{tool_server.url}/v1", api_key="-", max_retries=0) as client:
        asked = {"model": "demo", **HELLO, "tools": [WEATHER]}
        message = client.chat.completions.create(**asked).choices[0].message
        (call,) = message.tool_calls
        assert json.loads(call.function.arguments) == {"city": "Oslo"}
        assert message.content == "I look."
        assert message.reasoning == "hm"
        with client.chat.completions.stream(**asked) as stream:
            stream.until_done()
            choice = stream.get_final_completion().choices[0]
    assert choice.finish_reason == "tool_calls"
    assert choice.message.tool_calls[0].function.name == "get_weather"
    assert json.loads(choice.message.tool_calls[0].function.arguments) == {"city": "Oslo"}


async def test_the_asynchronous_client_reads_calls(tool_server):
    async with openai.AsyncOpenAI(base_url=f"{tool_server.url}/v1", api_key="-") as client:
        asked = {"model": "demo", **HELLO, "tools": [WEATHER], "tool_choice": "required"}
        answer = await client.chat.completions.create(**asked)
        assert answer.choices[0].message.tool_calls[0].function.name == "get_weather"
        stream = await client.chat.completions.create(**asked, stream=True)
        deltas = [chunk.choices[0].delta async for chunk in stream]
    calls = [call for delta in deltas for call in delta.tool_calls or ()]
    assert "".join(call.function.arguments for call in calls) == '{"city": "Oslo"}'
