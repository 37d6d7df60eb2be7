"""vLLM's keys mean what vLLM means, and its flags are taken."""

from __future__ import annotations

import statistics

import pytest

from rtp_core.bench.client import Record
from rtp_core.bench.report import Report, Subject
from rtp_core.bench.service_level import serve_results
from rtp_core.bench.traffic import Traffic
from rtp_core.bench.vllm_keys import Keys, file_name, most_at_once, vllm_keys
from rtp_core.bench.vllm_names import is_reserved
from rtp_core.cli.bench_serve import parse_serve
from rtp_core.errors import ConfigError

RESULT_KEYS = [
    "date", "backend", "endpoint_type", "model_id", "num_prompts", "request_rate", "burstiness",
    "max_concurrency", "duration", "completed", "total_input_tokens", "total_output_tokens",
    "request_throughput", "request_goodput", "output_throughput", "total_token_throughput",
]  # fmt: skip


def request(at, first, gaps, *, error=None):
    pieces = [at + first]
    for gap in gaps:
        pieces.append(pieces[-1] + gap)
    record = Record(at, len(pieces), at, pieces, pieces[-1] + 0.5, prompt_tokens=10)
    record.output_tokens, record.error, record.done = len(pieces), error, error is None
    return record


RECORDS = [
    request(1.0, 0.1, [0.02, 0.04]),
    request(1.1, 0.3, [0.01, 0.03]),
    request(1.2, 0.2, []),
    request(1.3, 0.2, [], error="http 503"),
]
TRAFFIC = Traffic(RECORDS, 1.0, 3.0)


def found_of(keys=None, *, traffic=TRAFFIC, model="org/tiny", **params):
    known = {
        "endpoint": "completions", "num_prompts": 4, "request_rate": "inf", "burstiness": 1.0,
        "max_concurrency": None, "goodput_ms": {},
    }  # fmt: skip
    report = Report("serve", Subject(model, "cpu"), known | params)
    report.results = serve_results(traffic, {})
    return vllm_keys(report, traffic, keys or Keys())


def test_all_keys_are_there_in_milliseconds():
    found = found_of()
    assert set(RESULT_KEYS) <= set(found)
    for metric in ("ttft", "tpot", "itl", "e2el"):
        for figure in ("mean", "median", "std", "p50", "p90", "p95", "p99"):
            assert found[f"{figure}_{metric}_ms"] is not None
    assert found["mean_ttft_ms"] == pytest.approx(200)
    assert found["median_ttft_ms"] == pytest.approx(200)
    assert found["std_ttft_ms"] == pytest.approx(1e3 * statistics.pstdev([0.1, 0.3, 0.2]))
    assert found["mean_tpot_ms"] == pytest.approx((30 + 20) / 2)
    assert found["mean_itl_ms"] == pytest.approx(25)
    assert found["mean_e2el_ms"] == pytest.approx((160 + 340 + 200) / 3)


def test_counts_and_rates():
    found = found_of()
    assert (found["completed"], found["failed"]) == (3, 1)
    assert found["total_input_tokens"] == 30
    assert found["total_output_tokens"] == 7
    assert found["request_throughput"] == 1.5
    assert found["output_throughput"] == 3.5
    assert found["total_token_throughput"] == 18.5
    assert found["request_goodput"] is None
    assert found_of(goodput_ms={"ttft": 200})["request_goodput"] == 1.5
    assert found_of(endpoint="chat")["backend"] == "openai-chat"


def test_metrics_and_percentiles_are_those_asked_for():
    found = found_of(Keys(("itl",), (25.0, 99.9)))
    figures = [key for key in found if key.endswith("_ms")]
    assert figures == ["mean_itl_ms", "median_itl_ms", "std_itl_ms", "p25_itl_ms", "p99.9_itl_ms"]


def test_each_request_is_told_when_asked_for():
    assert "ttfts" not in found_of()
    found = found_of(Keys(detailed=True))
    assert found["ttfts"] == pytest.approx([0.1, 0.3, 0.2, 0.2])
    assert [len(one) for one in found["itls"]] == [2, 2, 0, 0]
    assert found["output_lens"] == [3, 3, 1, 1]
    assert found["errors"] == ["", "", "", "http 503"]


def test_nothing_measured_is_none():
    found = found_of(traffic=Traffic())
    assert found["mean_ttft_ms"] is None
    assert found["p99_e2el_ms"] is None
    assert found["request_throughput"] is None


def test_most_at_once():
    assert most_at_once(RECORDS) == 4
    assert most_at_once([request(0.1, 0.1, []), request(5.0, 0.1, [])]) == 1
    touching = [Record(1.0, 1, 1.0, [], 2.0), Record(2.0, 1, 2.0, [], 3.0)]
    assert most_at_once(touching) == 1
    assert most_at_once([Record(1.0, 1)]) == 0


@pytest.mark.parametrize(
    "model", ["../../etc/passwd", "a/b/../..", "..", "x\x00y", "é" * 500, "/", "<b>", ".hidden"]
)
def test_a_file_is_named_by_a_model_and_stays_in_its_folder(model):
    name = file_name(found_of(model=model))
    assert "/" not in name
    assert ".." not in name
    assert name.isascii()
    assert name.isprintable()
    assert len(name) < 140
    assert name.startswith("openai-infqps-")


def test_the_files_name_tells_concurrency():
    assert "-concurrency8-tiny-" in file_name(found_of(max_concurrency=8))


def test_metadata_is_kept_and_own_keys_are_reserved():
    found = found_of(Keys(metadata={"version_of_x": "7"}, detailed=True))
    assert found["version_of_x"] == "7"
    keys = {*found, *Report("serve", Subject("m", "cpu"), {}).as_json()} - {"version_of_x"}
    assert [key for key in keys if not is_reserved(key)] == []


FACTS = [
    "--backend", "openai-chat", "--base-url", "http://h:1", "--endpoint", "/v1/chat/completions",
    "--model", "ID", "--tokenizer", "DIR", "--dataset-name", "random",
    "--random-input-len", "1024", "--random-output-len", "32", "--num-prompts", "200",
    "--request-rate", "4", "--ignore-eos", "--percentile-metrics", "ttft,tpot,itl,e2el",
    "--goodput", "ttft:500", "tpot:50", "e2el:3000", "--save-result", "--seed", "7",
    "--burstiness", "0.5", "--max-concurrency", "16", "--metric-percentiles", "50,99",
    "--num-warmups", "3",
]  # fmt: skip


@pytest.fixture(autouse=True)
def empty_directory(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def test_the_command_of_vllm_is_taken_as_it_is():
    arguments, _, load = parse_serve(FACTS)
    assert (load.endpoint, load.rate, load.num_prompts, load.burstiness) == ("chat", 4.0, 200, 0.5)
    assert (load.lengths.input_len, load.lengths.output_len) == (1024, 32)
    assert load.seed == 7
    assert load.keys.percentiles == (50.0, 99.0)
    assert load.sampling == {"temperature": 0.0, "ignore_eos": True}
    assert (arguments.url, arguments.max_concurrency, arguments.warmup) == ("http://h:1", 16, 3)
    assert arguments.save_result


@pytest.mark.parametrize(
    ("argv", "url"),
    [
        (["--port", "9000"], "http://127.0.0.1:9000"),
        (["--host", "h"], "http://h:8000"),
        (["--host", "::1", "--port", "1"], "http://[::1]:1"),
        ([], None),
    ],
)
def test_host_and_port_name_a_server_that_runs(argv, url):
    arguments, config, _ = parse_serve(argv)
    assert arguments.url == url
    assert (config.server.host, config.server.port) == ("127.0.0.1", 8000)


def test_sampling_goes_into_each_request():
    _, _, load = parse_serve(
        ["--no-ignore-eos", "--temperature", "0.7", "--extra-body", '{"top_p": 0.9}']
    )
    assert load.sampling == {"temperature": 0.7, "top_p": 0.9}


@pytest.mark.parametrize(
    ("argv", "words"),
    [
        (["--backend", "openai-chat", "--endpoint", "completions"], "does not agree"),
        (["--url", "http://h", "--port", "1"], "name it once"),
        (["--dataset-name", "custom"], "--dataset-path"),
        (["--dataset-name", "random", "--dataset", "x"], "leave out"),
        (["--metadata", "novalue"], "KEY=VALUE"),
        (["--metadata", "results=1"], "is a key of the results"),
        (["--metadata", "p77_ttft_ms=1"], "is a key of the results"),
        (["--seed", "-1"], "--seed"),
        (["--seed", "x"], "--seed"),
    ],
)
def test_what_does_not_agree_is_refused(argv, words):
    with pytest.raises(ConfigError, match=words):
        parse_serve(argv)


@pytest.mark.parametrize(
    ("argv", "words"),
    [
        (["--dataset-name", "sharegpt"], "custom"),
        (["--endpoint", "/v1/embeddings"], "/v1/chat/completions"),
        (["--percentile-metrics", "ttft,speed"], "e2el"),
        (["--metric-percentiles", "0"], "above 0"),
        (["--metric-percentiles", "101"], "at most 100"),
        (["--metric-percentiles", "x"], "50,99"),
        (["--burstiness", "0"], "above 0"),
        (["--random-range-ratio", "1"], "below 1"),
        (["--random-range-ratio", "nan"], "below 1"),
        (["--extra-body", "[1]"], "no JSON object"),
        (["--extra-body", '{"stream": false}'], "'stream' is set by the measurement"),
        (["--burstines", "1"], "did you mean '--burstiness'"),
    ],
)
def test_a_bad_value_is_refused_by_its_flag(argv, words, capsys):
    with pytest.raises(SystemExit) as ended:
        parse_serve(argv)
    assert ended.value.code == 2
    told = capsys.readouterr().err
    assert words in told
    assert argv[0] in told
