"""What /metrics shows: counts the server makes itself, and the engine's snapshot.

Names are vLLM's with the prefix ``rtp:``, so that its dashboards work after a rename. Every
label value is known at start-up or comes from configuration; none comes from a client.
All methods belong to the event loop's thread; no lock is taken.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter
from collections.abc import Iterable, Iterator
from itertools import accumulate

from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    Metric,
    SummaryMetricFamily,
)
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4, generate_latest
from prometheus_client.registry import Collector

from rtp_core.observe.snapshot import EngineStats

CONTENT_TYPE = CONTENT_TYPE_PLAIN_0_0_4
FINISH_REASONS = ("stop", "length", "abort", "error")
REJECTIONS = ("queue_full", "body_memory", "model_loading", "server_draining", "engine_dead")

# fmt: off
_TTFT = (
    0.001, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5,
    10.0, 20.0, 40.0, 80.0, 160.0, 640.0, 2560.0,
)
_TOKEN_GAP = (
    0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.75, 1.0,
    2.5, 5.0, 7.5, 10.0, 20.0, 40.0, 80.0,
)
_REQUEST = (
    0.3, 0.5, 0.8, 1.0, 1.5, 2.0, 2.5, 5.0, 10.0, 15.0, 20.0, 30.0, 40.0, 50.0, 60.0, 120.0,
    240.0, 480.0, 960.0, 1920.0, 7680.0,
)
# fmt: on
_TOKENS = tuple(float(step * 10**power) for power in range(6) for step in (1, 2, 5))
_CHOICES = (1.0, 2.0, 5.0, 10.0, 20.0, 50.0, 128.0)

_HISTOGRAMS = {
    "time_to_first_token_seconds": ("Arrival to first token.", _TTFT),
    "inter_token_latency_seconds": ("Gap between tokens of a choice.", _TOKEN_GAP),
    "request_time_per_output_token_seconds": ("Mean gap, one a choice.", _TOKEN_GAP),
    "e2e_request_latency_seconds": ("Arrival to last token.", _REQUEST),
    "request_queue_time_seconds": ("Arrival to first step.", _REQUEST),
    "request_prefill_time_seconds": ("First step to first token.", _REQUEST),
    "request_decode_time_seconds": ("First to last token.", _REQUEST),
    "request_inference_time_seconds": ("First step to last token.", _REQUEST),
    "request_prompt_tokens": ("Prompt tokens a prompt.", _TOKENS),
    "request_generation_tokens": ("Generated tokens a choice.", _TOKENS),
    "request_params_n": ("Choices asked for.", _CHOICES),
    "request_params_max_tokens": ("Completion limit asked for.", _TOKENS),
}


class Histogram:
    """Counts by upper bound, and the sum."""

    def __init__(self, bounds: tuple[float, ...]) -> None:
        self._bounds = bounds
        self._counts = [0] * (len(bounds) + 1)
        self._sum = 0.0

    def observe(self, value: float) -> None:
        """Count one value."""
        self._counts[bisect_left(self._bounds, value)] += 1
        self._sum += value

    def buckets(self) -> tuple[list[tuple[str, float]], float]:
        """Cumulative (bound, count) pairs ending with ``+Inf``, and the sum."""
        names = [*map(str, self._bounds), "+Inf"]
        return list(zip(names, map(float, accumulate(self._counts)), strict=True)), self._sum


class Meters:
    """The server's own counts since start. Token counts equal the sums of all `usage`."""

    def __init__(self, model_name: str) -> None:
        self.model_name = model_name
        self.prompt_tokens = 0
        self.cached_tokens = 0
        self.generation_tokens = 0
        self.finished: Counter[str] = Counter(dict.fromkeys(FINISH_REASONS, 0))
        self.rejections: Counter[str] = Counter(dict.fromkeys(REJECTIONS, 0))
        self.histograms = {name: Histogram(bounds) for name, (_, bounds) in _HISTOGRAMS.items()}

    def observe(self, name: str, value: float) -> None:
        """Add a value to the histogram `name` (without prefix)."""
        self.histograms[name].observe(value)


def render(meters: Meters, stats: EngineStats) -> bytes:
    """The text exposition format of both."""
    return generate_latest(_Page(meters, stats))


def _results(stats: EngineStats) -> dict[str, int]:
    grammars = stats.grammars
    return {
        "compiled": grammars.compiled,
        "cached": grammars.cached,
        "refused": grammars.refused,
    }


class _Page(Collector):
    """One scrape. Every sample carries the model's name and the engine's number."""

    def __init__(self, meters: Meters, stats: EngineStats) -> None:
        self._meters = meters
        self._stats = stats
        self._labels = {"model_name": meters.model_name, "engine": "0"}

    def collect(self) -> Iterable[Metric]:
        """All families, engine first."""
        yield from self._gauges()
        yield from self._counters()
        yield from self._labelled_counters()
        yield from self._steps_and_load()
        yield from self._histograms()

    def _gauges(self) -> Iterator[Metric]:
        stats = self._stats
        yield self._gauge("num_requests_running", "Sequences in the batch.", stats.num_running)
        yield self._gauge("num_requests_waiting", "Sequences queued.", stats.num_waiting)
        yield self._gauge("kv_cache_usage_perc", "Share of KV blocks in use.", stats.kv_usage)
        blocks = GaugeMetricFamily(
            "rtp:kv_blocks", "KV blocks in use.", labels=[*self._labels, "tier", "format"]
        )
        for key, count in stats.blocks.items():
            tier, _, format_name = key.partition("/")
            blocks.add_metric([*self._labels.values(), tier, format_name], count)
        yield blocks

    def _counters(self) -> Iterator[Metric]:
        meters, stats = self._meters, self._stats
        for name, text, value in (
            ("prompt_tokens", "Prompt tokens of requests begun.", meters.prompt_tokens),
            ("prompt_tokens_cached", "Of these, found in the cache.", meters.cached_tokens),
            ("generation_tokens", "Tokens generated.", meters.generation_tokens),
            ("num_preemptions", "Sequences preempted.", stats.preemptions),
            ("prefix_cache_queries", "Tokens looked up.", stats.prefix_queries),
            ("prefix_cache_hits", "Tokens found.", stats.prefix_hits),
            ("spec_decode_num_drafts", "Drafts verified.", stats.spec_drafts),
            ("spec_decode_num_draft_tokens", "Tokens drafted.", stats.spec_draft_tokens),
            ("spec_decode_num_accepted_tokens", "Accepted.", stats.spec_accepted_tokens),
            ("load_bytes", "Bytes of weights read.", stats.load_bytes),
            ("grammar_compile_seconds", "Compiling grammars.", stats.grammars.seconds),
            ("grammar_masks", "Masks of rows under a grammar.", stats.grammars.masks),
            ("grammar_mask_seconds", "Making them, in threads.", stats.grammars.mask_seconds),
            ("grammar_masks_late", "Not there when needed.", stats.grammars.late),
        ):
            yield self._counter(name, text, value)

    def _labelled_counters(self) -> Iterator[Metric]:
        meters, stats = self._meters, self._stats
        for name, label, counts in (
            ("request_success", "finished_reason", meters.finished),
            ("admission_rejections", "reason", meters.rejections),
            ("spec_decode_method_tokens", "method", stats.spec_method_tokens),
            ("plugin_errors", "plugin", stats.plugin_errors),
            ("grammars", "result", _results(stats)),
        ):
            family = CounterMetricFamily(
                f"rtp:{name}", f"By {label}.", labels=[*self._labels, label]
            )
            for key, count in counts.items():
                family.add_metric([*self._labels.values(), key], count)
            yield family

    def _steps_and_load(self) -> Iterator[Metric]:
        stats = self._stats
        steps = SummaryMetricFamily(
            "rtp:step_host_seconds", "Step time outside the model.", labels=list(self._labels)
        )
        steps.add_metric(list(self._labels.values()), stats.num_steps, stats.step_host_seconds)
        yield steps
        yield self._gauge("load_seconds", "Time to load the weights.", stats.load_seconds)

    def _histograms(self) -> Iterator[Metric]:
        for name, histogram in self._meters.histograms.items():
            family = HistogramMetricFamily(
                f"rtp:{name}", _HISTOGRAMS[name][0], labels=list(self._labels)
            )
            buckets, total = histogram.buckets()
            family.add_metric(list(self._labels.values()), buckets, total)
            yield family

    def _gauge(self, name: str, text: str, value: float) -> Metric:
        family = GaugeMetricFamily(f"rtp:{name}", text, labels=list(self._labels))
        family.add_metric(list(self._labels.values()), value)
        return family

    def _counter(self, name: str, text: str, value: float) -> Metric:
        family = CounterMetricFamily(f"rtp:{name}", text, labels=list(self._labels))
        family.add_metric(list(self._labels.values()), value)
        return family
