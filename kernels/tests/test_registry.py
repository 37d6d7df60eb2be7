"""Which implementation serves whom."""

from __future__ import annotations

import importlib

import pytest

from rtp_kernels import registry


@pytest.mark.parametrize("operation", registry.OPERATIONS)
def test_every_operation_has_a_definition_for_any_device(operation):
    bound = registry.resolve(operation, "a-device-of-tomorrow", "float32")
    calls = [bound.decode, bound.ragged] if operation == "step_attention" else [bound]
    assert all(map(callable, calls))


def test_the_cpu_form_wins_on_a_cpu_only():
    cpu = importlib.import_module("rtp_kernels.paged_attention.cpu")
    reference = importlib.import_module("rtp_kernels.paged_attention.reference")
    assert registry.resolve("paged_attention", "cpu", "bfloat16") is cpu.bind("bfloat16")
    assert registry.resolve("paged_attention", "cpu", "float32") is cpu.bind("float32")
    assert registry.resolve("paged_attention", "cuda", "float32") is reference.paged_attention


def test_a_misspelt_operation_is_answered_with_the_nearest_name():
    with pytest.raises(LookupError, match="did you mean 'norm_linear'"):
        registry.resolve("norm_liner", "cpu", "float32")


def test_a_name_like_nothing_gets_no_guess():
    with pytest.raises(LookupError, match=r"'qqqq' for cpu$"):
        registry.resolve("qqqq", "cpu", "float32")


def test_resolver_fills_in_device_and_dtype():
    bound = registry.resolver("cpu", "float32")
    assert bound("embed") is registry.resolve("embed", "cpu", "float32")
