"""Files that change, that are not what their digests say, that hold no numbers: each is named."""

from __future__ import annotations

import hashlib
import json
import os
import sys
from pathlib import Path

import pytest
import torch

sys.path.insert(0, str(Path(__file__).parent))
from model_files import CONFIG, parameters, table, tensors, write_gguf, write_model

from rtp_core.config.read import load_config
from rtp_core.engine.assemble import build_engine
from rtp_core.errors import ModelError, WeightLoadError
from rtp_core.loading.checkpoint import open_checkpoint
from rtp_core.loading.checksums import check_sums
from rtp_core.loading.file_order import FileOrderLoader
from rtp_core.loading.finite import check_finite
from rtp_core.loading.load import load_weights
from rtp_core.loading.mmap_loader import MmapLoader
from rtp_core.loading.plan import plan_weights
from rtp_core.loading.read_at import LocalFile

NORM = "model.norm.weight"
LOADERS = {"mmap": MmapLoader, "file_order": lambda: FileOrderLoader(read_bytes=2000, in_flight=3)}


def ignore(_):
    pass


def made(folder, source=None, **keywords):
    return plan_weights(
        table(), open_checkpoint(write_model(folder, source or tensors(), **keywords))
    )


# -- files that change -------------------------------------------------------------------------


def rewrite(path):
    """Another byte in its place: the file is whole at all times."""
    with path.open("r+b") as file:
        file.seek(-1, os.SEEK_END)
        last = file.read(1)[0]
        file.seek(-1, os.SEEK_END)
        file.write(bytes([last ^ 1]))
    later = path.stat().st_mtime_ns + 10**9
    os.utime(path, ns=(later, later))


def grow(path):
    with path.open("ab") as file:
        file.write(b"x")


def replace(path):
    """Another file under the name, as old as the first."""
    stat = path.stat()
    other = path.with_name("other")
    other.write_bytes(path.read_bytes())
    os.utime(other, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    other.replace(path)


@pytest.mark.parametrize("loader", LOADERS)
@pytest.mark.parametrize("change", [rewrite, grow])
def test_a_file_changed_since_its_header_was_read(tmp_path, loader, change):
    plan = made(tmp_path)
    path = tmp_path / "model.safetensors"
    change(path)
    with pytest.raises(WeightLoadError, match="changed since its header was read") as caught:
        load_weights(plan, LOADERS[loader](), "cpu", ignore)
    assert str(path) in str(caught.value)


@pytest.mark.parametrize("loader", LOADERS)
@pytest.mark.parametrize("change", [rewrite, grow, replace])
def test_a_file_changed_while_it_is_read(tmp_path, loader, change):
    plan = made(tmp_path, shards=3)
    path = tmp_path / "model-2-of-3.safetensors"
    left = [3]

    def progress(_):
        left[0] -= 1
        if left[0] == 0:
            change(path)

    with pytest.raises(WeightLoadError, match="changed while it was read") as caught:
        load_weights(plan, LOADERS[loader](), "cpu", progress)
    assert str(path) in str(caught.value)
    assert "start again" in str(caught.value)


def test_a_file_that_vanishes_while_it_is_read(tmp_path):
    plan = made(tmp_path)
    gone = []

    def progress(_):
        if not gone:
            gone.append((tmp_path / "model.safetensors").unlink())

    with pytest.raises(WeightLoadError, match=r"model\.safetensors: cannot be read: No such file"):
        load_weights(plan, LOADERS["file_order"](), "cpu", progress)


def test_a_disk_that_fails_in_the_middle_names_file_and_tensor(tmp_path):
    plan = made(tmp_path)
    wanted = next(one.tensor for one in plan.placements if "layers.1.mlp.down" in one.tensor.name)

    class Failing(LocalFile):
        def read_into(self, offset, buffer):
            if wanted.offset <= offset < wanted.offset + wanted.num_bytes:
                raise OSError(5, "Input/output error")
            return super().read_into(offset, buffer)

    with pytest.raises(WeightLoadError) as caught:
        load_weights(plan, FileOrderLoader(Failing.open, 512, 3), "cpu", ignore)
    assert caught.value.file == str(tmp_path / "model.safetensors")
    assert caught.value.tensor == wanted.name
    assert "Input/output error" in str(caught.value)


# -- not numbers -------------------------------------------------------------------------------


class TestFinite:
    @pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
    @pytest.mark.parametrize("name", [NORM, "model.layers.1.self_attn.k_proj.weight"])
    def test_the_tensor_is_named(self, tmp_path, value, name):
        source = tensors()
        source[name].view(-1)[-3:] = value
        plan = made(tmp_path, source, shards=2)
        found, _ = load_weights(plan, MmapLoader(), "cpu", ignore)
        with pytest.raises(WeightLoadError, match="3 of its weights are NaN or infinite") as caught:
            check_finite(found, plan)
        assert caught.value.tensor == name
        assert caught.value.file.endswith(".safetensors")

    def test_numbers_pass_whatever_their_form(self, tmp_path):
        plan = made(tmp_path / "a")
        check_finite(parameters(tensors()), plan)
        path = write_gguf(tmp_path / "tiny.gguf", tensors(), quantization="Q8_0")
        plan = plan_weights(table(), open_checkpoint(path))
        found, _ = load_weights(plan, MmapLoader(), "cpu", ignore, keep_codes=True)
        check_finite(found, plan)

    def test_numbers_too_large_for_the_dtype(self, tmp_path):
        source = tensors()
        source[NORM][0] = 1e38
        source[NORM] = source[NORM].double() * 10
        plan = made(tmp_path, source)
        found, _ = load_weights(plan, MmapLoader(), "cpu", ignore)
        with pytest.raises(WeightLoadError, match=r"model\.norm\.weight: 1 of its .*model\.dtype"):
            check_finite(found, plan)


# -- digests -----------------------------------------------------------------------------------


def sums(folder, *, change=False, form="{digest}  {name}"):
    lines = []
    for path in sorted(folder.glob("*.safetensors")):
        digest = hashlib.sha256(path.read_bytes()).hexdigest()
        if change:
            digest = digest[::-1]
        lines.append(form.format(digest=digest, name=path.name))
    return "\n".join(["# made by hand", *lines, "f" * 64 + "  unrelated.txt", ""])


class TestChecksums:
    @pytest.mark.parametrize("form", ["{digest}  {name}", "{digest} *{name}", "{digest}  ./{name}"])
    def test_a_list_of_sums(self, tmp_path, form):
        plan = made(tmp_path, shards=3)
        (tmp_path / "SHA256SUMS").write_text(sums(tmp_path, form=form))
        assert check_sums(plan.file_bytes) == 3

    def test_a_wrong_sum_names_file_and_list(self, tmp_path):
        plan = made(tmp_path)
        (tmp_path / "SHA256SUMS").write_text(sums(tmp_path, change=True))
        with pytest.raises(WeightLoadError, match=r"its SHA-256 is .*…, SHA256SUMS says") as caught:
            check_sums(plan.file_bytes)
        assert caught.value.file == str(tmp_path / "model.safetensors")

    @pytest.mark.parametrize("content", ["{digest}\n", "{digest}  model.safetensors\n"])
    def test_a_sum_beside_the_file_comes_first(self, tmp_path, content):
        plan = made(tmp_path)
        path = tmp_path / "model.safetensors"
        digest = hashlib.sha256(path.read_bytes()).hexdigest().upper()
        (tmp_path / "SHA256SUMS").write_text(sums(tmp_path, change=True))
        (tmp_path / "model.safetensors.sha256").write_text(content.format(digest=digest))
        assert check_sums(plan.file_bytes) == 1

    @pytest.mark.parametrize("content", [b"", b"\xff\xfe\x00", b"no digest here\n", b"0" * 10**6])
    def test_lists_of_another_form_tell_nothing(self, tmp_path, content, caplog):
        plan = made(tmp_path)
        (tmp_path / "SHA256SUMS").write_bytes(content)
        assert check_sums(plan.file_bytes) == 0
        assert "checksums found=0" in caplog.text


# -- engines -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("setting", "damage", "words"),
    [
        ("check_finite", "nan", "NaN or infinite"),
        ("checksums", "sums", "SHA-256"),
    ],
)
def test_no_engine_is_built_from_what_is_refused(tiny_model, tmp_path, setting, damage, words):
    import shutil

    from safetensors.torch import load_file, save_file

    folder = tmp_path / "model"
    shutil.copytree(tiny_model, folder)
    path = next(folder.glob("*.safetensors"))
    if damage == "nan":
        held = load_file(path)
        next(iter(held.values())).view(-1)[0] = float("nan")
        save_file(held, path)
    else:
        (folder / "SHA256SUMS").write_text(sums(folder, change=True))
    overrides = {"model": str(folder), "dtype": "float32", "max_model_len": 64}
    build_engine(load_config(overrides=overrides))  # nobody asked
    with pytest.raises(WeightLoadError, match=words):
        build_engine(load_config(overrides={**overrides, "loading": {setting: True}}))


@pytest.mark.parametrize("name", ["pytorch_model.bin", "model.pt", "consolidated.00.pth"])
def test_pickles_are_refused_with_the_command_that_converts_them(tmp_path, name):
    (tmp_path / "config.json").write_text(json.dumps(CONFIG))
    torch.save({"a": torch.zeros(1)}, tmp_path / name)
    for path in (tmp_path, tmp_path / name):
        with pytest.raises(ModelError, match="can run code when read") as caught:
            open_checkpoint(path)
        assert f"from_pretrained('{tmp_path}').save_pretrained('" in str(caught.value)
