"""What can be said of a hub model without its weights: small files and tensor directories."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from rtp_core.errors import ModelError
from rtp_core.loading.hub.blob import library_file
from rtp_core.loading.hub.cache import RepoCache, shards
from rtp_core.loading.hub.download import Repository
from rtp_core.loading.hub.fetch import PATIENCE, ask
from rtp_core.loading.hub.files import INDEX, select
from rtp_core.loading.hub.hollow import write_hollow
from rtp_core.loading.hub.name import HubName
from rtp_core.loading.hub.offline import cached_model, whole_model
from rtp_core.loading.hub.patience import Patience
from rtp_core.loading.hub.refusals import HUB_ERRORS, refusal, unreachable


@contextmanager
def sketched(name: HubName, patience: Patience = PATIENCE) -> Iterator[tuple[Path, bool]]:
    """A model's directory or file, and whether its weights are really there.

    Without a complete cached copy it is a temporary directory whose safetensors have their
    headers and sizes, read by range requests, and holes where the weights would be. Raises
    ModelError, also for a GGUF file that is not cached: its header is not separable.
    """
    cache = RepoCache.of(name.repo)
    cached = whole_model(name, cache)
    if cached is not None:
        yield cached, True
        return
    try:
        repository = ask(name, cache, patience)
        with tempfile.TemporaryDirectory(prefix="rtp-sketch-") as folder:
            _draw(repository, Path(folder), patience)
            yield Path(folder), False
    except HUB_ERRORS as error:
        if unreachable(error):
            yield cached_model(name, cache, error), True
            return
        raise refusal(error, name) from error


def _draw(repository: Repository, folder: Path, patience: Patience) -> None:
    name, commit = repository.name, repository.commit
    selection = select(name, repository.files)
    if selection.gguf is not None:
        raise ModelError(
            f"{selection.gguf.path} of hub model {name} is not cached, and a GGUF file "
            "describes itself only as a whole",
            remedy=f"run rtp model get {name} first",
        )
    for file in selection.descriptions:
        path = patience.call(
            file.path,
            lambda path=file.path: library_file(name.repo, path, commit, patience.timeout_s),
        )
        (folder / file.path).symlink_to(path)
    index = folder / INDEX
    weights = shards(index) if index.is_file() else {file.path for file in selection.weights}
    for path in sorted(weights):
        patience.call(path, lambda path=path: write_hollow(name, commit, path, folder / path))
