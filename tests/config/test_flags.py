"""Flags have vLLM's names and do what they say, or are refused with the reason."""

from __future__ import annotations

import argparse
import json
import subprocess
import sys

import pytest

from rtp_core.config.flags import add_engine_flags, config_from_args
from rtp_core.config.read import load_config
from rtp_core.errors import ConfigError

FLAGS = [
    "--max-model-len",
    "--max-num-seqs",
    "--max-num-batched-tokens",
    "--gpu-memory-utilization",
    "--tensor-parallel-size",
    "--kv-cache-dtype",
    "--dtype",
    "--seed",
    "--served-model-name",
    "--api-key",
    "--host",
    "--port",
    "--enable-prefix-caching",
    "--no-enable-prefix-caching",
    "--block-size",
    "--enforce-eager",
    "--load-format",
    "--chat-template",
    "--quantization",
    "--cpu-weights",
    "--verbose",
    "--trust-remote-code",
    "--tokenizer",
    "--scheduling-policy",
    "--disable-ui",
    "--config",
    "--set",
]


@pytest.fixture(autouse=True)
def empty_directory(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def parser():
    made = argparse.ArgumentParser(prog="rtp")
    add_engine_flags(made)
    return made


def read(*argv):
    return config_from_args(parser().parse_args(argv))


def refused(*argv):
    with pytest.raises(ConfigError) as caught:
        read(*argv)
    return str(caught.value)


def test_every_promised_flag_is_there_with_help():
    actions = {name: action for action in parser()._actions for name in action.option_strings}
    assert set(FLAGS) <= set(actions)
    assert [name for name, action in actions.items() if not action.help] == []
    parser().format_help()


def test_no_flag_is_the_default_configuration():
    assert read() == load_config(environ={})


def test_flags_reach_their_settings():
    config = read(
        "some/model", "--dtype", "float32", "--max-model-len", "512", "--max-num-seqs", "8",
        "--max-num-batched-tokens", "256", "--block-size", "32", "--port", "0", "--host", "::",
        "--scheduling-policy", "priority", "--tokenizer", "t", "--chat-template", "c.jinja",
        "--no-enable-prefix-caching", "--verbose", "--disable-ui",
        "--served-model-name", "a", "b", "--api-key", "k1", "--api-key", "k2",
        "--gpu-memory-utilization", "0.25",
    )  # fmt: skip
    model, server = config.model, config.server
    assert (model.path, model.dtype, model.max_model_len) == ("some/model", "float32", 512)
    assert (model.tokenizer, model.chat_template) == ("t", "c.jinja")
    assert model.served_name == ("a", "b")
    assert (server.host, server.port, server.verbose, server.ui) == ("::", 0, True, False)
    assert server.api_keys == ("k1", "k2")
    assert (config.scheduling.policy, config.scheduling.max_num_seqs) == ("priority", 8)
    assert config.scheduling.max_num_batched_tokens == 256
    assert (config.kv.block_size, config.kv.memory) == (32, 0.25)
    assert config.kv.prefix_caching is False


def test_flags_that_say_what_is_true_anyway_are_accepted():
    config = read(
        "--device", "auto", "--tensor-parallel-size", "1", "--kv-cache-dtype", "auto",
        "--quantization", "auto", "--load-format", "auto", "--cpu-weights", "auto",
        "--seed", "0", "--enable-prefix-caching", "--no-verbose",
    )  # fmt: skip
    assert config == load_config(environ={})


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["--trust-remote-code"], "--trust-remote-code: is refused: code from a model directory"),
        (["--kv-cache-dtype", "fp8"], "--kv-cache-dtype: 'fp8' is not available"),
        (["--kv-cache-dtype", "fp8"], "pip install rtp-kvquant and --set kv.store=adaptive"),
        (["--tensor-parallel-size", "2"], "--tensor-parallel-size: '2' is not available"),
        (["--quantization", "hqq"], "model.quantization: 'hqq' is not allowed, given by --quan"),
        (["--cpu-weights", "int2"], "model.cpu_weights: 'int2' is not allowed, given by --cpu-w"),
        (["--seed", "7"], "model.seed: 7 is not allowed, given by --seed (set seed in the request"),
        (["--dtype", "float16"], "(did you mean 'bfloat16'? use auto or float32 or bfloat16)"),
        (["--port", "x"], "server.port: 'x' is not allowed, given by --port (give an integer"),
        (["--max-num-seqs", "0"], "scheduling.max_num_seqs: 0 is not allowed, given by --max"),
        (["--gpu-memory-utilization", "0"], "'0' is no share of memory"),
        (["--gpu-memory-utilization", "90"], "'90' is no share of memory"),
        (["--gpu-memory-utilization", "all"], "for bytes use --set kv.memory=BYTES"),
        (["--load-format", "pt"], "--load-format: 'pt' is not read (use auto or safetensors or"),
        (["x.gguf", "--load-format", "safetensors"], "does not agree with 'x.gguf'"),
        (["demo", "--load-format", "safetensors"], "does not agree with 'demo'"),
        (["some/dir", "--load-format", "gguf"], "which is read as safetensors"),
        (["a", "--model", "b"], "--model: names 'b', but the argument MODEL names 'a'"),
        (["--set", "kv.store"], "--set: 'kv.store' sets nothing (write --set section.key=value)"),
        (["--set", "store=x"], "--set: 'store=x' sets nothing"),
        (["--set", "kv.stor=x"], "kv.stor: is no setting, given by --set kv.stor (did you mean"),
        (["--api-key", ""], "server.api_keys: "),
        (["--config", "none.toml"], "none.toml: cannot be read"),
    ],
)
def test_what_cannot_work_is_refused_with_the_reason(argv, message):
    assert message in refused(*argv)


def test_formats_that_agree_with_the_model_are_accepted():
    assert read("x.gguf", "--load-format", "gguf").model.path == "x.gguf"
    assert read("demo", "--load-format", "gguf").model.path == "demo"
    assert read("some/dir", "--load-format", "safetensors").model.path == "some/dir"


def test_flags_are_not_guessed_from_their_beginning(capsys):
    with pytest.raises(SystemExit):
        parser().parse_args(["--max-model", "5"])
    assert "--max-model" in capsys.readouterr().err


def test_set_reaches_any_key_with_lists_by_comma():
    config = read(
        "--set", "speculation.methods=eagle,ngram", "--set", "kv.watermark=0.2",
        "--set", "plugins.core.speculation.ngram_max=3", "--set", "plugins.spec_eagle.url=a=b",
    )  # fmt: skip
    assert config.speculation.methods == ("eagle", "ngram")
    assert config.kv.watermark == 0.2
    assert config.plugins == {"core.speculation": {"ngram_max": "3"}, "spec_eagle": {"url": "a=b"}}
    assert read("--set", "speculation.methods=ngram").speculation.methods == ("ngram",)


def test_flags_win_over_environment_over_file(empty_directory, monkeypatch):
    (empty_directory / "my.toml").write_text("[server]\nport = 1\nhost = 'f'\nkeep_alive_s = 9\n")
    monkeypatch.setenv("RTP_SERVER__PORT", "2")
    monkeypatch.setenv("RTP_SERVER__HOST", "e")
    server = read("--config", "my.toml", "--port", "3").server
    assert (server.port, server.host, server.keep_alive_s) == (3, "e", 9.0)


def test_rtp_toml_is_read_from_the_working_directory_unless_a_file_is_named(empty_directory):
    (empty_directory / "rtp.toml").write_text("[server]\nport = 1\nhost = 'f'\n")
    (empty_directory / "my.toml").write_text("[server]\nport = 2\n")
    assert read().server.port == 1
    named = read("--config", "my.toml").server
    assert (named.port, named.host) == (2, "127.0.0.1")
    assert load_config(environ={}).server.port == 8000


def test_the_printed_configuration_reads_back_the_same(empty_directory, capsys):
    argv = [
        "m'o\"d\\el\tü\x7f", "--served-model-name", "a", "b", "--api-key", "k\n#",
        "--set", "kv.memory=1e12", "--set", "speculation.methods=x,y", "--disable-ui",
        "--set", "plugins.spec_eagle.layers=1,2", "--set", "plugins.core.speculation.ngram_max=3",
        "--set", "plugins.spec_eagle.odd key=v",
    ]  # fmt: skip
    with pytest.raises(SystemExit) as ended:
        read(*argv, "--print-config")
    assert ended.value.code == 0
    printed = empty_directory / "printed.toml"
    printed.write_text(capsys.readouterr().out, encoding="utf-8")
    assert read("--config", str(printed)) == read(*argv)


def test_tables_lists_and_dates_of_plugins_print_and_read_back(empty_directory, capsys):
    (empty_directory / "rtp.toml").write_text(
        "[plugins.x]\nt = {a = 1, 'b c' = [true, 1.5]}\nd = 2024-01-01T00:00:00Z\n"
    )
    with pytest.raises(SystemExit):
        read("--print-config")
    printed = empty_directory / "printed.toml"
    printed.write_text(capsys.readouterr().out)
    assert read("--config", str(printed)) == read()


def test_importing_the_flags_is_light():
    probe = (
        "import json, sys, time\nbegan = time.process_time()\nimport rtp_core.config.flags\n"
        "heavy = sorted({'torch', 'pluggy', 'tomllib', 'numpy', 'msgspec'} & set(sys.modules))\n"
        "print(json.dumps([heavy, time.process_time() - began]))"
    )
    runs = [
        json.loads(
            subprocess.run(
                [sys.executable, "-c", probe], capture_output=True, check=True, timeout=60
            ).stdout
        )
        for _ in range(3)
    ]
    assert runs[0][0] == []
    assert min(seconds for _, seconds in runs) < 0.1
