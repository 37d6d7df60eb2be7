from __future__ import annotations

import pytest
from prometheus_client.parser import text_string_to_metric_families

from rtp_core.observe.metrics import Histogram, Meters, render
from rtp_core.observe.snapshot import EngineStats, GrammarStats


def samples(meters, stats):
    return {
        (sample.name, *sorted(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(render(meters, stats).decode())
        for sample in family.samples
    }


def labels(**more):
    return tuple(sorted({"engine": "0", "model_name": "m", **more}.items()))


def test_a_value_on_a_bound_counts_below_it():
    histogram = Histogram((1.0, 2.0))
    for value in (0.5, 1.0, 1.5, 9.0):
        histogram.observe(value)
    assert histogram.buckets() == ([("1.0", 2.0), ("2.0", 3.0), ("+Inf", 4.0)], 12.0)


def test_engine_and_server_counts_are_shown_with_the_models_name():
    meters = Meters("m")
    meters.prompt_tokens = 7
    meters.observe("time_to_first_token_seconds", 0.03)
    stats = EngineStats(
        num_running=2,
        preemptions=3,
        num_steps=4,
        step_host_seconds=0.5,
        blocks={"device/dense": 9},
        spec_method_tokens={"ngram": 5},
        grammars=GrammarStats(compiled=2, refused=1, masks=8, mask_seconds=0.25, late=1),
    )
    found = samples(meters, stats)
    assert found["rtp:num_requests_running", *labels()] == 2
    assert found["rtp:num_preemptions_total", *labels()] == 3
    assert found["rtp:prompt_tokens_total", *labels()] == 7
    assert found["rtp:step_host_seconds_count", *labels()] == 4
    assert found["rtp:step_host_seconds_sum", *labels()] == 0.5
    assert found["rtp:kv_blocks", *labels(tier="device", format="dense")] == 9
    assert found["rtp:spec_decode_method_tokens_total", *labels(method="ngram")] == 5
    assert found["rtp:grammars_total", *labels(result="compiled")] == 2
    assert found["rtp:grammars_total", *labels(result="refused")] == 1
    assert found["rtp:grammar_masks_total", *labels()] == 8
    assert found["rtp:grammar_mask_seconds_total", *labels()] == 0.25
    assert found["rtp:time_to_first_token_seconds_bucket", *labels(le="0.02")] == 0
    assert found["rtp:time_to_first_token_seconds_bucket", *labels(le="0.04")] == 1


def test_every_series_of_the_server_exists_from_the_start():
    before = samples(Meters("m"), EngineStats())
    meters = Meters("m")
    for reason in ("stop", "length", "abort", "error"):
        meters.finished[reason] += 1
    for name in meters.histograms:
        meters.observe(name, 1.0)
    assert before.keys() == samples(meters, EngineStats()).keys()


def test_an_unknown_histogram_is_a_mistake():
    with pytest.raises(KeyError):
        Meters("m").observe("no_such_name", 1.0)
