"""Snapshots the engine publishes: data for /metrics, /v1/stats and llm.stats()."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class GrammarStats:
    """Since start: grammars compiled, found compiled, refused, and the seconds that took.

    `masks` were made of them in `mask_seconds` of threads, the slowest in `longest_mask_s`;
    `late` ones were not there when their row was to draw.
    """

    compiled: int = 0
    cached: int = 0
    refused: int = 0
    seconds: float = 0.0
    masks: int = 0
    mask_seconds: float = 0.0
    longest_mask_s: float = 0.0
    late: int = 0


@dataclass(frozen=True, slots=True)
class EngineStats:
    """Counters since start and gauges now, taken between steps. Token counts unless named.

    `blocks` maps "tier/format" to blocks in use, `cached_blocks` to those that nobody uses but
    that keep a prefix; `spec_method_tokens` method to accepted
    tokens; `finished` finish reason to requests; `plugin_errors` plugin to errors.
    """

    num_running: int = 0
    num_waiting: int = 0
    kv_usage: float = 0.0
    kv_bytes: int = 0
    num_blocks: int = 0
    num_steps: int = 0
    prompt_tokens: int = 0
    generation_tokens: int = 0
    prefix_queries: int = 0
    prefix_hits: int = 0
    preemptions: int = 0
    spec_drafts: int = 0
    spec_draft_tokens: int = 0
    spec_accepted_tokens: int = 0
    step_seconds: float = 0.0
    step_host_seconds: float = 0.0
    load_bytes: int = 0
    load_seconds: float = 0.0
    blocks: dict[str, int] = field(default_factory=dict)
    cached_blocks: dict[str, int] = field(default_factory=dict)
    spec_method_tokens: dict[str, int] = field(default_factory=dict)
    finished: dict[str, int] = field(default_factory=dict)
    plugin_errors: dict[str, int] = field(default_factory=dict)
    grammars: GrammarStats = field(default_factory=GrammarStats)
