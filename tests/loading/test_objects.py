"""Models in object stores: over HTTP with every fault a store can show, and through fsspec."""

from __future__ import annotations

import logging
import sys
from pathlib import Path

import pytest
import torch

sys.path.insert(0, str(Path(__file__).parent))
from model_files import parameters, table, tensors, write_gguf, write_model

from rtp_core.errors import ConfigError, ModelError, WeightLoadError
from rtp_core.loading.auto import AutoLoader
from rtp_core.loading.checkpoint import open_checkpoint
from rtp_core.loading.load import load_weights
from rtp_core.loading.mmap_loader import MmapLoader
from rtp_core.loading.objects import headers, open_store, stand_in
from rtp_core.loading.objects.address import is_object_address, without_query
from rtp_core.loading.objects.fetch import object_model
from rtp_core.loading.objects.fsspec_store import FsspecStore
from rtp_core.loading.objects.http import HttpStore
from rtp_core.loading.objects.loader import SourceLoader
from rtp_core.loading.objects.patience import Patience
from rtp_core.loading.objects.store import ObjectFile, ObjectInfo
from rtp_core.loading.plan import plan_weights
from rtp_core.testing.range_server import Fault, range_server

QUICK = Patience(pauses_s=(0.0, 0.0), timeout_s=0.3)
DATA = bytes(range(256)) * 40


def ignore(_):
    pass


@pytest.fixture
def model(tmp_path):
    source = tensors()
    return source, write_model(tmp_path / "model", source, shards=3)


def objects(folder, below=""):
    return {f"{below}{path.name}": path.read_bytes() for path in folder.iterdir()}


@pytest.fixture
def server():
    with range_server({"x": DATA}) as running:
        yield running


def store_of(server, patience=QUICK):
    return HttpStore(server.url, patience)


def read_all(store, key="x"):
    info = store.info(key)
    return ObjectFile(store, key, info).read_range(0, info.num_bytes)


# -- whole models ----------------------------------------------------------------------------


def test_weights_from_a_server_equal_those_of_the_files_and_leave_no_copy(model, tmp_path):
    source, folder = model
    with range_server(objects(folder, "m/")) as server:
        found = object_model(f"{server.url}/m", tmp_path / "cache")
        checkpoint = open_checkpoint(found)
        assert checkpoint.content_id == open_checkpoint(folder).content_id
        plan = plan_weights(table(), checkpoint)
        loaded, stats = load_weights(plan, SourceLoader(AutoLoader()), "cpu", ignore)
    for name, expected in parameters(source).items():
        assert torch.equal(loaded[name], expected), name
    assert stats.strategy == "file_order"
    stored = sum(path.stat().st_size for path in found.iterdir())
    assert stored < plan.num_bytes / 4


def test_a_single_file_is_a_model_too(tmp_path):
    path = write_gguf(tmp_path / "tiny.gguf", tensors(), quantization="Q8_0")
    with range_server({"a/tiny.gguf": path.read_bytes()}) as server:
        checkpoint = open_checkpoint(object_model(f"{server.url}/a/tiny.gguf", tmp_path / "cache"))
        plan = plan_weights(table(), checkpoint)
        loaded, _ = load_weights(plan, SourceLoader(MmapLoader()), "cpu", ignore)
    local = plan_weights(table(), open_checkpoint(path))
    expected, _ = load_weights(local, MmapLoader(), "cpu", ignore)
    assert all(torch.equal(loaded[name], one) for name, one in expected.items())


def test_a_gguf_header_longer_than_the_first_request_is_read_on(tmp_path, monkeypatch):
    monkeypatch.setattr(headers, "_GGUF_BYTES", 100)
    path = write_gguf(tmp_path / "tiny.gguf", tensors())
    with range_server({"tiny.gguf": path.read_bytes()}) as server:
        found = object_model(f"{server.url}/tiny.gguf", tmp_path / "cache")
        assert open_checkpoint(found).tensors.keys() == open_checkpoint(path).tensors.keys()


def test_a_loader_that_knows_no_objects_refuses_the_stand_in(model, tmp_path):
    """It must not take the hole where the weights would be for weights."""
    _, folder = model
    with range_server(objects(folder)) as server:
        found = object_model(server.url, tmp_path / "cache")
        plan = plan_weights(table(), open_checkpoint(found))
        with pytest.raises(WeightLoadError, match="truncated"):
            load_weights(plan, MmapLoader(), "cpu", ignore)


def test_a_stand_in_means_nothing_to_another_process(model, tmp_path, monkeypatch):
    _, folder = model
    with range_server(objects(folder)) as server:
        found = object_model(server.url, tmp_path / "cache")
    monkeypatch.setattr(stand_in, "_OBJECTS", {})
    with pytest.raises(WeightLoadError, match="truncated"):
        open_checkpoint(found)


def test_descriptions_are_fetched_once(model, tmp_path):
    _, folder = model
    with range_server(objects(folder)) as server:
        first = object_model(server.url, tmp_path / "cache")
        asked = server.requests["config.json"]
        assert object_model(server.url, tmp_path / "cache") == first
        assert server.requests["config.json"] == asked


def test_a_changed_object_makes_another_folder(model, tmp_path):
    _, folder = model
    with range_server(objects(folder)) as server:
        first = object_model(server.url, tmp_path / "cache")
        server.files["config.json"] += b" "
        assert object_model(server.url, tmp_path / "cache") != first


def test_weights_that_change_under_a_load_end_it(model, tmp_path):
    _, folder = model
    with range_server(objects(folder)) as server:
        plan = plan_weights(table(), open_checkpoint(object_model(server.url, tmp_path / "cache")))
        for key, data in list(server.files.items()):
            if key.endswith("safetensors"):
                server.files[key] = data[:-1] + b"\x7f"
        with pytest.raises(WeightLoadError, match=r"safetensors: changed while it was read"):
            load_weights(plan, SourceLoader(AutoLoader()), "cpu", ignore)


def test_a_shard_outside_the_model_is_not_asked_for(model, tmp_path):
    _, folder = model
    files = objects(folder)
    files["model.safetensors.index.json"] = b'{"weight_map": {"a": "../secret.safetensors"}}'
    with (
        range_server(files) as server,
        pytest.raises(ModelError, match="lies outside the model"),
    ):
        object_model(server.url, tmp_path)


def test_an_address_without_a_model(tmp_path):
    with (
        range_server({}) as server,
        pytest.raises(ModelError, match=r"/m/config\.json: HTTP 404.*model's folder"),
    ):
        object_model(f"{server.url}/m", tmp_path)


# -- faults ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "faults",
    [
        [Fault(status=500)],
        [Fault(status=503), Fault(status=429)],
        [Fault(cut_after=100)],
        [Fault(cut_after=0)],
        [Fault(cut_after=1), Fault(cut_after=1), Fault(cut_after=1), Fault(cut_after=1)],
        [Fault(claim_more=10)],
        [Fault(hang_s=0.6)],
    ],
    ids=str,
)
def test_what_passes_is_tried_again(server, faults):
    server.fail("x", *faults)
    assert read_all(store_of(server)) == DATA


@pytest.mark.parametrize(
    ("fault", "words"),
    [
        (Fault(status=500), r"/x: HTTP 500, 3 times \(check the store"),
        (Fault(status=401), "/x: HTTP 401 .*credentials"),
        (Fault(status=403), "/x: HTTP 403 .*refuses"),
        (Fault(status=404), "/x: HTTP 404 .*address"),
        (Fault(status=416), "/x: HTTP 416 .*shorter"),
        (Fault(status=302), "/x: HTTP 302: redirections are not followed"),
        (Fault(hang_s=0.6), "/x: no answer in time, 3 times"),
        (Fault(cut_after=0), "/x: .*3 times"),
        (Fault(etag='"other"'), '/x: changed while it was read.*now it is "other"'),
        (Fault(whole=True), "/x: HTTP 200 for a range: the server ignores ranges"),
        (Fault(shifted=5), "/x: Content-Range 'bytes 5-"),
    ],
    ids=str,
)
def test_what_does_not_pass_names_object_status_and_remedy(server, fault, words):
    server.fail("x", *[fault] * 3)
    with pytest.raises(WeightLoadError, match=words):
        read_all(store_of(server))


def test_a_signature_is_not_shown(server):
    store = HttpStore(f"{server.url}?signature=secret", QUICK)
    server.fail("x", Fault(status=403))
    with pytest.raises(WeightLoadError) as caught:
        read_all(store)
    assert "secret" not in str(caught.value)


def test_a_retry_shows_no_signature_either(server, caplog):
    server.fail("x", Fault(status=500))
    with caplog.at_level(logging.WARNING):
        read_all(HttpStore(f"{server.url}?signature=secret", QUICK))
    assert "object_retry" in caplog.text
    assert "secret" not in caplog.text


def test_pauses_grow_and_are_spread():
    slept = []
    chances = iter([0.0, 1.0])
    patience = Patience((1.0, 2.0), sleep=slept.append, chance=lambda: next(chances))
    with range_server({"x": DATA}) as server:
        server.fail("x", Fault(status=500), Fault(status=500))
        assert read_all(store_of(server, patience)) == DATA
    assert slept == [1.0, 1.0]


# -- fsspec ----------------------------------------------------------------------------------


class MemoryFiles:
    """What FsspecStore uses of an fsspec file system; the real one checks this below."""

    def __init__(self, files):
        self.files = files
        self.version = 1
        self.failures = []

    def _entry(self, path):
        return {
            "name": path, "size": len(self.files[path]), "type": "file", "ETag": str(self.version),
        }  # fmt: skip

    def ls(self, path, detail):
        return [
            *(self._entry(one) for one in self.files if one.startswith(path)),
            {"name": f"{path}/folder", "size": 0, "type": "directory"},
        ]

    def info(self, path):
        return self._entry(path)

    def invalidate_cache(self, path=None):
        pass

    def cat_file(self, path, start, end):
        if self.failures:
            raise self.failures.pop()
        return self.files[path][start:end]


def test_a_bucket_is_a_model(model, tmp_path, monkeypatch):
    source, folder = model
    files = MemoryFiles(objects(folder, "bucket/m/") | {"bucket/m/deep/config.json": b"{}"})
    files.failures = [OSError("reset"), TimeoutError("slow")]
    asked = {}

    def opened(scheme, options):
        asked.update(options, scheme=scheme)
        return files

    monkeypatch.setattr(open_store, "open_file_system", opened)
    monkeypatch.setattr(Patience, "call", QUICK.call)
    found = object_model("s3://bucket/m/", tmp_path / "cache", ("endpoint_url=http://h:1",))
    assert asked == {"scheme": "s3", "endpoint_url": "http://h:1"}
    plan = plan_weights(table(), open_checkpoint(found))
    loaded, _ = load_weights(plan, SourceLoader(AutoLoader()), "cpu", ignore)
    for name, expected in parameters(source).items():
        assert torch.equal(loaded[name], expected), name


def test_an_object_of_a_bucket_that_changes_is_an_error():
    files = MemoryFiles({"b/x": DATA})
    store = FsspecStore("s3://b", files, QUICK)
    info = store.info("x")
    files.version = 2
    with pytest.raises(WeightLoadError, match="s3://b/x: changed while it was read"):
        ObjectFile(store, "x", info).read_range(0, info.num_bytes)


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (FileNotFoundError("x"), "s3://b/x: HTTP 404.*address"),
        (PermissionError("Forbidden"), "s3://b/x: HTTP 403: Forbidden.*rights"),
        (OSError("reset by peer"), "s3://b/x: OSError: reset by peer, 3 times"),
    ],
)
def test_errors_of_a_bucket_name_object_and_remedy(error, words):
    files = MemoryFiles({"b/x": DATA})
    files.failures = [error] * 3
    with pytest.raises(WeightLoadError, match=words):
        FsspecStore("s3://b", files, QUICK).read(
            "x", ObjectInfo(4, "1"), 0, memoryview(bytearray(4))
        )


def test_the_calls_are_those_of_fsspec():
    fsspec = pytest.importorskip("fsspec")
    memory = fsspec.filesystem("memory")
    memory.pipe_file("/fsspec-store/x", DATA)
    store = FsspecStore("memory://fsspec-store", memory, QUICK)
    assert set(store.list()) == {"x"}
    assert read_all(store) == DATA
    memory.rm("/fsspec-store", recursive=True)


def test_options_are_key_and_value(tmp_path):
    with pytest.raises(ConfigError, match="'anon' is not written KEY=VALUE"):
        object_model("s3://b/m", tmp_path, ("anon",))
    with pytest.raises(ConfigError, match="http:// takes none"):
        object_model("http://127.0.0.1:1/m", tmp_path, ("a=b",))


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("s3://b/m", True), ("gs://b/m", True), ("https://h/m", True), ("http://h/m", True),
        ("org/model", False), ("/path", False), ("file:///etc", False), ("s3:/b", False),
    ],
)  # fmt: skip
def test_addresses(name, expected):
    assert is_object_address(name) is expected


def test_a_name_for_others_has_no_signature():
    assert without_query("https://h/m?X-Amz-Signature=1") == "https://h/m"
    assert without_query("/models/odd?name") == "/models/odd?name"
