"""The image: its file by parsing, its steps by running them where there is no container."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
import tomllib
import urllib.request
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))
from container_file import read_stages

import rtp_core
from rtp_core.config.read import build_config, from_environment

ROOT = Path(__file__).parents[2]
TEXT = (ROOT / "deploy" / "Containerfile").read_text()
STAGES = read_stages(TEXT)
NAMED = {stage.name: stage for stage in STAGES}
FINAL = STAGES[-1]
SCRIPTS = {name: (ROOT / "deploy" / name).read_text() for name in ("wheels.sh", "install.sh")}
PINS = dict(
    line.split("==") for line in (ROOT / "constraints.txt").read_text().splitlines() if line
)
BASES = (r"python:3\.\d+-slim-[a-z]+", r"nvidia/cuda:\d+\.\d+\.\d+-runtime-ubuntu\d+\.\d+")
SYSTEM = ("apt-get ", "useradd ")
"""What begins a step that needs root and a distribution; the others run anywhere."""


def test_both_devices_have_a_stage_on_an_image_with_a_tag():
    assert re.search(r"^ARG DEVICE=cpu$", TEXT, re.MULTILINE)
    assert FINAL.image == "on-${DEVICE}"
    images = {stage.name: stage.image for stage in STAGES[:-1]}
    assert set(images) == {"wheels", "on-cpu", "on-cuda"}
    for image in images.values():
        assert any(re.fullmatch(base, image) for base in BASES), image
    assert images["on-cuda"].startswith("nvidia/cuda:")


def test_python_of_the_image_is_one_we_support():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    least = int(project["requires-python"].removeprefix(">=3."))
    for stage in STAGES:
        if found := re.match(r"python:3\.(\d+)", stage.image):
            assert int(found.group(1)) >= least


def test_hosts_are_public_package_indexes_only():
    hosts = re.findall(r"https?://([^/\s'\"{]+)", TEXT + "".join(SCRIPTS.values()))
    assert set(hosts) == {"download.pytorch.org", "127.0.0.1:"}


def test_the_image_runs_as_an_ordinary_user():
    user = FINAL.one("USER")
    uid = user.partition(":")[0]
    assert uid.isdigit()  # Kubernetes' runAsNonRoot reads numbers only
    assert int(uid) > 0
    assert f"--uid {uid} " in " ".join(FINAL.all("RUN"))
    after = [word for word, _ in FINAL.steps[[word for word, _ in FINAL.steps].index("USER") :]]
    assert not {"RUN", "COPY", "ADD"} & set(after)


def test_labels_are_those_of_the_project():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    labels = FINAL.pairs("LABEL")
    of = "org.opencontainers.image."
    assert labels[f"{of}version"] == rtp_core.__version__ == project["version"]
    assert labels[f"{of}licenses"] == project["license"]
    assert labels[f"{of}title"]
    assert labels[f"{of}description"]


def test_settings_are_settings_and_the_cache_is_a_volume():
    environment = FINAL.pairs("ENV")
    server = build_config(from_environment(environment)).server
    assert (server.host, server.port) == ("0.0.0.0", int(FINAL.one("EXPOSE")))
    volume = FINAL.one("VOLUME")
    assert environment["RTP_CACHE_DIR"] == volume
    assert f"install -d -o rtp -g rtp {volume}" in " ".join(FINAL.all("RUN"))
    for name in ("HF_HOME", "TRITON_CACHE_DIR"):
        assert environment[name].startswith(f"{volume}/")


def test_it_serves_and_asks_for_its_health():
    assert FINAL.words("ENTRYPOINT") == ["rtp", "serve"]
    assert FINAL.words("CMD") == ["demo"]
    check = FINAL.one("HEALTHCHECK")
    assert "/health" in check
    for option in ("--interval=", "--timeout=", "--start-period=", "--retries="):
        assert option in check


def test_what_is_installed_is_pinned_once_in_constraints():
    text = TEXT + "".join(SCRIPTS.values())
    for name, version in re.findall(r"([\w.-]+)==([\w.+-]+)", text):
        assert PINS[name] == version
    installs = [line for line in text.splitlines() if "pip" in line and " install " in line]
    assert len(installs) == 3
    assert all('-c "$pins"' in line or "-c constraints.txt" in line for line in installs)


def test_files_that_are_named_exist():
    for stage in STAGES:
        for path in re.findall(r"deploy/[\w.]+|\bconstraints\.txt", " ".join(stage.all("RUN"))):
            assert (ROOT / path).is_file(), path
    assert ".git" in (ROOT / ".dockerignore").read_text().split()


@pytest.mark.parametrize("script", SCRIPTS)
def test_scripts_are_plain_shell_that_stops_at_the_first_error(script):
    assert SCRIPTS[script].startswith("#!/bin/sh\n")
    assert "\nset -eu\n" in SCRIPTS[script]
    subprocess.run(["sh", "-n", ROOT / "deploy" / script], check=True)


class Machine:
    """The image's paths below a folder, and commands with the image's environment."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.environment = {
            name: value for name, value in os.environ.items() if not name.startswith(("RTP_", "PY"))
        }

    def local(self, text: str) -> str:
        """`text` with the image's absolute paths moved below the folder."""
        return re.sub(r"(?<![\w.])/(?=(?:wheels|build|opt/rtp|cache)\b)", f"{self.folder}/", text)

    def enter(self, environment: dict[str, str]) -> None:
        for name, value in environment.items():
            moved = self.local(value)
            self.environment[name] = moved.replace("$PATH", self.environment["PATH"])

    def run(self, command: str, cwd: Path) -> None:
        path = f"{Path(sys.executable).parent}:{self.environment['PATH']}"
        done = subprocess.run(
            ["sh", "-c", self.local(command)], cwd=cwd, capture_output=True, text=True,
            check=False, env=self.environment | {"PATH": path, "EXTRAS": ""},
        )  # fmt: skip
        assert done.returncode == 0, done.stdout[-1000:] + done.stderr[-2000:]

    def start(self, words: list[str]) -> tuple[subprocess.Popen, Path]:
        """A command of the image in its home, and the file that it writes to."""
        log = self.folder / "log"
        with log.open("wb") as output:
            return subprocess.Popen(
                [self.folder / "opt/rtp/bin" / words[0], *words[1:]],
                cwd=self.folder / "home", env=self.environment,
                stdout=output, stderr=subprocess.STDOUT,
            ), log  # fmt: skip

    def succeeds(self, words: list[str]) -> bool:
        program, *rest = words
        done = subprocess.run(
            [self.folder / "opt/rtp/bin" / program, *rest],
            env=self.environment, capture_output=True, check=False,
        )  # fmt: skip
        return done.returncode == 0


def portable(stage) -> list[str]:
    return [step for step in stage.all("RUN") if not step.startswith(SYSTEM)]


def test_steps_that_are_not_run_here_only_install_packages_and_make_the_user():
    assert [len(portable(stage)) for stage in STAGES] == [1, 0, 0, 1]
    left = [step for stage in STAGES for step in stage.all("RUN") if step not in portable(stage)]
    for step in left:
        for command in step.split(" && "):
            allowed = ("apt-get update", "apt-get install ", "rm -rf /var/lib/apt", "useradd ")
            assert command.startswith((*allowed, "install -d ")), command


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def post(url: str, body: dict) -> dict:
    request = urllib.request.Request(
        url, json.dumps(body).encode(), {"Content-Type": "application/json"}
    )
    with urllib.request.urlopen(request, timeout=60) as answer:
        return json.load(answer)


@pytest.mark.long
@pytest.mark.timeout(1200)
def test_the_steps_make_an_environment_that_serves(tmp_path):
    """What a build does from its first step to its health check, without a container.

    The index with another build of torch is left to images.
    """
    machine, source = Machine(tmp_path), tmp_path / "src"
    copy_context(source)
    for step in portable(NAMED["wheels"]):
        machine.run(step, source)
    shutil.rmtree(source)
    for step in portable(FINAL):
        machine.run(step, tmp_path)
    port = free_port()
    machine.enter(FINAL.pairs("ENV"))
    machine.environment |= {"RTP_SERVER__HOST": "127.0.0.1", "RTP_SERVER__PORT": str(port)}
    (tmp_path / "home").mkdir()
    server, log = machine.start([*FINAL.words("ENTRYPOINT"), *FINAL.words("CMD")])
    try:
        until = time.monotonic() + 300
        while not machine.succeeds(FINAL.words("HEALTHCHECK")):
            assert server.poll() is None, log.read_text()[-2000:]
            assert time.monotonic() < until, log.read_text()[-2000:]
            time.sleep(0.5)
        answer = post(
            f"http://127.0.0.1:{port}/v1/completions",
            {"prompt": "The capital of France is", "max_tokens": 4, "temperature": 0},
        )
        assert answer["choices"][0]["text"].strip().startswith("Paris")
    finally:
        server.send_signal(signal.SIGTERM)
        ended = server.wait(60)
    assert ended == 0
    assert not machine.succeeds(FINAL.words("HEALTHCHECK"))
    assert any((tmp_path / "cache").iterdir())


def copy_context(target: Path) -> None:
    """What a build is given: tracked and new files."""
    listed = subprocess.run(
        ["git", "ls-files", "-co", "--exclude-standard"],
        cwd=ROOT, capture_output=True, text=True, check=True,
    )  # fmt: skip
    for name in listed.stdout.splitlines():
        if (ROOT / name).is_file():
            (target / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, target / name)
