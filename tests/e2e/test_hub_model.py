"""A model of a hub through the command line, from a hub on the loopback interface."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from rtp_core.testing.fake_hub import Fault, running_hub

sys.path.insert(0, str(Path(__file__).parent))
from serving import serving

REPO = "org/tiny"


@pytest.fixture
def hub(tiny_model, tmp_path, monkeypatch):
    """A hub with the tiny model, and an environment that knows no other."""
    with running_hub() as hub:
        hub.add(REPO, {path.name: path.read_bytes() for path in tiny_model.iterdir()})
        monkeypatch.setenv("HF_ENDPOINT", hub.url)
        monkeypatch.setenv("HF_HOME", str(tmp_path / "hf"))
        monkeypatch.delenv("HF_TOKEN", raising=False)
        monkeypatch.delenv("HF_HUB_CACHE", raising=False)
        yield hub


def rtp(*arguments, **environment):
    return subprocess.run(
        [sys.executable, "-m", "rtp_core", *arguments],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
        env={**os.environ, **environment},
    )


def test_get_explain_and_run_from_an_id(hub):
    report = json.loads(rtp("explain", REPO, "--json").stdout)
    assert report["model"]["architecture"] == "LlamaForCausalLM"
    assert report["model"]["weights_here"] is False
    assert report["model"]["fingerprint"] is None
    size = len(hub.repos[REPO]["model.safetensors"])
    assert hub.bytes_served["model.safetensors"] < size

    got = rtp("model", "get", f"{REPO}@{hub.commit(REPO)}")
    assert got.returncode == 0, got.stderr
    assert got.stdout.strip().endswith(hub.commit(REPO))
    assert "model_downloaded" in got.stderr

    hub.bytes_served.clear()
    arguments = ("hello", "--max-tokens", "5", "--temperature", "0")
    first = rtp("run", REPO, *arguments)
    assert first.returncode == 0, first.stderr
    assert first.stdout.strip()
    assert hub.bytes_served["model.safetensors"] == 0
    offline = rtp("run", REPO, *arguments, HF_HUB_OFFLINE="1")
    assert offline.stdout == first.stdout
    assert "hub_offline" in offline.stderr
    whole = json.loads(rtp("explain", REPO, "--json").stdout)
    assert whole["model"]["weights_here"] is True
    assert whole["memory"]["weights_bytes"] == report["memory"]["weights_bytes"]


def test_what_the_hub_refuses_is_one_line(hub):
    done = rtp("run", "org/tinny", "hello")
    assert done.returncode == 1
    assert "org/tinny" in done.stderr
    assert "neither a local path" in done.stderr
    assert "Traceback" not in done.stderr


def test_the_server_answers_503_while_it_downloads_and_then_serves(hub, tmp_path):
    hub.fail("/cdn/", Fault(hang_s=5.0))
    with serving(REPO, tmp_path / "log", wait=False) as server:
        deadline = time.monotonic() + 60
        while not any("/cdn/" in path for path in hub.requests) and time.monotonic() < deadline:
            time.sleep(0.05)
        assert server.get("/health").status_code == 503
        assert server.get("/v1/stats").json()["state"] == "loading"
        assert server.get("/v1/stats").json()["start"] is None
        server.wait_healthy()
        start = server.get("/v1/stats").json()["start"]
        phases = {one["name"]: one["seconds"] for one in start["phases"]}
        assert list(phases)[:3] == ["process", "imports", "model"]
        assert list(phases)[-1] == "server"
        assert phases["model"] > 4.0  # the download hung for five seconds
        assert sum(phases.values()) == pytest.approx(start["total_s"])
        assert "start_timeline total_s=" in server.log.read_text()
        assert server.get("/v1/models").json()["data"][0]["id"] == REPO
        body = {"model": REPO, "prompt": "hello", "max_tokens": 4}
        assert server.post("/v1/completions", body).status_code == 200


def test_an_interrupted_server_leaves_bytes_for_the_next(hub, tmp_path):
    size = len(hub.repos[REPO]["model.safetensors"])
    hub.fail("/cdn/", Fault(cut_after=size // 2), Fault(hang_s=60.0))
    with serving(REPO, tmp_path / "log", wait=False):
        deadline = time.monotonic() + 60
        while (
            hub.requests[f"GET /cdn/{REPO}/model.safetensors"] < 2 and time.monotonic() < deadline
        ):
            time.sleep(0.05)
    assert rtp("model", "get", REPO).returncode == 0
    assert hub.bytes_served["model.safetensors"] == size


def test_a_local_model_never_imports_the_hubs_client(tiny_model):
    probe = (
        "import sys\nfrom rtp_core import LLM\nLLM(sys.argv[1]).close()\n"
        "assert not {'httpx2', 'huggingface_hub.hf_api'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", probe, str(tiny_model)], check=True, timeout=120)
