from __future__ import annotations

import sys
from pathlib import Path

import pytest
import pytest_asyncio

sys.path.insert(0, str(Path(__file__).parent))
from kit import ScriptBackend, client_of, write_model


@pytest.fixture(scope="session")
def model_dir(tmp_path_factory):
    return write_model(tmp_path_factory.mktemp("model"))


@pytest.fixture
def backend(model_dir):
    return ScriptBackend(model_dir)


@pytest_asyncio.fixture
async def client(backend):
    async with client_of(backend) as client:
        yield client
