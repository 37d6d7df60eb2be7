"""A byte-level tokenizer, a scripted engine behind the asynchronous contract, and two ways to
reach a server: in process over ASGI, and on a loopback port in a thread."""

from __future__ import annotations

import asyncio
import contextlib
import json
import threading
import time
from dataclasses import replace

import httpx
import tokenizers
from tokenizers import AddedToken, decoders, models, pre_tokenizers

from rtp_core.api import FinishReason, RequestTiming, TokenEvent, TokenLogprob
from rtp_core.config.schema import EngineConfig, ServerConfig
from rtp_core.engine.contract import ModelInfo
from rtp_core.observe.snapshot import EngineStats
from rtp_core.server.app import build_app
from rtp_core.server.limits import Limits
from rtp_core.server.listener import bind
from rtp_core.server.serve import run_server

EOS = 257
MAX_MODEL_LEN = 256
TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n{{ message['content'] }}"
    "{% if message.tool_calls %}{% for call in message.tool_calls %}"
    "[{{ call.function.name }}:{{ call.function.arguments.keys() | join(',') }}]"
    "{% endfor %}{% endif %}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n"
    "{% if enable_thinking is defined and not enable_thinking %}(quick){% endif %}{% endif %}"
)


def write_model(folder):
    """tokenizer.json with one token a byte, and the chat template."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    backend = tokenizers.Tokenizer(
        models.BPE(vocab={char: index for index, char in enumerate(alphabet)}, merges=[])
    )
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    backend.decoder = decoders.ByteLevel()
    backend.add_special_tokens(
        [AddedToken("<|im_start|>", special=True), AddedToken("<|im_end|>", special=True)]
    )
    backend.save(str(folder / "tokenizer.json"))
    (folder / "tokenizer_config.json").write_text(json.dumps({"eos_token": "<|im_end|>"}))
    (folder / "chat_template.jinja").write_text(TEMPLATE)
    return folder


class ScriptBackend:
    """Says `script[choice]` (or the last entry) for every prompt, then the end token.

    `tokens_per_step` tokens arrive together. `gate` holds every step back while cleared.
    `refuse`, `break_after` and `error_after` make requests fail.
    """

    def __init__(self, folder, script=("Hello, world!",), tokens_per_step=1):
        self.tokenizer = tokenizers.Tokenizer.from_file(str(folder / "tokenizer.json"))
        self.script = script
        self.tokens_per_step = tokens_per_step
        self.info = ModelInfo(
            "tiny", "ScriptForCausalLM", MAX_MODEL_LEN, 258, (EOS,), str(folder), "float32", {}
        )
        self.state = "ready"
        self.failure = None
        self.progress = None
        self.gate = asyncio.Event()
        self.gate.set()
        self.step_s = 0.0
        self.refuse = None
        self.break_after = None
        self.error_after = None
        self.cached = 0
        self.requests = []
        self.live = set()
        self.scored = set()
        self.aborted = []
        self.choice_aborts = []
        self.counters = EngineStats()
        self.resets = 0
        self.start_error = None
        self.start_gate = None
        self.begun = False

    def begin(self):
        self.begun = True

    async def start(self):
        if self.start_gate is not None:
            await self.start_gate.wait()
        if self.start_error is not None:
            self.state = "broken"
            raise self.start_error
        self.state = "ready"

    async def generate(self, request):
        self.requests.append(request)
        if self.refuse is not None:
            raise self.refuse
        self.live.add(request.request_id)
        try:
            async for event in self._events(request):
                yield event
        finally:
            self.live.discard(request.request_id)

    async def _events(self, request):
        arrival = time.monotonic()
        streams = {choice: self._tokens(request, choice) for choice in range(request.sampling.n)}
        done = 0
        try:
            while streams:
                if self.step_s:
                    await asyncio.sleep(self.step_s)
                await self.gate.wait()
                await asyncio.sleep(0)
                self._fail(done)
                for choice in list(streams):
                    if (request.request_id, choice) in self.choice_aborts:
                        del streams[choice]
                        yield self._event(request, choice, [], FinishReason.ABORT, None, arrival)
                        continue
                    tokens = streams[choice][: self.tokens_per_step]
                    streams[choice] = streams[choice][self.tokens_per_step :]
                    reason = stop = None
                    if not streams[choice]:
                        del streams[choice]
                        reason, stop = self._reason(request, tokens)
                    yield self._event(request, choice, tokens, reason, stop, arrival)
                done += 1
        finally:
            if streams:
                self.aborted.append(request.request_id)

    def _fail(self, done):
        if self.break_after is not None and done >= self.break_after[0]:
            raise self.break_after[1]

    def _tokens(self, request, choice):
        text = self.script[min(choice, len(self.script) - 1)]
        sampling = request.sampling
        tokens = self.tokenizer.encode(text, add_special_tokens=False).ids
        room = MAX_MODEL_LEN - len(request.prompt_token_ids)
        limit = room if sampling.max_tokens is None else sampling.max_tokens
        if sampling.ignore_eos:
            tokens = (tokens * (limit // max(1, len(tokens)) + 1))[:limit]
        else:
            tokens = [*tokens, EOS]
        for index, token in enumerate(tokens):
            if token in sampling.stop_token_ids and index + 1 > sampling.min_tokens:
                return tokens[: index + 1][:limit]
        return tokens[:limit]

    def _reason(self, request, tokens):
        last = tokens[-1] if tokens else None
        if last in request.sampling.stop_token_ids:
            return FinishReason.STOP, last
        if last == EOS and not request.sampling.ignore_eos:
            return FinishReason.STOP, EOS
        return FinishReason.LENGTH, None

    def _event(self, request, choice, tokens, reason, stop, arrival):
        wanted = request.sampling.logprobs
        logprobs = None
        if wanted is not None:
            logprobs = tuple(
                TokenLogprob(
                    token,
                    -0.5,
                    tuple(((token + shift) % 256, -0.5 - shift) for shift in range(wanted)),
                )
                for token in tokens
            )
        self.counters = replace(
            self.counters, generation_tokens=self.counters.generation_tokens + len(tokens)
        )
        error = None
        if self.error_after is not None and reason is not None:
            reason, error = FinishReason.ERROR, self.error_after
        timing = None
        if reason is not None:
            timing = RequestTiming(arrival, arrival + 0.001, arrival + 0.002, arrival + 0.003)
        return TokenEvent(
            request.request_id,
            choice,
            tuple(tokens),
            logprobs,
            reason,
            stop,
            self.cached,
            error,
            timing,
            self._scores(request, choice),
        )

    def _scores(self, request, choice):
        """All of the prompt's with the first event of the first choice."""
        wanted = request.sampling.prompt_logprobs
        if wanted is None or choice or request.request_id in self.scored:
            return ()
        self.scored.add(request.request_id)
        return tuple(
            TokenLogprob(token, -1.0 - token, tuple((5 + at, -0.25 - at) for at in range(wanted)))
            for token in request.prompt_token_ids[1:]
        )

    async def abort(self, request_id, choice=None):
        self.choice_aborts.append((request_id, choice))

    async def stats(self):
        return replace(self.counters, num_running=len(self.live), blocks={"device/dense": 0})

    async def explain(self):
        feature = {"role": "loader", "offer": "file_order", "plugin": "core.loading"}
        feature |= {"version": "0", "on": True, "reason": "auto"}
        return {"model": {"path": "tiny"}, "memory": {"kv_tokens": 4096}, "features": [feature],
                "settings": [{"key": "kv.store", "origin": "/etc/rtp.toml line 3"}]}  # fmt: skip

    async def report(self, topic):
        return {"topic": topic}

    async def reset_prefix_cache(self):
        if self.live:
            return False
        self.resets += 1
        return True

    async def close(self):
        self.state = "draining"


def settings(**server):
    """A configuration for tests; keyword arguments are keys of [server]."""
    return replace(EngineConfig(), server=replace(ServerConfig(), **server))


@contextlib.asynccontextmanager
async def client_of(backend, config=None, limits=None, headers=None):
    """An httpx client on an application whose model is loaded."""
    app = build_app(config or settings(), backend, limits or Limits(refusal_grace_s=0.2))
    async with app.router.lifespan_context(app):
        transport = httpx.ASGITransport(app)
        async with httpx.AsyncClient(
            transport=transport, base_url="http://test", headers=headers
        ) as client:
            for _ in range(100):
                if backend.state != "ready" or (await client.get("/health")).status_code == 200:
                    break
                await asyncio.sleep(0.005)
            yield client


class LiveServer:
    """A server on a free loopback port, in a thread with its own loop."""

    def __init__(self, make_backend, config=None, limits=None):
        self.config = config or settings(port=0)
        self.listener = bind(self.config.server)
        self.port = self.listener.getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}"
        self._make_backend = make_backend
        self._limits = limits
        self._thread = threading.Thread(target=self._run, daemon=True)

    def _run(self):
        asyncio.run(self._main())

    async def _main(self):
        self.loop = asyncio.get_running_loop()
        self.backend = self._make_backend()
        self._task = asyncio.create_task(
            run_server(self.config, self.backend, self.listener, self._limits)
        )
        with contextlib.suppress(asyncio.CancelledError):
            await self._task

    def __enter__(self):
        self._thread.start()
        wait_for(lambda: self._health() == 200)
        return self

    def __exit__(self, *error):
        self.loop.call_soon_threadsafe(self._task.cancel)
        self._thread.join(10)
        assert not self._thread.is_alive()

    def _health(self):
        try:
            return httpx.get(f"{self.url}/health", timeout=5).status_code
        except httpx.HTTPError:
            return None

    def on_loop(self, function):
        """Run a function in the server's loop and wait for its result."""

        async def call():
            return function()

        return asyncio.run_coroutine_threadsafe(call(), self.loop).result(5)


def wait_for(condition, seconds=5.0):
    """Poll until true; fails the test otherwise."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "the condition did not come true"
        time.sleep(0.01)


async def until(condition, seconds=5.0):
    """As wait_for, for tests that own the loop."""
    async with asyncio.timeout(seconds):
        while not condition():
            await asyncio.sleep(0.01)


def events_of(text):
    """Objects of an event stream; checks its form and its last event."""
    parts = [part for part in text.split("\n\n") if part and not part.startswith(":")]
    assert all(part.startswith("data: ") and "\n" not in part for part in parts)
    assert parts[-1] == "data: [DONE]"
    return [json.loads(part.removeprefix("data: ")) for part in parts[:-1]]
