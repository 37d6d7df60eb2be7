"""Compilations are looked up by all that Triton specialises on."""

from __future__ import annotations

import pytest
import torch
from triton import knobs

from rtp_kernels.gpu import launch
from rtp_kernels.gpu.launch import enqueue


class Compiled:
    def __init__(self, kernel, keywords):
        self.kernel, self.keywords = kernel, keywords

    def __getitem__(self, grid):
        return lambda *arguments: self.kernel.calls.append(("known", grid, arguments))


class Kernel:
    """Stands for a jitted function: compiles for each launch that is not known."""

    arg_names = ("x", "out", "count", "scale", "BLOCK", "FLAG")

    def __init__(self, dry=False):
        self.calls = []
        self.dry = dry

    def warmup(self, *arguments, grid, **keywords):
        self.calls.append(("compiled", grid, arguments))

    def __getitem__(self, grid):
        def run(*arguments, **keywords):
            self.calls.append(("new", grid, arguments))
            return None if self.dry else Compiled(self, keywords)

        return run


@pytest.fixture(autouse=True)
def as_on_a_device(monkeypatch):
    monkeypatch.setattr(launch, "_compiled", {})
    monkeypatch.setattr(knobs.runtime, "interpret", False)


def tensor(offset=0, dtype=torch.float32):
    return torch.zeros(64, dtype=dtype)[offset:]


def kinds(kernel):
    return [call[0] for call in kernel.calls]


def test_alike_launches_share_a_compilation_and_pass_their_own_arguments():
    kernel = Kernel()
    first, second = (tensor(), tensor(), 5, 0.5), (tensor(4), tensor(), 7, 2.0)
    enqueue(kernel, (3,), *first, BLOCK=16, FLAG=True, num_warps=4)
    enqueue(kernel, (9, 2), *second, BLOCK=16, FLAG=True, num_warps=4)
    assert kinds(kernel) == ["new", "known"]
    _, grid, arguments = kernel.calls[1]
    assert grid[:2] == (9, 2)
    assert grid[2] == 1
    assert all(a is b for a, b in zip(arguments[:4], second, strict=True))
    assert arguments[4:] == (16, True)


def test_constants_follow_the_kernel_s_order_whatever_the_call_s():
    kernel = Kernel()
    for _ in range(2):
        enqueue(kernel, (1,), tensor(), tensor(), 5, 0.5, num_warps=1, FLAG=False, BLOCK=32)
    assert kernel.calls[1][2][4:] == (32, False)


@pytest.mark.parametrize(
    "changed",
    [
        {"x": tensor(1)},  # another alignment
        {"x": tensor(dtype=torch.float16)},
        {"x": None},
        {"count": 1},
        {"count": 16},
        {"count": 2**31},
        {"BLOCK": 32},
        {"num_warps": 8},
    ],
)
def test_what_triton_tells_apart_is_told_apart(changed):
    base = {"x": tensor(), "out": tensor(), "count": 5, "scale": 0.5, "BLOCK": 16, "FLAG": True}
    kernel = Kernel()
    for one in (base | {"num_warps": 4}, base | {"num_warps": 4} | changed):
        arguments = [one.pop(name) for name in ("x", "out", "count", "scale")]
        enqueue(kernel, (1,), *arguments, **one)
    assert kinds(kernel) == ["new", "new"]


def test_kernels_are_told_apart():
    one, other = Kernel(), Kernel()
    for kernel in (one, other):
        enqueue(kernel, (1,), tensor(), tensor(), 5, 0.5, BLOCK=16, FLAG=True)
    assert kinds(one) == kinds(other) == ["new"]


def test_a_launch_that_a_dry_run_held_back_is_not_known():
    kernel = Kernel(dry=True)
    for _ in range(2):
        enqueue(kernel, (1,), tensor(), tensor(), 5, 0.5, BLOCK=16, FLAG=True)
    assert kinds(kernel) == ["new", "new"]


def test_nothing_is_launched_while_kernels_are_held_back():
    kernel = Kernel()
    arguments = tensor(), tensor(), 5, 0.5
    enqueue(kernel, (1,), *arguments, BLOCK=16, FLAG=True)
    with launch.holding_back():
        enqueue(kernel, (1,), *arguments, BLOCK=16, FLAG=True)
        enqueue(kernel, (1,), *arguments, BLOCK=16, FLAG=True)
    enqueue(kernel, (1,), *arguments, BLOCK=16, FLAG=True)
    assert kinds(kernel) == ["new", "compiled", "known"]
    with launch.holding_back():
        enqueue(kernel, (1,), *arguments, BLOCK=16, FLAG=True)
        enqueue(kernel, (1,), *arguments, BLOCK=32, FLAG=True)
    assert kinds(kernel) == ["new", "compiled", "known", "compiled", "compiled"]


def test_only_triton_s_own_specialisation_is_refined():
    """Triton's key of a launch is a function of ours: what it tells apart, we do too."""
    from triton._C.libtriton import native_specialize_impl
    from triton.backends.compiler import BaseBackend

    values = [tensor(0), tensor(1), tensor(2), tensor(4), tensor(0, torch.int32), 0, 1, 2, 16, 48,
              -16, 2**31 - 1, 2**31, -(2**31), -(2**31) - 1, 0.0, 1.5, None]  # fmt: skip
    theirs = {}
    for value in values:
        found = native_specialize_impl(BaseBackend, value, False, True, True)
        theirs.setdefault(launch._alike(value), set()).add(found)
    assert all(len(found) == 1 for found in theirs.values())
