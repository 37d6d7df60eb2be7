from __future__ import annotations

import json

from rtp_core.server.schema.chat import ChatBody
from rtp_core.server.schema.refused import IGNORED

PROMISED = {
    ("get", "/v1/models"),
    ("get", "/v1/models/{id}"),
    ("post", "/v1/chat/completions"),
    ("post", "/v1/completions"),
    ("post", "/tokenize"),
    ("post", "/detokenize"),
    ("get", "/health"),
    ("get", "/ping"),
    ("post", "/ping"),
    ("get", "/version"),
    ("get", "/metrics"),
    ("get", "/v1/plugins"),
    ("get", "/v1/stats"),
    ("post", "/reset_prefix_cache"),
}


async def document(client):
    answer = await client.get("/openapi.json")
    assert answer.status_code == 200
    return answer.json()


def references(value):
    if isinstance(value, dict):
        for key, item in value.items():
            if key == "$ref":
                yield item
            else:
                yield from references(item)
    elif isinstance(value, list):
        for item in value:
            yield from references(item)


async def test_every_operation_is_described(client):
    described = await document(client)
    assert described["openapi"].startswith("3.1")
    found = {(method, path) for path, methods in described["paths"].items() for method in methods}
    assert found >= PROMISED
    names = [
        operation["operationId"]
        for methods in described["paths"].values()
        for operation in methods.values()
    ]
    assert len(set(names)) == len(names)


async def test_every_reference_leads_somewhere(client):
    described = await document(client)
    found = set(references(described))
    assert found
    for reference in found:
        where = described
        for part in reference.removeprefix("#/").split("/"):
            where = where[part]
    schemas = set(described["components"]["schemas"])
    assert {f"#/components/schemas/{name}" for name in schemas} == found


async def test_errors_and_streams_are_declared(client):
    operation = (await document(client))["paths"]["/v1/chat/completions"]["post"]
    assert {"200", "400", "401", "404", "408", "413", "415", "500", "501", "503"} == set(
        operation["responses"]
    )
    assert set(operation["responses"]["200"]["content"]) == {
        "application/json",
        "text/event-stream",
    }
    assert "422" not in json.dumps(operation)
    assert operation["security"] == [{"key": []}]


async def test_bodies_are_closed_and_complete(client):
    schemas = (await document(client))["components"]["schemas"]
    chat = schemas["ChatBody"]
    assert chat["additionalProperties"] is False
    assert set(chat["properties"]) == {*ChatBody.__struct_fields__, *IGNORED}
    assert chat["required"] == ["messages"]
    assert chat["properties"]["temperature"]["anyOf"][0]["maximum"] == 2
    assert len(schemas["CompletionBody"]["properties"]["prompt"]["anyOf"]) == 4
