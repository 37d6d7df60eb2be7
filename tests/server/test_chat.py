from __future__ import annotations

import pytest
from kit import EOS, ScriptBackend, client_of, events_of

HELLO = {"messages": [{"role": "user", "content": "Hi"}]}
FAMILY = "The family: \U0001f468\u200d\U0001f469\u200d\U0001f467 and a ← sign, zürich."
PATH = "/v1/chat/completions"


async def ask(client, **fields):
    answer = await client.post(PATH, json={**HELLO, **fields})
    assert answer.status_code == 200, answer.text
    return answer


def joined(chunks):
    """The choices of a stream, put together as a client does."""
    found = {}
    for chunk in chunks:
        for choice in chunk["choices"]:
            one = found.setdefault(
                choice["index"], {"content": "", "logprobs": [], "token_ids": [], "finish": None}
            )
            assert one["finish"] is None, "nothing may follow the finish reason"
            one["content"] += choice["delta"].get("content", "")
            one["logprobs"] += (choice["logprobs"] or {}).get("content", [])
            one["token_ids"] += choice.get("token_ids", [])
            one["finish"] = choice["finish_reason"]
            one["stop_reason"] = choice.get("stop_reason")
    return [found[index] for index in sorted(found)]


async def test_a_conversation_is_answered(client, backend):
    body = (await ask(client)).json()
    assert body["object"] == "chat.completion"
    assert body["id"].startswith("chatcmpl-")
    assert body["model"] == "demo"
    assert body["choices"] == [
        {
            "index": 0,
            "message": {"role": "assistant", "content": "Hello, world!", "refusal": None},
            "logprobs": None,
            "finish_reason": "stop",
            "stop_reason": None,
        }
    ]
    prompt = backend.tokenizer.encode("<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n")
    assert list(backend.requests[0].prompt_token_ids) == prompt.ids
    assert body["usage"] == {
        "prompt_tokens": len(prompt.ids),
        "completion_tokens": 14,
        "total_tokens": len(prompt.ids) + 14,
        "prompt_tokens_details": {"cached_tokens": 0},
        "completion_tokens_details": {"reasoning_tokens": 0},
    }


async def test_a_stream_is_role_deltas_finish_and_done(client):
    answer = await ask(client, stream=True)
    assert answer.headers["content-type"].startswith("text/event-stream")
    assert answer.headers["cache-control"] == "no-cache"
    assert answer.headers["x-accel-buffering"] == "no"
    chunks = events_of(answer.text)
    assert chunks[0]["choices"][0]["delta"] == {"role": "assistant", "content": ""}
    assert chunks[-1]["choices"][0]["delta"] == {}
    assert chunks[-1]["choices"][0]["finish_reason"] == "stop"
    assert len({(chunk["id"], chunk["created"], chunk["model"]) for chunk in chunks}) == 1
    assert all("usage" not in chunk for chunk in chunks)


@pytest.mark.parametrize("tokens_per_step", [1, 2, 3, 7, 200])
@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"n": 3},
        {"stop": "and"},
        {"stop": ["zür", "\u200d"]},
        {"stop": "fam", "include_stop_str_in_output": True},
        {"max_tokens": 15},
        {"max_tokens": 16, "n": 2},
        {"logprobs": True, "top_logprobs": 2},
        {"return_token_ids": True, "n": 2, "stop": "ich"},
    ],
)
async def test_a_stream_says_what_the_whole_answer_says(model_dir, tokens_per_step, fields):
    backend = ScriptBackend(model_dir, (FAMILY, "a second, zürich", "\u2190"), tokens_per_step)
    async with client_of(backend) as client:
        whole = (await ask(client, **fields)).json()
        stream = events_of((await ask(client, **fields, stream=True)).text)
    told = joined(stream)
    assert len(told) == len(whole["choices"]) == fields.get("n", 1)
    for choice, streamed in zip(whole["choices"], told, strict=True):
        assert streamed["content"] == choice["message"]["content"]
        assert streamed["finish"] == choice["finish_reason"]
        assert streamed["stop_reason"] == choice["stop_reason"]
        assert streamed["logprobs"] == (choice["logprobs"] or {}).get("content", [])
        assert streamed["token_ids"] == choice.get("token_ids", [])


async def test_no_chunk_holds_part_of_a_character(model_dir):
    async with client_of(ScriptBackend(model_dir, (FAMILY,))) as client:
        chunks = events_of((await ask(client, stream=True)).text)
    assert joined(chunks)[0]["content"] == FAMILY
    assert not any("\ufffd" in str(chunk) for chunk in chunks)


@pytest.mark.parametrize("length", range(1, len(FAMILY), 3))
async def test_a_stop_string_cuts_wherever_it_stands(model_dir, length):
    stop = FAMILY[length : length + 4]
    backend = ScriptBackend(model_dir, (FAMILY,), tokens_per_step=5)
    async with client_of(backend) as client:
        body = (await ask(client, stop=stop)).json()
    assert body["choices"][0]["message"]["content"] == FAMILY[: FAMILY.index(stop)]
    assert body["choices"][0]["finish_reason"] == "stop"
    assert body["choices"][0]["stop_reason"] == stop


async def test_a_text_stop_ends_the_work_of_its_choice(model_dir):
    backend = ScriptBackend(model_dir, ("one stop two three", "no such word in this one"))
    async with client_of(backend) as client:
        body = (await ask(client, n=2, stop="stop")).json()
        assert [choice["message"]["content"] for choice in body["choices"]] == [
            "one ",
            "no such word in this one",
        ]
        assert backend.choice_aborts == [(backend.requests[0].request_id, 0)]
        assert body["usage"]["completion_tokens"] == len("one stop") + len(backend.script[1]) + 1
        await ask(client, stop="stop")
    assert backend.aborted == [backend.requests[1].request_id]
    assert not backend.live


async def test_several_tokens_of_a_step_come_in_one_chunk_with_an_entry_each(model_dir):
    backend = ScriptBackend(model_dir, ("abcdef",), tokens_per_step=3)
    async with client_of(backend) as client:
        chunks = events_of((await ask(client, stream=True, logprobs=True)).text)
    told = [
        (choice["delta"].get("content"), len(choice["logprobs"]["content"]))
        for chunk in chunks
        for choice in chunk["choices"]
        if choice["logprobs"]
    ]
    assert told == [("abc", 3), ("def", 3), (None, 1)]


async def test_logprobs_have_bytes_and_alternatives(model_dir):
    async with client_of(ScriptBackend(model_dir, ("é",))) as client:
        body = (await ask(client, logprobs=True, top_logprobs=2)).json()
    entries = body["choices"][0]["logprobs"]["content"]
    assert [entry["bytes"] for entry in entries[:2]] == [[0xC3], [0xA9]]
    assert bytes(number for entry in entries[:2] for number in entry["bytes"]).decode() == "é"
    assert entries[0]["token"] == "\ufffd"
    assert entries[0]["logprob"] == -0.5
    assert len(entries[0]["top_logprobs"]) == 2
    assert entries[2]["token"] == "<|im_end|>"


async def test_tokens_may_be_named_by_id(client):
    body = (await ask(client, logprobs=True, return_tokens_as_token_ids=True)).json()
    entries = body["choices"][0]["logprobs"]["content"]
    assert entries[-1]["token"] == f"token_id:{EOS}"


async def test_token_ids_are_returned_when_asked_for(client, backend):
    body = (await ask(client, return_token_ids=True)).json()
    assert body["prompt_token_ids"] == list(backend.requests[0].prompt_token_ids)
    assert body["choices"][0]["token_ids"][-1] == EOS
    chunks = events_of((await ask(client, return_token_ids=True, stream=True)).text)
    assert chunks[0]["prompt_token_ids"] == body["prompt_token_ids"]


async def test_usage_comes_last_when_asked_for(client):
    chunks = events_of(
        (await ask(client, stream=True, stream_options={"include_usage": True})).text
    )
    assert all(chunk["usage"] is None for chunk in chunks[:-1])
    assert chunks[-1]["choices"] == []
    whole = (await ask(client)).json()
    assert chunks[-1]["usage"] == whole["usage"]


async def test_continuous_usage_grows(client):
    options = {"include_usage": True, "continuous_usage_stats": True}
    chunks = events_of((await ask(client, stream=True, stream_options=options)).text)
    counts = [chunk["usage"]["completion_tokens"] for chunk in chunks]
    assert counts == sorted(counts)
    assert counts[-1] == 14


async def test_cached_tokens_are_told(client, backend):
    backend.cached = 7
    body = (await ask(client)).json()
    assert body["usage"]["prompt_tokens_details"] == {"cached_tokens": 7}


async def test_length_is_the_reason_when_the_limit_ends_it(client):
    body = (await ask(client, max_completion_tokens=3, max_tokens=9)).json()
    assert body["choices"][0]["finish_reason"] == "length"
    assert body["choices"][0]["message"]["content"] == "Hel"


async def test_stop_token_ids_end_with_their_id_as_reason(client):
    comma = (await client.post("/tokenize", json={"prompt": ","})).json()["tokens"][0]
    body = (await ask(client, stop_token_ids=[comma])).json()
    assert body["choices"][0]["message"]["content"] == "Hello"
    assert body["choices"][0]["stop_reason"] == comma


async def test_an_engine_error_is_a_500_with_its_words(client, backend):
    backend.error_after = "the step failed"
    answer = await client.post(PATH, json=HELLO)
    assert answer.status_code == 500
    assert answer.json()["error"]["message"] == "the step failed"


async def test_an_engine_error_in_a_stream_is_its_last_event(client, backend):
    backend.error_after = "the step failed"
    events = events_of((await ask(client, stream=True)).text)
    assert events[-1]["error"]["message"] == "the step failed"
    assert events[-1]["error"]["type"] == "server_error"
    backend.error_after = None
    await ask(client)
