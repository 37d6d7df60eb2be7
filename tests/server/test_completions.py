from __future__ import annotations

import pytest
from kit import EOS, ScriptBackend, client_of, events_of

PATH = "/v1/completions"


def flat(lists):
    return [item for one in lists for item in one]


async def ask(client, **fields):
    answer = await client.post(PATH, json=fields)
    assert answer.status_code == 200, answer.text
    return answer


async def test_a_prompt_is_continued(client, backend):
    body = (await ask(client, prompt="Once")).json()
    assert body["object"] == "text_completion"
    assert body["id"].startswith("cmpl-")
    assert body["choices"] == [
        {
            "index": 0,
            "text": "Hello, world!",
            "logprobs": None,
            "finish_reason": "stop",
            "stop_reason": None,
        }
    ]
    assert body["usage"]["prompt_tokens"] == 4
    assert backend.requests[0].sampling.max_tokens == 16


@pytest.mark.parametrize(
    ("prompt", "count"),
    [("ab", 1), (["ab", "cde"], 2), ([1, 2, 3], 1), ([[1, 2], [3]], 2)],
)
async def test_every_kind_of_prompt(client, backend, prompt, count):
    body = (await ask(client, prompt=prompt, n=2)).json()
    assert [choice["index"] for choice in body["choices"]] == list(range(2 * count))
    assert len(backend.requests) == count
    assert body["usage"]["prompt_tokens"] == sum(
        len(request.prompt_token_ids) for request in backend.requests
    )
    if prompt and isinstance(prompt[0], int):
        assert backend.requests[0].prompt_token_ids == (1, 2, 3)


@pytest.mark.parametrize(
    "fields",
    [
        {"prompt": "a"},
        {"prompt": ["a", "b"], "n": 2, "echo": True},
        {"prompt": [65, 66], "echo": True},
        {"prompt": "a", "echo": True, "max_tokens": 0},
        {"prompt": ["a", "b"], "logprobs": 2},
        {"prompt": "a", "stop": "wor"},
        {"prompt": "a", "return_token_ids": True},
    ],
)
async def test_a_stream_says_what_the_whole_answer_says(model_dir, fields):
    backend = ScriptBackend(model_dir, ("Hello, wörld!", "Bye"), tokens_per_step=2)
    async with client_of(backend) as client:
        whole = (await ask(client, **fields)).json()
        chunks = events_of((await ask(client, **fields, stream=True)).text)
    for choice in whole["choices"]:
        mine = [
            part
            for chunk in chunks
            for part in chunk["choices"]
            if part["index"] == choice["index"]
        ]
        assert "".join(part["text"] for part in mine) == choice["text"]
        assert mine[-1]["finish_reason"] == choice["finish_reason"]
        assert flat(part.get("token_ids", []) for part in mine) == choice.get("token_ids", [])
        for name, values in (choice["logprobs"] or {}).items():
            parts = [part["logprobs"][name] for part in mine if part["logprobs"]]
            assert flat(parts) == values


async def test_echo_stands_before_the_text(client):
    body = (await ask(client, prompt="Once", echo=True)).json()
    assert body["choices"][0]["text"] == "OnceHello, world!"
    ids = (await client.post("/tokenize", json={"prompt": "Ähm"})).json()["tokens"]
    body = (await ask(client, prompt=ids, echo=True, max_tokens=0)).json()
    assert body["choices"][0]["text"] == "Ähm"
    assert body["usage"]["completion_tokens"] == 0


async def test_logprobs_are_parallel_lists(client):
    logprobs = (await ask(client, prompt="a", logprobs=1)).json()["choices"][0]["logprobs"]
    assert logprobs["tokens"][:5] == list("Hello")
    assert logprobs["token_logprobs"][0] == -0.5
    assert logprobs["top_logprobs"][0] == {"H": -0.5}
    assert logprobs["text_offset"][:4] == [0, 1, 2, 3]
    assert {len(values) for values in logprobs.values()} == {14}


async def test_parts_of_characters_do_not_hide_one_another(model_dir):
    async with client_of(ScriptBackend(model_dir, ("\U0001f600",))) as client:
        body = (await ask(client, prompt="a", logprobs=3)).json()
    for top in body["choices"][0]["logprobs"]["top_logprobs"][:4]:
        assert len(top) == 3


async def test_the_usual_limit_is_cut_to_the_context(client, backend):
    await ask(client, prompt=[1] * 250)
    assert backend.requests[0].sampling.max_tokens == 6


async def test_a_prompt_can_be_truncated_to_its_end(client, backend):
    body = (await ask(client, prompt="abcdef", truncate_prompt_tokens=2, echo=True)).json()
    assert body["usage"]["prompt_tokens"] == 2
    assert body["choices"][0]["text"].startswith("efHello")


async def test_prompt_ids_are_returned_with_each_choice(client):
    body = (await ask(client, prompt=[[1, 2], [3]], return_token_ids=True)).json()
    assert [choice["prompt_token_ids"] for choice in body["choices"]] == [[1, 2], [3]]
    assert body["choices"][0]["token_ids"][-1] == EOS


async def test_one_refused_prompt_refuses_all(client, backend):
    answer = await client.post(PATH, json={"prompt": ["ok", "x" * 300]})
    assert answer.status_code == 400
    assert answer.json()["error"]["code"] == "context_length_exceeded"
    assert backend.requests == []


async def test_log_probabilities_of_an_echoed_prompt(client, backend):
    body = {"prompt": ["Hi", "you"], "echo": True, "logprobs": 2, "max_tokens": 2, "n": 2}
    choices = (await client.post(PATH, json=body)).json()["choices"]
    assert [choice["text"] for choice in choices] == ["HiHe", "HiHe", "youHe", "youHe"]
    for choice in choices:
        logprobs = choice["logprobs"]
        assert "".join(logprobs["tokens"]) == choice["text"]
        assert logprobs["token_logprobs"][0] is logprobs["top_logprobs"][0] is None
        assert all(value is not None for value in logprobs["token_logprobs"][1:])
        assert logprobs["text_offset"] == list(range(len(choice["text"])))
        assert len({len(values) for values in logprobs.values()}) == 1
        assert "prompt_logprobs" not in choice
    ids = backend.requests[0].prompt_token_ids
    assert choices[0]["logprobs"]["token_logprobs"][1] == -1.0 - ids[1]
    assert len(choices[0]["logprobs"]["top_logprobs"][1]) == 3


async def test_a_prompt_alone_may_be_scored(client, backend):
    body = {"prompt": "Hi", "echo": True, "logprobs": 0, "max_tokens": 0, "prompt_logprobs": 1}
    (choice,) = (await client.post(PATH, json=body)).json()["choices"]
    assert backend.requests[0].sampling.prompt_logprobs == 1
    assert choice["text"] == "Hi"
    assert choice["logprobs"]["tokens"] == ["H", "i"]
    ids = backend.requests[0].prompt_token_ids
    assert set(choice["logprobs"]["top_logprobs"][1]) == {"i"}
    assert set(choice["prompt_logprobs"][1]) == {str(ids[1]), "5"}
