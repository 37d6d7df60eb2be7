"""Parts of a tensor come in any order, over any files; what waits takes little memory."""

from __future__ import annotations

import random
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

sys.path.insert(0, str(Path(__file__).parent))
import quantized_files as files

from rtp_core.api import ParameterSpec, TensorInfo, WeightPlan, WeightRule
from rtp_core.errors import WeightLoadError
from rtp_core.loading.gathering import Gathering
from rtp_core.loading.quantized import awq, fp8, gptq
from rtp_core.loading.quantized.stored import Stored
from rtp_core.loading.quantized.tensor import CODES, PartPlacement
from rtp_core.loading.sink import TensorSink

NAMES = {torch.float16: "F16", torch.float32: "F32", torch.int32: "I32",
         torch.float8_e4m3fn: "F8_E4M3"}  # fmt: skip
FORMATS = {
    "awq": (files.awq, awq.read, files.awq_config()),
    "gptq": (files.gptq, gptq.read, files.gptq_config()),
    "fp8": (partial(files.fp8, block=(16, 16)), fp8.read, files.fp8_config((16, 16))),
}


def prepared(kind, count=4, dtype="float32", rows=32, columns=64):
    """(plan, bytes by part, the weights meant): `count` modules stacked in one parameter."""
    make, read, config = FORMATS[kind]
    rng = np.random.default_rng(count)
    stored, meant, data = Stored({}), [], {}
    for number in range(count):
        parts, meaning = make(rng.normal(size=(rows, columns)).astype(np.float32))
        meant.append(torch.from_numpy(meaning))
        for name, part in parts.items():
            full = f"m{number}.{name}"
            size = part.numel() * part.element_size()
            stored.tensors[full] = TensorInfo(
                full, f"file{len(data) % 3}", 0, size, tuple(part.shape), NAMES[part.dtype]
            )
            data[full] = part.contiguous().view(-1).view(torch.uint8).numpy().tobytes()
    read(config, stored)
    placements = [
        PartPlacement(
            part, WeightRule(whole.name, "w", rows * number, rows), part=name, whole=whole
        )
        for number, whole in enumerate(stored.tensors.values())
        for name, part in whole.parts.items()
    ]
    shape = (rows * count, columns)
    parameter = ParameterSpec("w", shape, dtype, linear=True)
    return WeightPlan((parameter,), tuple(placements), {}), data, torch.cat(meant)


def place(sink, placement, data):
    """From a buffer that is overwritten at once."""
    buffer = bytearray(data[placement.tensor.name])
    sink.place(placement, memoryview(buffer))
    buffer[:] = b"\xff" * len(buffer)


@settings(max_examples=60, deadline=None)
@given(
    st.sampled_from(sorted(FORMATS)),
    st.sampled_from(["float32", "bfloat16"]),
    st.booleans(),
    st.randoms(use_true_random=False),
)
def test_any_order_gives_the_same_weights(kind, dtype, keep_codes, shuffle):
    plan, data, meant = prepared(kind, dtype=dtype)
    placements = list(plan.placements)
    shuffle.shuffle(placements)
    sink = TensorSink(plan, "cpu", keep_codes=keep_codes)
    for placement in placements:
        place(sink, placement, data)
    found = sink.parameters()["w"]
    dense = found.dense if keep_codes and kind != "fp8" else found
    assert torch.equal(dense, meant.to(dense.dtype))


@pytest.mark.parametrize("kind", FORMATS)
def test_any_threads_give_the_same_weights(kind):
    for seed in range(10):
        plan, data, meant = prepared(kind, 8)
        placements = list(plan.placements)
        random.Random(seed).shuffle(placements)
        sink = TensorSink(plan, "cpu")
        start = threading.Barrier(4)

        def bring(mine, sink=sink, data=data, start=start):
            start.wait()
            for placement in mine:
                place(sink, placement, data)

        with ThreadPoolExecutor(4) as pool:
            list(pool.map(bring, [placements[number::4] for number in range(4)]))
        assert torch.equal(sink.parameters()["w"], meant)


def test_only_small_parts_take_memory_while_they_wait():
    """The order of a safetensors file: all codes, then all else. Codes wait where they belong."""
    plan, data, _ = prepared("awq", 20)
    gathering, out = Gathering(), torch.empty(20 * 32, 64)
    order = sorted(plan.placements, key=lambda one: one.part != CODES)
    small = sum(one.tensor.num_bytes for one in order if one.part != CODES)
    most = 0
    for placement in order:
        raw = torch.frombuffer(bytearray(data[placement.tensor.name]), dtype=torch.uint8)
        at = placement.rule.row_offset
        gathering.add(placement, raw, out[at : at + 32])
        most = max(most, gathering.held_bytes)
    assert 0 < most <= small
    assert gathering.held_bytes == 0


def test_what_is_complete_is_released_at_once():
    """Neighbouring parts: never more than one tensor's small parts."""
    plan, data, _ = prepared("gptq", 20)
    gathering, out = Gathering(), torch.empty(20 * 32, 64)
    one_tensor = sum(p.tensor.num_bytes for p in plan.placements if p.part != CODES) // 20
    for placement in plan.placements:
        raw = torch.frombuffer(bytearray(data[placement.tensor.name]), dtype=torch.uint8)
        at = placement.rule.row_offset
        gathering.add(placement, raw, out[at : at + 32])
        assert gathering.held_bytes <= one_tensor
    assert gathering.held_bytes == 0


def test_a_part_left_out_names_the_parameter():
    plan, data, _ = prepared("awq")
    sink = TensorSink(plan, "cpu")
    for placement in plan.placements[1:]:
        place(sink, placement, data)
    with pytest.raises(WeightLoadError, match="the loader left out w"):
        sink.parameters()


def test_a_part_placed_twice():
    plan, data, _ = prepared("awq")
    sink = TensorSink(plan, "cpu")
    place(sink, plan.placements[0], data)
    with pytest.raises(WeightLoadError, match=r"m0\.qweight: placed twice"):
        place(sink, plan.placements[0], data)


def test_a_part_of_another_number_of_bytes():
    plan, _, _ = prepared("awq")
    with pytest.raises(WeightLoadError, match="3 bytes arrived, 1024 belong to it"):
        TensorSink(plan, "cpu").place(plan.placements[0], memoryview(bytearray(3)))
