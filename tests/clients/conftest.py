"""One service as users start it, for every client; and an environment of its own for each
client that is not among the test dependencies."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

sys.path[:0] = [str(Path(__file__).parent), str(Path(__file__).parents[1] / "e2e")]
from environments import Program, environment  # noqa: E402
from serving import serving  # noqa: E402


@pytest.fixture(scope="session")
def service(demo_model, tmp_path_factory):
    """`rtp serve demo` with what its answers can be read as; no other option."""
    log = tmp_path_factory.mktemp("clients") / "log"
    flags = ("--enable-auto-tool-choice", "--tool-call-parser", "hermes")
    with serving("demo", log, *flags) as running:
        yield running
        assert "Traceback" not in log.read_text()


@pytest.fixture(scope="session")
def program(request, service):
    """Programs of a client in its own environment, against the service."""

    def made(client: str) -> Program:
        python = environment(client, Path(request.config.rootpath) / ".pytest_cache" / "clients")
        return Program(python, service.url)

    return made


@pytest.fixture(scope="session")
def tokenizer_folder(demo_model, tmp_path_factory) -> Path:
    """The demo model's tokenizer as the files that clients load."""
    from rtp_core.loading.checkpoint import open_checkpoint
    from rtp_core.text.gguf_tokenizer import write_tokenizer

    folder = tmp_path_factory.mktemp("tokenizer")
    write_tokenizer(open_checkpoint(demo_model).gguf_metadata, folder)
    (folder / "config.json").write_text('{"model_type": "llama"}')
    return folder
