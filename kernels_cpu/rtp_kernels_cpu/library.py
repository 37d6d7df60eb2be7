"""The compiled library through ctypes: no Python or torch headers, so one build serves all.

Functions are called with the interpreter lock held. Calls take microseconds to a few
milliseconds; giving the lock away could cost 5 ms each to get it back from a busy thread. Only
those that may take longer are called without it, through `unlocked`.
"""

from __future__ import annotations

import ctypes
from functools import cache
from importlib.resources import as_file, files
from importlib.resources.abc import Traversable

VERSION = 3
"""Of the C interface; `rtp_version` in native/library.cpp."""

_POINTER, _INT, _FLOAT = ctypes.c_void_p, ctypes.c_int32, ctypes.c_float


class WeightDescription(ctypes.Structure):
    """`Weight` of native/operations.h."""

    _fields_ = (
        ("panels", _POINTER),
        ("rows", _INT),
        ("columns", _INT),
        ("bits", _INT),
        ("has_minimum", _INT),
        ("parts", _INT),
    )


class AttentionShape(ctypes.Structure):
    """`AttentionShape` of native/operations.h."""

    _fields_ = (
        ("heads", _INT),
        ("kv_heads", _INT),
        ("dim", _INT),
        ("block_size", _INT),
        ("window", _INT),
        ("scale", _FLOAT),
        ("softcap", _FLOAT),
        ("norm_offset", _FLOAT),
    )


class AttentionPlan(ctypes.Structure):
    """`AttentionPlan` of native/operations.h."""

    _fields_ = (
        ("rows", _POINTER),
        ("tables", _POINTER),
        ("slots", _POINTER),
        ("trees", _POINTER),
        ("cos", _POINTER),
        ("sin", _POINTER),
        ("num_tokens", _INT),
        ("num_rows", _INT),
        ("rotary", _INT),
    )


_SIGNATURES: dict[str, tuple[object, tuple[object, ...]]] = {
    "rtp_level_name": (ctypes.c_char_p, (_INT,)),
    "rtp_level": (ctypes.c_char_p, ()),
    "rtp_use_level": (_INT, (ctypes.c_char_p,)),
    "rtp_prefill_name": (ctypes.c_char_p, (_INT,)),
    "rtp_use_prefill": (_INT, (ctypes.c_char_p,)),
    "rtp_set_threads": (None, (_INT,)),
    "rtp_threads": (_INT, ()),
    "rtp_pool_counters": (None, (_POINTER,)),
    "rtp_linear": (
        _INT,
        # weight, x, tokens; norm, is it float32, eps, offset; bias, residual, out; form, activation
        (
            *(_POINTER, _POINTER, _INT),
            *(_POINTER, _INT, _FLOAT, _FLOAT),
            *(_POINTER, _POINTER, _POINTER),
            *(_INT, _INT),
        ),
    ),
    # x; norm, is it float32, eps; residual, out; rows, columns
    "rtp_norm_rows": (
        None,
        (*(_POINTER,), *(_POINTER, _INT, _FLOAT), *(_POINTER, _POINTER), *(_INT, _INT)),
    ),
    # gate and up, out, activation; rows, width
    "rtp_gate_rows": (None, (_POINTER, _POINTER, _INT, _INT, _INT)),
    "rtp_attention": (
        _INT,
        # shape, plan, qkv; planes, their stride; norms, are they float32, eps; out, lse, phases
        (
            *(_POINTER, _POINTER, _POINTER),
            *(_POINTER, _POINTER, ctypes.c_int64),
            *(_POINTER, _POINTER, _INT, _FLOAT),
            *(_POINTER, _POINTER, _INT),
        ),
    ),
}


@cache
def library() -> ctypes.PyDLL:
    """The loaded library. Raises OSError if it is missing, broken or of another version."""
    with as_file(_resource()) as path:
        loaded = ctypes.PyDLL(str(path))
    if (found := loaded.rtp_version()) != VERSION:
        raise OSError(
            f"the compiled library has interface {found}, this package {VERSION}: "
            "reinstall rtp-kernels-cpu"
        )
    _describe(loaded)
    return loaded


@cache
def unlocked() -> ctypes.CDLL:
    """The same library, to be called without the interpreter lock."""
    loaded = ctypes.CDLL(library()._name)
    _describe(loaded)
    return loaded


def _resource() -> Traversable:
    resource = files("rtp_kernels_cpu").joinpath("native.so")
    if not resource.is_file():
        raise OSError("the compiled library is missing: reinstall rtp-kernels-cpu")
    return resource


def _describe(loaded: ctypes.CDLL) -> None:
    for name, (result, arguments) in _SIGNATURES.items():
        function = getattr(loaded, name)
        function.restype, function.argtypes = result, arguments


def set_threads(threads: int) -> None:
    """Threads a call may use, the caller's included. Raises ValueError below 1."""
    if threads < 1:
        raise ValueError(f"threads must be at least 1, not {threads}")
    library().rtp_set_threads(threads)


def threads() -> int:
    """Threads a call may use."""
    return library().rtp_threads()


def levels() -> tuple[str, ...]:
    """Instruction sets this processor can run, best first; the last is "scalar"."""
    names = []
    while (name := library().rtp_level_name(len(names))) is not None:
        names.append(name.decode())
    return tuple(names)


def level() -> str:
    """The instruction set in use."""
    return library().rtp_level().decode()


def use_level(name: str) -> None:
    """Use an instruction set other than the best, in the whole process. Raises ValueError."""
    if library().rtp_use_level(name.encode()):
        raise ValueError(f"no instruction set {name!r} here; there are {', '.join(levels())}")


def prefill_kernels() -> tuple[str, ...]:
    """Kernels for rows with many new tokens that this processor can run, best first."""
    names = []
    while (name := library().rtp_prefill_name(len(names))) is not None:
        names.append(name.decode())
    return tuple(names)


def use_prefill_kernel(name: str) -> None:
    """Use another than the best, or none with "", in the whole process. Raises ValueError."""
    if library().rtp_use_prefill(name.encode()):
        raise ValueError(
            f"no prefill kernel {name!r} here; there are {', '.join(prefill_kernels()) or 'none'}"
        )


def pool_counters() -> tuple[int, int]:
    """Since the start of the process: calls shared with workers, stalls seen."""
    counters = (ctypes.c_int64 * 2)()
    library().rtp_pool_counters(counters)
    return counters[0], counters[1]
