"""Every way in which a safetensors file can be wrong is refused by file, tensor and reason."""

from __future__ import annotations

import json
import struct
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

sys.path.insert(0, str(Path(__file__).parent))
from model_files import write_raw

from rtp_core.errors import WeightLoadError
from rtp_core.loading.safetensors_header import MAX_HEADER_BYTES, read_header


def entry(dtype="F32", shape=(2, 2), offsets=(0, 16)):
    return {"dtype": dtype, "shape": list(shape), "data_offsets": list(offsets)}


@pytest.fixture
def path(tmp_path):
    return tmp_path / "model.safetensors"


def refuse(path, message):
    with pytest.raises(WeightLoadError, match=message) as caught:
        read_header(path)
    assert str(path) in str(caught.value)
    return caught.value


def test_a_file_of_the_safetensors_package_is_read(path):
    save_file(
        {"a": torch.zeros(3, 5, dtype=torch.bfloat16), "b": torch.zeros(4)},
        path,
        metadata={"format": "pt"},
    )
    found = read_header(path)
    assert {name: (one.shape, one.dtype, one.num_bytes) for name, one in found.items()} == {
        "a": ((3, 5), "BF16", 30),
        "b": ((4,), "F32", 16),
    }
    last = max(one.offset + one.num_bytes for one in found.values())
    assert last == path.stat().st_size


def test_scalars_and_empty_tensors_are_allowed(path):
    header = {"none": entry(shape=(0, 7), offsets=(0, 0)), "one": entry(shape=(), offsets=(0, 4))}
    found = read_header(write_raw(path, header, bytes(4)))
    assert (found["none"].num_bytes, found["one"].shape) == (0, ())


def test_sub_byte_types_count_bits(path):
    found = read_header(write_raw(path, {"a": entry("F4", (2, 3), (0, 3))}, bytes(3)))
    assert found["a"].num_bytes == 3
    write_raw(path, {"a": entry("F4", (3,), (0, 1))}, bytes(1))
    assert refuse(path, "12 bits, offsets say 1").tensor == "a"


@pytest.mark.parametrize("size", [0, 1, 7])
def test_no_header_length(path, size):
    path.write_bytes(bytes(size))
    refuse(path, "truncated or not safetensors")


def test_header_longer_than_the_file(path):
    path.write_bytes(struct.pack("<Q", 1000) + b"{}")
    refuse(path, "truncated or not safetensors: header of 1000 bytes, file of 10")


@pytest.mark.parametrize("length", [MAX_HEADER_BYTES + 1, 2**63, 2**64 - 1])
def test_header_length_beyond_reason(path, length):
    path.write_bytes(struct.pack("<Q", length) + bytes(100))
    refuse(path, "truncated or not safetensors")


def test_git_lfs_pointer(path):
    path.write_text("version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 5\n")
    assert refuse(path, "Git LFS pointer").remedy == "run git lfs pull"


@pytest.mark.parametrize("text", ["<!DOCTYPE html><html>", "\n <html>", '<?xml version="1.0"?>'])
def test_web_page(path, text):
    path.write_text(text + "404" * 50)
    refuse(path, "a web page, not the file")


@pytest.mark.parametrize("raw", [b"{", b"\xff\xfe{}", b"[" * 100_000, b'{"a": 1e', b"{} {}"])
def test_header_that_is_not_json(path, raw):
    refuse(write_raw(path, raw), "not JSON")


@pytest.mark.parametrize("raw", [b"[]", b"3", b'"a"', b"null"])
def test_header_that_is_no_object(path, raw):
    refuse(write_raw(path, raw), "not a JSON object")


def test_a_tensor_twice(path):
    one = json.dumps(entry())
    refuse(write_raw(path, f'{{"a": {one}, "a": {one}}}'.encode(), bytes(16)), "'a' stands twice")


@pytest.mark.parametrize(
    "wrong",
    [3, "F32", None, [], {}, {"dtype": "F32", "shape": [1]}, {**entry(), "data_offsets": 3}],
)
def test_entry_without_its_parts(path, wrong):
    assert refuse(write_raw(path, {"a": wrong}, bytes(16)), "lacks dtype").tensor == "a"


@pytest.mark.parametrize("dtype", ["F33", "f32", "", None, 3, [], {}])
def test_unknown_dtype(path, dtype):
    refuse(write_raw(path, {"a": entry(dtype)}, bytes(16)), "unknown dtype")


@pytest.mark.parametrize(
    ("shape", "offsets"),
    [
        ([2, 2], [16, 0]),
        ([2, 2], [0.0, 16]),
        ([2, 2], [False, 16]),
        ([True, 4], [0, 16]),
        ([-2, -2], [0, 16]),
        ([2, 2], [-16, 0]),
        ([2, 2], [0, None]),
        ("22", [0, 16]),
        ({"2": 2}, [0, 16]),
        ([2, [2]], [0, 16]),
        ([2, 2], ["0", "16"]),
        ([2**64, 0], [0, 0]),
    ],
)
def test_shape_or_offsets_that_are_no_numbers_in_order(path, shape, offsets):
    header = {"a": {"dtype": "F32", "shape": shape, "data_offsets": offsets}}
    refuse(write_raw(path, header, bytes(16)), "not natural numbers in order")


def test_dimensions_beyond_reason(path):
    refuse(write_raw(path, {"a": entry(shape=[1] * 65, offsets=(0, 4))}, bytes(4)), "65 dimensions")


@pytest.mark.parametrize("shape", [(2, 3), (0,), (2**63, 2**63)])
def test_shape_and_offsets_disagree(path, shape):
    refuse(write_raw(path, {"a": entry(shape=shape)}, bytes(16)), "offsets say 16 bytes")


def test_overlap(path):
    header = {"a": entry(offsets=(0, 16)), "b": entry(offsets=(12, 28))}
    assert refuse(write_raw(path, header, bytes(28)), "overlap at byte").tensor == "b"


def test_hole(path):
    header = {"a": entry(offsets=(0, 16)), "b": entry(offsets=(20, 36))}
    assert refuse(write_raw(path, header, bytes(36)), "hole at byte").tensor == "b"


def test_hole_before_the_first_tensor(path):
    refuse(write_raw(path, {"a": entry(offsets=(4, 20))}, bytes(20)), "hole at byte")


@pytest.mark.parametrize("missing", [1, 15, 16])
def test_truncated_by(path, missing):
    refuse(write_raw(path, {"a": entry()}, bytes(16 - missing)), f"truncated by {missing} bytes")


def test_bytes_after_the_last_tensor(path):
    refuse(write_raw(path, {"a": entry()}, bytes(19)), "3 bytes follow the last tensor")
