"""The commands as a user calls them, in processes of their own."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest


def rtp(*arguments, cwd=None, stdin="") -> subprocess.CompletedProcess:
    return subprocess.run(
        [sys.executable, "-m", "rtp_core", *map(str, arguments)],
        capture_output=True,
        text=True,
        input=stdin,
        timeout=120,
        check=False,
        cwd=cwd,
    )


def test_help_and_version_load_nothing_heavy():
    probe = (
        "import sys, time\nfrom rtp_core.cli.main import main\n"
        "try: main(sys.argv[1:])\nexcept SystemExit: pass\n"
        "heavy = {'torch', 'transformers', 'fastapi', 'zmq', 'numpy'} & set(sys.modules)\n"
        "sys.stderr.write(f'{sorted(heavy)} {time.process_time():.3f}')"
    )
    for arguments in (["--help"], ["--version"], ["serve", "--help"], ["plugins"]):
        done = subprocess.run(
            [sys.executable, "-c", probe, *arguments], capture_output=True, text=True, check=True
        )
        heavy, seconds = done.stderr.rsplit(" ", 1)
        assert heavy.endswith("[]"), arguments
        assert float(seconds) < 0.5, arguments


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["srve"], ["serve"]),
        ([], ["required"]),
        (["explain", "--no-such-flag"], ["unrecognized"]),
        (["bench"], ["latency"]),
        (["model"], ["action"]),
    ],
)
def test_wrong_usage_ends_with_status_2_and_a_hint(arguments, words):
    done = rtp(*arguments)
    assert done.returncode == 2
    assert all(word in done.stderr for word in words), done.stderr


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["--set", "kv.block_sise=16"], ["kv.block_sise", "block_size"]),
        (["--set", "scheduling.policy=fcsf"], ["scheduling.policy", "fcfs"]),
        (["--max-model-len", "100000"], ["model.max_model_len", "512"]),
        (["--max-num-seqs", "0"], ["scheduling.max_num_seqs", "1"]),
        (["--dtype", "int3"], ["dtype", "float32"]),
        (["--trust-remote-code"], ["trust-remote-code"]),
        (["--config", "missing.toml"], ["missing.toml"]),
    ],
)
def test_a_wrong_setting_names_the_field_and_the_remedy(tiny_model, flags, words, tmp_path):
    done = rtp("explain", tiny_model, *flags, cwd=tmp_path)
    assert done.returncode in (1, 2)
    assert all(word in done.stderr for word in words), done.stderr
    assert "Traceback" not in done.stderr


def test_explain_says_what_is_on_and_why(tiny_model):
    text = rtp("explain", tiny_model, "--set", "speculation.methods=ngram").stdout
    assert "LlamaForCausalLM" in text
    report = json.loads(rtp("explain", tiny_model, "--json").stdout)
    by_role = {one["role"]: one for one in report["features"] if one["on"]}
    assert by_role["kv_store"]["offer"] == "dense"
    assert all(one["reason"] for one in report["features"])
    assert report["memory"]["kv_bytes"] > 0


def test_plugins_lists_the_built_in_offers():
    rows = json.loads(rtp("plugins", "--json").stdout)
    provided = {offer for row in rows for offer in row["provides"]}
    assert {"loader:file_order", "scheduler:fcfs", "speculator:ngram", "kv_store:dense"} <= provided


def test_doctor_finds_this_machine_ready():
    done = rtp("doctor")
    assert done.returncode == 0, done.stdout
    assert "FAIL" not in done.stdout


def test_run_answers_on_standard_output_only(tiny_model):
    done = rtp("run", tiny_model, "hello", "--max-tokens", "5", "--temperature", "0")
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip()
    assert "Traceback" not in done.stderr


def test_run_without_a_prompt_chats_until_an_empty_line(tiny_model):
    done = rtp("run", tiny_model, "--max-tokens", "4", stdin="one\ntwo\n\n")
    assert done.returncode == 0, done.stderr
    assert done.stderr.count("> ") == 3


def test_run_with_a_missing_model_names_it():
    done = rtp("run", "/nowhere/at/all", "hello")
    assert done.returncode == 1
    assert "/nowhere/at/all" in done.stderr
