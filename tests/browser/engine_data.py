"""Invented but plausible documents of /v1/models, /v1/plugins and /v1/stats."""

from __future__ import annotations

import math
import time
from typing import Any

MODEL = "demo-135m-instruct"
DEMO_REPLY = """A **KV cache** keeps the *keys* and *values* that attention has computed, \
so that each new token looks them up instead of computing them again.

### Why it helps

1. Without it, step `n` costs as much as all steps before it.
2. With it, a step reads the cache once:
   - keys, to score each earlier token
   - values, to mix them

```python
def attend(query, keys, values):
    scores = keys @ query / len(query) ** 0.5
    return softmax(scores) @ values  # one pass over the cache
```

| Context | Cache |
|---|---|
| 1,024 | 23 MiB |
| 8,192 | 184 MiB |

> Memory is the price: see [the paper](https://arxiv.org/abs/2309.06180).
"""


def models() -> dict[str, Any]:
    card = {"id": MODEL, "object": "model", "created": 0, "owned_by": "rtp", "max_model_len": 8192}
    return {"object": "list", "data": [card]}


def feature(
    role: str, offer: str | None, plugin: str | None, on: bool, reason: str
) -> dict[str, Any]:
    version = "0.1.0" if plugin else None
    names = {"role": role, "offer": offer, "plugin": plugin, "version": version}
    return {**names, "on": on, "reason": reason}


def plugin(name: str, summary: str, provides: list[str], **fields: Any) -> dict[str, Any]:
    base = {"name": name, "version": "0.1.0", "api": "1.0", "summary": summary}
    lists = {"provides": provides, "needs": [], "conflicts": []}
    return {**base, **lists, "selected": True, "broken": None, **fields}


def plugins() -> dict[str, Any]:
    features = [
        feature("model", "LlamaForCausalLM", "core.models", True, "architecture in config.json"),
        feature("loader", "file_order", "core.loading", True, "auto: fastest on a local disk"),
        feature("scheduler", "fcfs", "core.scheduling", True, "default of scheduling.policy"),
        feature("kv_store", "adaptive", "kvquant", True, "kv.store = adaptive in rtp.toml"),
        feature("kv_tier", "host", "kvquant", True, "kv.tiers = host"),
        feature("speculator", "ngram", "core.speculation", True, "speculation.methods"),
        feature("speculator", "eagle", "spec_eagle", False, "no draft head fits this model"),
        feature("scheduler", "priority", "core.scheduling", False, "installed, not selected"),
        feature("scheduler", "prefix", "core.scheduling", False, "installed, not selected"),
        feature("encoder", None, None, False, "modality.encoders is empty"),
        feature("encoder", "vision", "vision", False, "broken: needs API 2.0"),
        feature("transport", None, None, False, "pd.role is both"),
        feature("transport", "tcp", None, False, "not installed (pip install rtp-pd)"),
        feature("transport", "shm", None, False, "not installed (pip install rtp-pd)"),
    ]
    memory = {
        "weights_bytes": 269_060_000,
        "kv_bytes": 1_610_612_736,
        "kv_blocks": 4369,
        "kv_tokens": 69904,
        "kv_reason": "half of the memory left after weights and a step's activations",
    }
    model = {
        "path": "demo",
        "architecture": "LlamaForCausalLM",
        "dtype": "bfloat16",
        "max_model_len": 8192,
        "fingerprint": "9f2c51d04b7e",
    }
    return {
        "object": "list",
        "data": [
            plugin(
                "kvquant",
                "KV cache in lower precision, with a tier in host memory.",
                ["kv_store:adaptive", "kv_tier:host", "kv_format:int8", "kv_format:int4"],
            ),
            plugin(
                "spec_eagle",
                "Drafts from the target's hidden states.",
                ["speculator:eagle"],
                needs=["device:cuda"],
                selected=False,
            ),
            plugin(
                "vision",
                "Images in chat messages.",
                ["encoder:vision"],
                selected=False,
                broken="needs API 2.0, this host has 1.0; install rtp-vision 0.1",
            ),
        ],
        "effective": {"model": model, "memory": memory, "features": features},
    }


def engine() -> dict[str, Any]:
    return {
        "num_running": 3,
        "num_waiting": 0,
        "kv_usage": 0.37,
        "kv_bytes": 1_610_612_736,
        "num_blocks": 4369,
        "num_steps": 48210,
        "prompt_tokens": 184_220,
        "generation_tokens": 92_144,
        "prefix_queries": 184_220,
        "prefix_hits": 101_300,
        "preemptions": 2,
        "spec_drafts": 12_100,
        "spec_draft_tokens": 48_400,
        "spec_accepted_tokens": 17_900,
        "step_seconds": 1205.2,
        "step_host_seconds": 61.4,
        "load_bytes": 269_060_000,
        "load_seconds": 0.41,
        "blocks": {"device/dense": 812, "device/int8": 640, "device/int4": 164, "host/int4": 930},
        "cached_blocks": {"device/dense": 702, "device/int8": 96},
        "spec_method_tokens": {"ngram": 12_400, "suffix": 5_500},
        "finished": {"stop": 610, "length": 41, "abort": 5},
        "plugin_errors": {},
    }


def history(now: float, seconds: int = 600) -> list[dict[str, Any]]:
    start = int(now) - seconds + 1
    return [_sample(start + second) for second in range(seconds)]


def _sample(unix: int) -> dict[str, Any]:
    wave = 0.5 + 0.35 * math.sin(unix / 40) + 0.15 * math.sin(unix / 7.3)
    busy = unix % 290 > 30
    return {
        "t_unix_s": unix,
        "running": round(6 * wave) if busy else 0,
        "waiting": max(0, round(5 * wave - 3)) if busy else 0,
        "kv_usage": 0.2 + 0.4 * wave,
        "prompt_tokens_per_s": 310 * wave if busy else 0.0,
        "generation_tokens_per_s": 140 * wave if busy else 0.0,
        "prefix_hit_rate": 0.55 * wave if busy else None,
        "spec_acceptance": 0.3 + 0.2 * wave if busy else None,
        "blocks": {"device/dense": round(900 * wave), "host/int4": round(500 * wave)},
        "cached_blocks": {"device/dense": round(700 - 200 * wave)},
        "ttft_s": ranks(0.14 * (0.5 + wave)) if busy and unix % 3 else None,
        "itl_s": ranks(0.021 * (0.5 + wave)) if busy else None,
    }


def ranks(median: float) -> dict[str, float]:
    return {"p50": median, "p95": 2.2 * median, "p99": 3.5 * median, "n": 12}


def requests(now: float, count: int = 30) -> list[dict[str, Any]]:
    return [_request(now, place) for place in range(count)]


def _request(now: float, place: int) -> dict[str, Any]:
    queue = 0.3 * (place % 4 == 1)
    first = queue + 0.08 + 0.05 * (place % 5)
    made = 24 + 31 * (place % 7)
    return {
        "id": f"chatcmpl-{7919 * (place + 3):08x}",
        "endpoint": "/v1/chat/completions",
        "status": 200,
        "prompt_tokens": 96 + 40 * place,
        "cached_tokens": 64 * (place % 3),
        "completion_tokens": made,
        "queue_s": queue,
        "ttft_s": first,
        "e2e_s": first + made / 45,
        "finish_reason": "length" if place % 6 == 5 else "stop",
        "started_unix_s": now - 9 * place - 3,
        "state": "done",
        "speculation": {"method": "ngram", "k": 4, "acceptance": 0.3 + 0.02 * (place % 9)},
    }


def finished(name: str) -> dict[str, Any]:
    """A request that ended now."""
    return {**_request(time.time(), 4), "id": name, "started_unix_s": time.time() - 0.1}


def running(now: float) -> list[dict[str, Any]]:
    """Requests that have not ended: one waits for its first token."""
    live = {"status": 0, "queue_s": None, "finish_reason": None}
    waits = {**live, "id": "chatcmpl-waiting", "state": "waiting", "ttft_s": None, "e2e_s": 0.4}
    writes = {**live, "id": "chatcmpl-writing", "state": "decode", "ttft_s": 0.31, "e2e_s": 1.9}
    return [
        {**_request(now, 0), **waits, "completion_tokens": 0, "started_unix_s": now - 0.4},
        {**_request(now, 1), **writes, "completion_tokens": 61, "started_unix_s": now - 1.9},
    ]


def stats() -> dict[str, Any]:
    now = time.time()
    return {
        "version": "0.1.0",
        "state": "ready",
        "uptime_s": 5423.0,
        "model": {
            "name": MODEL,
            "architecture": "LlamaForCausalLM",
            "max_model_len": 8192,
            "dtype": "bfloat16",
        },
        "engine": engine(),
        "latency": {
            "ttft_s": {"p50": 0.142, "p95": 0.61, "p99": 1.2, "n": 656},
            "itl_s": {"p50": 0.0214, "p95": 0.048, "p99": 0.112, "n": 1024},
            "e2e_s": {"p50": 2.31, "p95": 6.8, "p99": 9.4, "n": 656},
        },
        "history": history(now),
        "requests": [*running(now), *requests(now)],
        "speculation": {
            "methods": {
                "ngram": {"drafts": 7_800, "draft_tokens": 31_200, "accepted_tokens": 12_400},
                "suffix": {"drafts": 4_300, "draft_tokens": 17_200, "accepted_tokens": 5_500},
            }
        },
    }
