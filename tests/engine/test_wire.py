"""Every message survives the wire; what cannot is refused before it is sent."""

from __future__ import annotations

import math

import msgspec
import numpy as np
import pytest

from rtp_core.api import (
    FinishReason,
    KVQuality,
    MediaSpan,
    Request,
    RequestTiming,
    SamplingParams,
    StructuredOutput,
    TokenEvent,
    TokenLogprob,
)
from rtp_core.config.schema import EngineConfig, KVConfig, ModelConfig
from rtp_core.engine import wire
from rtp_core.engine.contract import ModelInfo
from rtp_core.errors import (
    CapacityError,
    ConfigError,
    EngineDeadError,
    PluginError,
    RequestError,
    RtpError,
    WeightLoadError,
)
from rtp_core.observe.snapshot import EngineStats

REQUEST = Request(
    "chatcmpl-1",
    (1, 2, 2**31 - 1),
    SamplingParams(
        n=3,
        temperature=0.5,
        stop=("a", "ü"),
        seed=-(2**63),
        logit_bias={5: -100.0},
        logprobs=20,
        structured=StructuredOutput.of_choices(["ja", "nein ü"]),
        structured_after=(3, 4),
    ),
    arrival_time_s=12.5,
    priority=-2,
    tenant="t",
    cache_salt="s",
    kv_quality=KVQuality.EXACT,
    media=(MediaSpan(1, 2, "digest", "vision"),),
    waits_for=frozenset({"grammar", "kv:1"}),
)
EVENT = TokenEvent(
    "chatcmpl-1",
    2,
    (7, 8),
    (TokenLogprob(7, -0.25, ((7, -0.25), (9, float("-inf")))), TokenLogprob(8, -1.0)),
    FinishReason.STOP,
    8,
    16,
    "why",
    RequestTiming(1.0, 2.0, 3.0, 4.0),
)
CONFIG = EngineConfig(
    model=ModelConfig(path="/models/ü", served_name=("a", "b")),
    kv=KVConfig(block_size=None, tiers=("host",)),
    plugins={"x": {"nested": {"list": [1, 2.5, None, "s", True]}}},
)
INFO = ModelInfo("m", "LlamaForCausalLM", 4096, 10, (2, 3), "/t", "float32", {"top_p": 0.9})
ERROR = wire.describe(RequestError("n", "n is too large", status=422, code="c"))


@pytest.mark.parametrize(
    "message",
    [
        wire.Configure(CONFIG),
        wire.Submit(REQUEST),
        wire.Abort("r", 3),
        wire.Abort("r"),
        wire.AskStats(1),
        wire.AskExplain(2),
        wire.AskReport(2, "blocks"),
        wire.ResetCache(3),
        wire.Shutdown(),
    ],
    ids=lambda message: type(message).__name__,
)
def test_messages_to_the_engine_arrive_as_they_were(message):
    assert wire.decode_to_engine(wire.encode(message)) == message


@pytest.mark.parametrize(
    "message",
    [
        wire.Hello("token"),
        wire.Loading(1, 2**40),
        wire.Ready(INFO),
        wire.LoadFailed(ERROR),
        wire.Events((EVENT, TokenEvent("r", 0, ()))),
        wire.Refused("r", ERROR),
        wire.Stats(0, EngineStats(blocks={"device/dense": 3}, kv_usage=0.5)),
        wire.Explained(1, {"loader": {"offer": "mmap", "bytes": 2**40, "why": None}}),
        wire.Done(1, done=True),
        wire.Unanswered(1, ERROR),
        wire.Failed("why"),
    ],
    ids=lambda message: type(message).__name__,
)
def test_messages_from_the_engine_arrive_as_they_were(message):
    assert wire.decode_from_engine(wire.encode(message)) == message


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_floats_that_are_no_numbers_survive(value):
    frame = wire.encode(wire.Events((TokenEvent("r", 0, (1,), (TokenLogprob(1, value),)),)))
    (event,) = wire.decode_from_engine(frame).events
    got = event.logprobs[0].logprob
    assert got == value or (math.isnan(got) and math.isnan(value))


@pytest.mark.parametrize(
    "error",
    [
        RequestError("n", "n is too large", status=413, code="too_large", remedy="ask for less"),
        RequestError(None, "nothing fits"),
        ConfigError("kv.block_size", "must divide 256", remedy="set 16"),
        PluginError("spec", "1.0", "raised", remedy="remove it"),
        WeightLoadError("is truncated", file="a.safetensors", tensor="lm_head"),
        EngineDeadError("gone"),
    ],
    ids=lambda error: type(error).__name__,
)
def test_errors_keep_class_text_remedy_and_attributes(error):
    frame = wire.encode(wire.Refused("r", wire.describe(error)))
    revived = wire.revive(wire.decode_from_engine(frame).error)
    assert type(revived) is type(error)
    assert str(revived) == str(error)
    assert vars(revived) == vars(error)


def test_an_error_class_of_a_plugin_travels_as_its_nearest_class_of_ours():
    class Damaged(WeightLoadError):
        pass

    error = Damaged("is bad", file="f")
    error.extra = object()
    revived = wire.revive(wire.describe(error))
    assert type(revived) is WeightLoadError
    assert str(revived) == "f: is bad"


@pytest.mark.parametrize("kind", ["Exception", "annotations", "nonsense"])
def test_an_unknown_error_class_becomes_the_root_class(kind):
    assert type(wire.revive(wire.ErrorInfo(kind, "text"))) is RtpError


@pytest.mark.parametrize("frame", [b"", b"\xc1", b"\x93\x01", b"\x92\xa5hello", b"\x91\xa3who"])
def test_garbage_is_a_decode_error(frame):
    with pytest.raises(msgspec.DecodeError):
        wire.decode_from_engine(frame)
    with pytest.raises(msgspec.DecodeError):
        wire.decode_to_engine(frame)


def test_a_message_of_one_direction_is_garbage_in_the_other():
    with pytest.raises(msgspec.DecodeError):
        wire.decode_to_engine(wire.encode(wire.Failed("x")))


def test_the_request_id_is_found_in_a_submission_that_cannot_be_read():
    body = msgspec.to_builtins(REQUEST)
    body["sampling"]["temperature"] = 9.0
    frame = msgspec.msgpack.encode(["submit", body])
    with pytest.raises(RequestError):
        wire.decode_to_engine(frame)
    assert wire.request_id_of(frame) == "chatcmpl-1"
    assert wire.request_id_of(wire.encode(wire.Abort("r"))) is None
    assert wire.request_id_of(b"\xc1") is None


def test_an_oversized_message_is_refused_by_its_sender():
    tokens = (2**31 - 1,) * (wire.MAX_FRAME_BYTES // 5 + 1)
    with pytest.raises(CapacityError, match=r"Submit message of \d+ bytes is above the limit"):
        wire.encode(wire.Submit(Request("r", tokens, SamplingParams())))


def test_a_million_token_prompt_fits():
    tokens = (2**31 - 1,) * 2**20
    wire.encode(wire.Submit(Request("r", tokens, SamplingParams())))


def test_values_without_a_form_are_a_type_error_of_the_sender():
    with pytest.raises(TypeError):
        wire.encode(wire.Submit(Request("r", (np.int64(3),), SamplingParams())))
