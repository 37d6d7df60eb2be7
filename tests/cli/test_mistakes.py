"""A wrong key or value is answered with the nearest name, what is allowed, and where it stands,
also where it is found out after the configuration was read, or in another process."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from rtp_core.cli import doctor
from rtp_core.cli.main import main
from rtp_core.cli.requirements import missing, run_time
from rtp_core.config.environment import stray_settings
from rtp_core.config.schema import EngineConfig


@pytest.fixture
def told(tiny_model, tmp_path, capsys, monkeypatch):
    """Output of `rtp explain` with this rtp.toml, and the file."""
    monkeypatch.chdir(tmp_path)
    file = tmp_path / "rtp.toml"

    def tell(text, *flags, status=1, model=True):
        file.write_text(text)
        found = main(["explain", *([str(tiny_model)] if model else []), *flags])
        out, err = capsys.readouterr()
        assert found == status, err
        return out if status == 0 else err

    return tell


@pytest.mark.parametrize(
    ("text", "words", "line"),
    [
        ("[kv]\nblock_sise = 1\n", "did you mean 'block_size'?", 2),
        ("[schedulin]\npolicy = 'fcfs'\n", "did you mean 'scheduling'?", 2),
        ("[kv]\n\nblock_size = 2000\n", "use 1 to 1024", 3),
        ("[model]\ndtype = 'bfloat'\n", "did you mean 'bfloat16'? use auto or float32", 2),
        ("[scheduling]\npolicy = 'fcsf'\n", "did you mean 'fcfs'?", 2),
        ("[speculation]\n\nmethods = ['ngrm']\n", "did you mean 'ngram'?", 3),
        ("[speculation]\nmethods = ['eagle3']\n", "installed: ", 2),
        ("[kv]\nstore = 'dens'\n", "did you mean 'dense'?", 2),
        ("[kv]\ntiers = ['hst']\n", "installed: none", 2),
        ("[loading]\nloader = 'mmp'\n", "did you mean 'mmap'?", 2),
        ("[model]\nattention = 'torh'\n", "did you mean 'torch'?", 2),
        ("[pd]\nrole = 'prefil'\n", "did you mean 'prefill'?", 2),
        ("[server]\ntool_call_parser = 'hermez'\n", "did you mean 'hermes'?", 2),
        ("[server]\nreasoning_parser = 'qwen'\n", "did you mean 'qwen3'?", 2),
        ("[model]\nmax_model_len = 5000\n", "use at most 512", 2),
        ("[model]\nquantization = 'awq'\n", "model.quantization", 2),
        ("[plugins.'core.speculation']\nngram_mx = 3\n[speculation]\nmethods = 'ngram'\n",
         "did you mean 'ngram_max'?", 2),
        ("[speculation]\nmethods = 'ngram'\n[plugins.'core.speculation']\nngram_max = 'x'\n",
         "give an integer", 4),
        ("[plugins.spec_eagel]\nx = 1\n", "no plugin of this name is installed", 2),
        ("[plugins.'core.scheduling']\nx = 1\n", "takes no options", 2),
    ],
)  # fmt: skip
def test_each_mistake_in_a_file_has_its_line(told, text, words, line):
    answer = told(text)
    assert words in answer
    assert f"rtp.toml line {line}" in answer
    assert "Traceback" not in answer


def test_a_model_that_is_not_there_is_named_with_the_line(told):
    answer = told("[model]\npath = '/no/where'\n", model=False)
    assert "model.path is given by rtp.toml line 2" in answer


def test_a_flag_and_a_variable_are_named_as_well(told, monkeypatch):
    assert "scheduling.policy is given by --scheduling-policy" in (
        told("", "--scheduling-policy", "fcsf")
    )
    monkeypatch.setenv("RTP_KV__STORE", "dens")
    assert "kv.store is given by RTP_KV__STORE" in told("")


def test_only_the_settings_that_an_error_is_about_are_told(told):
    answer = told("[scheduling]\npolicy = 'fcsf'\nmax_num_seqs = 4\n[kv]\nmemory = 0.1\n")
    assert answer.count("is given by") == 1


def test_nothing_is_remembered_for_the_next_command(told, capsys):
    told("[scheduling]\npolicy = 'fcsf'\n")
    assert main(["plugins", "new", "a b", "--role", "scheduler"]) == 1
    assert "is given by" not in capsys.readouterr().err


def test_explain_tells_what_was_given_and_where(told, monkeypatch):
    monkeypatch.setenv("RTP_SCHEDULING__MAX_NUM_SEQS", "8")
    text = (
        "[kv]\nblock_size = 16\n[server]\napi_keys = ['geheim']\n"
        "[plugins.'core.speculation']\nngram_max = 3\nnot_read = 1979-05-27\n"
    )
    report = json.loads(told(text, "--json", "--port", "1", status=0))
    settings = {one["key"]: one for one in report["settings"]}
    assert settings["kv.block_size"]["value"] == 16
    assert settings["kv.block_size"]["origin"] == "rtp.toml line 2"
    assert settings["kv.block_size"]["default"] is None
    assert settings["scheduling.max_num_seqs"]["origin"] == "RTP_SCHEDULING__MAX_NUM_SEQS"
    assert settings["server.port"]["origin"] == "--port"
    assert settings["server.api_keys"]["value"] == "(hidden)"
    assert "not in use" in settings["plugins.core.speculation.ngram_max"]["note"]
    assert "kv.memory" not in settings
    plain = told(text, "--port", "1", status=0)
    assert "geheim" not in plain
    assert "rtp.toml line 2" in plain
    assert "not read: the plugin is not in use" in plain


def test_options_of_a_plugin_in_use_are_read(told):
    text = "[speculation]\nmethods = 'ngram'\n[plugins.'core.speculation']\nngram_max = 3\n"
    report = json.loads(told(text, "--json", status=0))
    (option,) = (one for one in report["settings"] if one["key"].startswith("plugins."))
    assert (option["value"], option["note"]) == (3, None)


def test_the_place_is_told_by_serve_too(tiny_model, tmp_path):
    """The engine's own process finds this one out."""
    (tmp_path / "rtp.toml").write_text("[server]\nport = 0\n[model]\nmax_model_len = 5000\n")
    done = subprocess.run(
        [sys.executable, "-m", "rtp_core", "serve", str(tiny_model)],
        capture_output=True, text=True, timeout=120, check=False, cwd=tmp_path,
    )  # fmt: skip
    assert done.returncode == 1
    assert "use at most 512" in done.stderr
    assert "model.max_model_len is given by rtp.toml line 4" in done.stderr


@pytest.fixture
def diagnosed(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)

    def tell(text, *flags, status):
        (tmp_path / "rtp.toml").write_text(text)
        assert main(["doctor", *flags]) == status
        return capsys.readouterr().out

    return tell


FREE = "[server]\nport = 0\n"


@pytest.mark.parametrize(
    ("text", "failed", "words"),
    [
        ("[kv]\nblock_sise = 1\n", "config", ["rtp.toml line 2", "-> did you mean 'block_size'?"]),
        ("[kv]\nblock_size = 0\n", "config", ["rtp.toml line 2", "-> use 1 to 1024"]),
        ("kv = ", "config", ["is not TOML", "of 1 lines"]),
        (f"{FREE}[scheduling]\npolicy = 'fcsf'\n", "plugins", ["line 4", "did you mean 'fcfs'"]),
        (f"{FREE}[plugins.x]\ny = 1\n", "plugins", ["plugins.x.y is given by rtp.toml line 4"]),
        (f"{FREE}[model]\ndevice = 'cuda'\n", "device", ["cuda is not usable", "line 4"]),
        (f"{FREE}root_path = '/v1'\n", "server", ["line 3", "/llm/v1"]),
        (f"{FREE}ssl_keyfile = 'k'\n", "server", ["a key without a certificate"]),
        (f"{FREE}tool_call_parser = 'hermez'\n", "server", ["line 3", "'hermes'"]),
        ("[server]\nhost = '203.0.113.9'\n", "server", ["server.port", "cannot listen"]),
    ],
)
def test_doctor_fails_a_mistake_by_name_and_goes_on(diagnosed, text, failed, words):
    if failed == "device":
        pytest.importorskip("torch")
        import torch

        if torch.cuda.is_available():
            pytest.skip("cuda is usable here")
    report = diagnosed(text, status=1)
    lines = report.splitlines()
    (line,) = (one for one in lines if one.startswith(f"FAIL {failed} "))
    after = lines[lines.index(line) + 1]
    assert after.startswith("     -> ")
    for word in words:
        assert word in line + after
    assert sum(one.startswith(("ok ", "FAIL")) for one in lines) == 1 + len(doctor.CHECKS)


def test_doctor_reads_the_file_that_is_named(diagnosed, tmp_path):
    (tmp_path / "other.toml").write_text("[kv]\nx = 1\n")
    assert "other.toml line 2" in diagnosed(FREE, "--config", "other.toml", status=1)
    assert "none.toml: cannot be read" in diagnosed(FREE, "--config", "none.toml", status=1)


def test_doctor_tells_variables_that_only_look_like_settings(diagnosed, monkeypatch):
    monkeypatch.setenv("RTP_SERVER_PORT", "tcp://10.0.0.1:80")
    assert "RTP_SERVER_PORT" in diagnosed(FREE, status=0)


def test_doctor_finds_a_port_that_is_taken_no_failure(diagnosed):
    import socket

    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        assert f"port {port} is taken" in diagnosed(f"[server]\nport = {port}\n", status=0)


@pytest.mark.parametrize("error", [ImportError("no libx"), OSError("no file"), RuntimeError("bad")])
def test_a_check_that_breaks_is_a_finding(monkeypatch, diagnosed, error):
    def check_engine(config: EngineConfig) -> doctor.Finding:
        raise error

    monkeypatch.setattr(doctor, "CHECKS", (check_engine, *doctor.CHECKS[:1]))
    report = diagnosed(FREE, status=1)
    (line,) = (one for one in report.splitlines() if one.startswith("FAIL engine "))
    assert str(error) in line
    assert "ok   python" in report


def test_doctor_names_packages_that_are_missing_or_old():
    assert missing(["numpy>=1.26", "numpy", "numpy[extra]>=1,<99"]) == []
    wanted = ["numpy>=9999", "no-such-package-here>=1", "numpy"]
    assert missing(wanted) == wanted[:2]
    assert run_time("no-such-package-here") == ()
    assert all(";" not in one for one in run_time("rtp-core"))


def test_stray_settings():
    environ = {"RTP_SERVER_PORT": "1", "RTP_SERVER__PORT": "1", "RTP_CACHE_DIR": "/", "PATH": ""}
    assert stray_settings(environ) == ["RTP_SERVER_PORT"]
