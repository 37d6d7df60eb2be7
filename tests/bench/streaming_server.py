"""A stub of a streaming server: `python streaming_server.py PIECES` prints its port and serves.

Every POST is answered with that many pieces of one token each, as fast as they go. After
`die_after` requests it ends in the middle of an answer, if that is given. STUB_CARDS replaces its
answer about models.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import os
import sys

PIECES = int(sys.argv[1])
DIE_AFTER = int(sys.argv[2]) if len(sys.argv) > 2 else None
PIECE = json.dumps({"choices": [{"index": 0, "text": " a", "finish_reason": None}]})
USAGE = json.dumps({"choices": [], "usage": {"prompt_tokens": 4, "completion_tokens": PIECES}})
CARDS = os.environ.get(
    "STUB_CARDS", json.dumps({"data": [{"id": "stub", "max_model_len": 100_000}]})
).encode()
requests = itertools.count(1)


def chunk(text: str) -> bytes:
    data = f"data: {text}\n\n".encode()
    return b"%x\r\n%b\r\n" % (len(data), data)


async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    head = (await reader.readuntil(b"\r\n\r\n")).decode()
    if head.startswith("GET /v1/models"):
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(CARDS), CARDS))
    elif not head.startswith("POST /v1/completions"):
        writer.write(b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n")
    else:
        request = next(requests)
        writer.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
        for number in range(PIECES):
            writer.write(chunk(PIECE))
            if number % 64 == 0:
                await writer.drain()
            if DIE_AFTER is not None and request > DIE_AFTER and number == 1:
                os._exit(1)
        writer.write(chunk(USAGE) + chunk("[DONE]") + b"0\r\n\r\n")
    await writer.drain()
    writer.close()


async def main() -> None:
    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()


asyncio.run(main())
