"""`rtp bench` as a user calls it: every JSON by its schema, refusals, Ctrl-C, dying servers."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from rtp_core.bench.loading import Start, load_results
from rtp_core.bench.offline import Load, check_fits
from rtp_core.bench.summary import spread
from rtp_core.bench.vllm_names import is_reserved
from rtp_core.cli.main import main
from rtp_core.config.read import load_config
from rtp_core.errors import ConfigError

STUB = Path(__file__).with_name("streaming_server.py")
SPREAD = {"median", "p5", "p95", "n"}
PERCENTILES = {"mean", "p50", "p90", "p95", "p99", "n"}
HEAD = {
    "schema", "command", "version", "device", "torch", "model", "params", "results",
    "interrupted", "machine", "load_average", "began",
}  # fmt: skip
SERVE = {
    "ttft_s": PERCENTILES, "tpot_s": PERCENTILES, "itl_s": PERCENTILES, "e2e_s": PERCENTILES,
    "send_delay_s": PERCENTILES, "requests_per_s": float, "goodput_requests_per_s": float,
    "output_tokens_per_s": float, "total_tokens_per_s": float, "completed": int, "errors": int,
    "error_kinds": dict, "unfinished": int, "input_tokens": int, "output_tokens": int,
    "cached_tokens": int, "short_answers": int, "seconds": float, "client_cpu_share": float,
}  # fmt: skip
SCHEMAS = {
    "latency": {
        "ttft_s": SPREAD, "decode_step_s": SPREAD, "decode_tokens_per_s": SPREAD,
        "prefill_tokens_per_s": SPREAD, "host_overhead_s_per_step": SPREAD,
    },
    "throughput": {
        "requests_per_s": SPREAD, "output_tokens_per_s": SPREAD, "total_tokens_per_s": SPREAD,
    },
    "serve": {**SERVE, "offered_requests_per_s": float | None},
    "trace": {
        **SERVE, "prefix_cache_hit_rate": float, "prefix_cache_ideal_hit_rate": float,
        "too_long_left_out": int,
    },
    "load": {
        "bytes": int, "seconds": SPREAD, "bytes_per_s": SPREAD, "limit_bytes_per_s": float,
        "fraction_of_limit": float, "ready_s": SPREAD,
        "phases": dict, "phases_beside": dict,
    },
}  # fmt: skip


def start(*arguments, **more) -> subprocess.Popen:
    return subprocess.Popen(
        [sys.executable, "-m", "rtp_core", "bench", *map(str, arguments)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        **more,
    )


def bench(*arguments) -> subprocess.CompletedProcess:
    process = start(*arguments)
    out, err = process.communicate(timeout=120)
    return subprocess.CompletedProcess(process.args, process.returncode, out, err)


def measured(tmp_path, *arguments, status=0):
    """The JSON of a run, checked against its schema."""
    file = tmp_path / "results" / "one.json"
    done = bench(*arguments, "--json", file)
    assert done.returncode == status, done.stderr
    report = json.loads(file.read_text())
    check_schema(report, arguments[0])
    assert report["model"] in done.stdout
    return report, done


def check_schema(report, kind):
    more = {key for key in report if is_reserved(key)} if kind == "serve" else set()
    assert set(report) == HEAD | more
    assert len(more) > 40 or kind != "serve"
    assert report["schema"] == 1
    assert report["command"] == kind
    assert set(report["load_average"]) == {"before", "after"}
    assert report["machine"]["cores"] >= 1
    results = dict(report["results"])
    results.pop("against", None)
    assert set(results) == set(SCHEMAS[kind])
    for name, wanted in SCHEMAS[kind].items():
        if isinstance(wanted, set):
            assert set(results[name]) == wanted, name
        else:
            assert isinstance(results[name], wanted), name


def test_latency(tiny_model, tmp_path):
    report, done = measured(
        tmp_path, "latency", tiny_model, "--input-len", 20, "--output-len", 6,
        "--batch-size", 3, "--repeats", 2, "--warmup", 1,
    )  # fmt: skip
    results = report["results"]
    assert results["ttft_s"]["n"] == 2
    assert results["decode_step_s"]["n"] == 2 * 5
    assert results["host_overhead_s_per_step"]["median"] < results["decode_step_s"]["median"]
    rate = results["decode_tokens_per_s"]["median"] * results["decode_step_s"]["median"]
    assert rate == pytest.approx(3, rel=0.01)
    assert "decode_step [ms]" in done.stdout
    assert not done.stdout.lstrip().startswith("{")


def test_latency_against_transformers_in_turn(tiny_model, tmp_path):
    report, done = measured(
        tmp_path, "latency", tiny_model, "--input-len", 8, "--output-len", 4, "--dtype", "float32",
        "--repeats", 1, "--against", "transformers", "--against", "llama-cpp-python",
    )  # fmt: skip
    rivals = report["results"]["against"]
    assert rivals["transformers"]["dtype"] == "float32"
    assert rivals["transformers"]["decode_step_ratio"]["min"] > 0
    assert rivals["transformers"]["decode_step_s"]["n"] == 3
    assert "skipped" in rivals["llama-cpp-python"]  # it is not installed, or reads no directory
    assert "skipped: " in done.stderr
    assert "skipped" in done.stdout


def test_throughput(tiny_model, tmp_path):
    report, _ = measured(
        tmp_path, "throughput", tiny_model, "--input-len", 20, "--output-len", 6,
        "--num-prompts", 5, "--repeats", 1,
    )  # fmt: skip
    rates = {name: one["median"] for name, one in report["results"].items()}
    assert rates["output_tokens_per_s"] == pytest.approx(6 * rates["requests_per_s"])
    assert rates["total_tokens_per_s"] == pytest.approx(26 * rates["requests_per_s"])


def test_throughput_of_a_dataset(tiny_model, tmp_path):
    file = tmp_path / "own.jsonl"
    file.write_text('{"prompt": "hello", "output_len": 4}\n{"prompt": [1, 2, 3, 4]}\n')
    report, _ = measured(
        tmp_path, "throughput", tiny_model, "--dataset", file, "--num-prompts", 2,
        "--output-len", 6, "--repeats", 1, "--warmup", 0,
    )  # fmt: skip
    rates = {name: one["median"] for name, one in report["results"].items()}
    assert rates["output_tokens_per_s"] == pytest.approx(5 * rates["requests_per_s"])
    assert rates["total_tokens_per_s"] == pytest.approx((10 + 5 + 4) / 2 * rates["requests_per_s"])


def test_serve_starts_its_own_server_and_ends_it(tiny_model, tmp_path):
    report, done = measured(
        tmp_path, "serve", tiny_model, "--input-len", 20, "--output-len", 5, "--num-prompts", 6,
        "--request-rate", 50, "--goodput", "ttft:60000", "tpot:60000",
    )  # fmt: skip
    results = report["results"]
    assert (results["completed"], results["errors"], results["short_answers"]) == (6, 0, 0)
    assert (results["input_tokens"], results["output_tokens"]) == (120, 30)
    assert results["goodput_requests_per_s"] == results["requests_per_s"] > 0
    assert results["cached_tokens"] == 0
    assert report["params"]["goodput_ms"] == {"ttft": 60000, "tpot": 60000}
    assert "ttft [ms]" in done.stdout


def test_serve_of_random_lengths_with_a_shared_prefix(tiny_model, tmp_path):
    report, _ = measured(
        tmp_path, "serve", tiny_model, "--random-input-len", 40, "--random-output-len", 8,
        "--random-range-ratio", 0.5, "--random-prefix-len", 64, "--num-prompts", 12,
        "--max-concurrency", 1, "--report", tmp_path / "page.html", "--burstiness", 0.5,
        "--request-rate", 100,
    )  # fmt: skip
    results = report["results"]
    assert (results["completed"], results["short_answers"]) == (12, 0)
    assert 12 * (64 + 20) < results["input_tokens"] < 12 * (64 + 60)
    assert 12 * 4 <= results["output_tokens"] <= 12 * 12
    assert results["cached_tokens"] >= 11 * 64
    assert report["mean_ttft_ms"] == pytest.approx(1e3 * results["ttft_s"]["mean"])
    assert report["p99_itl_ms"] == pytest.approx(1e3 * results["itl_s"]["p99"])
    assert report["request_throughput"] == results["requests_per_s"]
    assert "Time to first token" in (tmp_path / "page.html").read_text()


def test_serve_chat(tiny_model, tmp_path):
    report, _ = measured(
        tmp_path, "serve", tiny_model, "--endpoint", "chat", "--input-len", 100,
        "--output-len", 4, "--num-prompts", 3,
    )  # fmt: skip
    results = report["results"]
    assert results["output_tokens"] == 12
    assert results["input_tokens"] == pytest.approx(300, rel=0.1)


def trace_file(tmp_path):
    ids = [[1], [1, 2], [1, 2], [9]]
    lengths = [500, 1000, 1000, 100_000]
    lines = [
        json.dumps(
            {
                "timestamp": 100 * number,
                "input_length": length,
                "output_length": 200,
                "hash_ids": one if length < 2000 else list(range(100, 296)),
            }
        )
        for number, (one, length) in enumerate(zip(ids, lengths, strict=True))
    ]
    file = tmp_path / "trace.jsonl"
    file.write_text("\n".join(lines))
    return file


def test_trace_reports_hits_of_the_prefix_cache(tiny_model, tmp_path):
    report, _ = measured(
        tmp_path, "trace", trace_file(tmp_path), tiny_model, "--length-scale", 0.125,
        "--time-scale", 4, "--max-concurrency", 1,
    )  # fmt: skip
    results = report["results"]
    assert report["params"]["block_tokens"] == 64
    assert (results["completed"], results["too_long_left_out"]) == (3, 1)
    assert results["input_tokens"] == 62 + 125 + 125
    assert 0 < results["prefix_cache_hit_rate"] <= results["prefix_cache_ideal_hit_rate"] < 1


def test_load(tiny_model, tmp_path):
    report, _ = measured(tmp_path, "load", tiny_model, "--repeats", 1, "--cold")
    results = report["results"]
    assert results["bytes"] > 100_000
    assert results["ready_s"]["median"] > results["seconds"]["median"] > 0
    assert report["params"]["cache"] == "evicted"
    phases = results["phases"]
    assert next(iter(phases)) == "process_s"
    assert list(phases)[-1] == "first-request_s"
    whole = sum(one["median"] for one in phases.values())
    assert whole == pytest.approx(results["ready_s"]["median"])
    assert 0 < phases["first-request_s"]["median"] < whole / 2
    assert results["phases_beside"] == {}


def test_phases_beside_others_are_told_apart():
    line = [("imports", 3.0, None), ("compiling", 1.0, None), ("weights", 2.5, 3.5)]
    phases = [{"name": name, "seconds": s, "beside_from_s": at} for name, s, at in line]
    results = load_results([Start(10, 2.5, 5.0, phases), Start(10, 2.5, 6.0, phases[:2])], [4.0])
    assert list(results["phases"]) == ["imports_s", "compiling_s", "first-request_s"]
    assert results["phases"]["first-request_s"]["median"] == 1.5
    assert results["phases_beside"] == {"weights_s": spread([2.5])}


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ([], ["latency"]),
        (["speed"], ["latency", "serve"]),
        (["latency", "--input-len", "0"], ["--input-len", "tokens", "at least 1"]),
        (["latency", "--batch-size", "two"], ["--batch-size", "requests", "at least 1"]),
        (["latency", "--repeats", "-1"], ["--repeats", "at least 1"]),
        (["latency", "--threads", "0"], ["--threads", "at least 1"]),
        (["latency", "--against", "vllm"], ["--against", "transformers"]),
        (["serve", "--request-rate", "0"], ["--request-rate", "above 0", "inf"]),
        (["serve", "--request-rate", "nan"], ["--request-rate", "above 0"]),
        (["serve", "--timeout", "inf"], ["--timeout", "above 0"]),
        (["serve", "--goodput", "speed:5"], ["--goodput", "ttft", "MILLISECONDS"]),
        (["serve", "--url", "http://127.0.0.1:1", "--report", "/proc/x/y"], ["--report", "/proc"]),
        (["serve", "--url", "http://127.0.0.1:1", "--json", "/proc"], ["--json", "/proc"]),
        (["serve", "--port", "1"], ["127.0.0.1:1", "does not answer"]),
        (["serve", "--url", "h:80"], ["--url", "http://"]),
        (["serve", "--dataset", "/none.jsonl"], ["--dataset", "/none.jsonl"]),
        (["trace"], ["FILE"]),
        (["trace", "/none.jsonl"], ["TRACE", "/none.jsonl"]),
        (["trace", "t", "--time-scale", "0"], ["--time-scale", "above 0"]),
    ],
)
def test_a_bad_flag_is_refused_by_name_bound_and_remedy(arguments, words, capsys):
    try:
        status = main(["bench", *arguments])
    except SystemExit as ended:
        status = ended.code
    told = capsys.readouterr()
    assert status in (1, 2)
    assert all(word in told.err for word in words), told.err
    assert told.out == ""


@pytest.mark.parametrize(
    ("load", "memory", "words"),
    [
        (Load(500, 13, 1), 0.0, ["--input-len", "512"]),
        (Load(20, 5, 65), 0.0, ["--batch-size", "--max-num-seqs 65"]),
        (Load(200, 40, 60), 600_000.0, ["--batch-size", "KV blocks", "kv.memory"]),
    ],
)
def test_what_the_model_cannot_hold_is_refused(tiny_model, load, memory, words):
    config = load_config(overrides={"model": str(tiny_model), "kv": {"memory": memory}})
    with pytest.raises(ConfigError) as caught:
        check_fits(config, load, together=True)
    assert all(word in str(caught.value) for word in words), caught.value


def test_serve_refuses_what_the_model_cannot_hold_before_it_sends(tiny_model):
    done = bench("serve", tiny_model, "--input-len", 500, "--output-len", 13)
    assert done.returncode == 1
    assert "--input-len" in done.stderr
    assert "512" in done.stderr
    assert "Traceback" not in done.stderr


def test_ctrl_c_prints_what_was_measured(tiny_model, tmp_path):
    file = tmp_path / "cut.json"
    process = start(
        "latency", tiny_model, "--input-len", 8, "--output-len", 8, "--repeats", 10**6,
        "--json", file,
    )  # fmt: skip
    wait_for(process, "weights_loaded")
    time.sleep(2)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 130, err
    assert "INTERRUPTED" in out
    report = json.loads(file.read_text())
    check_schema(report, "latency")
    assert report["interrupted"]
    assert report["results"]["ttft_s"]["n"] > 0


def wait_for(process, word):
    for line in process.stderr:
        if word in line:
            return
    raise AssertionError(f"{word} never came")


@pytest.fixture
def stub():
    running = []

    def serve(*arguments, cards=None):
        command = [sys.executable, str(STUB), *map(str, arguments)]
        more = {} if cards is None else {"STUB_CARDS": json.dumps(cards)}
        running.append(
            subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=os.environ | more)
        )
        return f"http://127.0.0.1:{int(running[-1].stdout.readline())}"

    yield serve
    for process in running:
        process.kill()
        process.wait()


def test_ctrl_c_ends_serve_with_a_report(stub, tmp_path):
    file = tmp_path / "cut.json"
    process = start(
        "serve", "--url", stub(4), "--request-rate", 20, "--num-prompts", 10_000, "--json", file
    )
    wait_for(process, "requests to")
    time.sleep(1)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 130, err
    assert "INTERRUPTED" in out
    report = json.loads(file.read_text())
    assert report["interrupted"]
    assert 0 < report["results"]["completed"] < 10_000
    assert report["results"]["errors"] == 0


def test_a_server_without_tokenize_is_asked_in_words(stub, tmp_path):
    report, _ = measured(tmp_path, "serve", "--url", stub(4), "--num-prompts", 5)
    assert report["device"] == "remote"
    assert report["results"]["completed"] == 5
    assert report["results"]["short_answers"] == 5  # it always says four tokens


HOSTILE = "<script>alert(1)</script>\x1b[2J\u202e/../../x"


def test_what_a_server_calls_itself_is_only_text(stub, tmp_path):
    url = stub(4, cards={"data": [{"id": HOSTILE}]})
    page, folder = tmp_path / "deep" / "page.html", tmp_path / "results"
    done = bench(
        "serve", "--url", url, "--num-prompts", 5, "--report", page, "--save-result",
        "--result-dir", folder, "--metadata", "card=h100", "--save-detailed",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "\x1b" not in done.stdout + done.stderr
    assert "<script" not in page.read_text()
    assert "&lt;script&gt;" in page.read_text()
    (saved,) = folder.iterdir()
    found = json.loads(saved.read_text())
    assert found["model_id"] == found["model"] == HOSTILE
    assert (found["card"], len(found["ttfts"])) == ("h100", 5)
    assert found["results"]["completed"] == found["completed"] == 5


@pytest.mark.parametrize(
    "cards",
    [
        "words", 5, [], {}, {"data": None}, {"data": []}, {"data": [None]}, {"data": [{}]},
        {"data": [{"id": 5}]}, {"data": [{"id": "m", "max_model_len": "long"}]},
    ],
    ids=str,
)  # fmt: skip
def test_nonsense_about_models_is_an_error_in_words(stub, cards, capsys):
    url = stub(4, cards=cards)
    assert main(["bench", "serve", "--url", url, "--num-prompts", "1"]) == 1
    assert "no list of models" in capsys.readouterr().err


def test_a_running_server_is_asked_for_the_model_that_is_named(stub, capsys, tmp_path):
    url = stub(4, cards={"data": [{"id": "a"}, {"id": "b"}]})
    file = tmp_path / "one.json"
    known = ["bench", "serve", "--base-url", url, "--num-prompts", "1", "--json", str(file)]
    for flags, name in (([], "a"), (["--model", "b"], "b"), (["--served-model-name", "b"], "b")):
        assert main([*known, *flags]) == 0
        assert json.loads(file.read_text())["model"] == name
    capsys.readouterr()
    assert main([*known, "--model", "c"]) == 1
    assert "name one of: a, b" in capsys.readouterr().err


def test_a_server_that_dies_is_reported_and_the_status_is_not_zero(stub, tmp_path):
    report, done = measured(
        tmp_path, "serve", "--url", stub(4, 10), "--num-prompts", 50, "--max-concurrency", 2,
        status=1,
    )  # fmt: skip
    results = report["results"]
    assert results["completed"] + results["errors"] == 50
    assert 1 <= results["completed"] <= 10
    assert sum(results["error_kinds"].values()) == results["errors"]
    assert "errors" in done.stdout


def test_the_death_of_ones_own_server_ends_the_run(tiny_model, tmp_path):
    file = tmp_path / "dead.json"
    process = start(
        "serve", tiny_model, "--input-len", 8, "--output-len", 100, "--num-prompts", 5000,
        "--request-rate", 20, "--json", file,
    )  # fmt: skip
    server = child_of(process)
    wait_for(process, "requests to")
    time.sleep(1)
    os.killpg(server, signal.SIGKILL)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 1, err
    results = json.loads(file.read_text())["results"]
    assert results["completed"] + results["errors"] == 5000
    assert results["error_kinds"]["not sent, the server is gone"] > 4000
    assert "not sent" in out


def child_of(process):
    """The first process it starts that leads a session of its own: the server."""
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        for tasks in Path(f"/proc/{process.pid}/task").glob("*/children"):
            for pid in map(int, tasks.read_text().split()):
                if os.getsid(pid) == pid:
                    return pid
        time.sleep(0.05)
    raise AssertionError("no server was started")
