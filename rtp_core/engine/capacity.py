"""How much memory the KV cache gets, decided before any weight is read."""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

from rtp_core.api import EngineLimits, KVGroup, KVStore, ParameterSpec
from rtp_core.config.schema import EngineConfig
from rtp_core.errors import CapacityError
from rtp_core.kv.cache import blocks_in_sight

_DEFAULT_BYTES = 512 * 2**20
_LARGEST_SHARE = 0.5
_FEWEST = 2
DEVICE_SHARE = 0.9
"""Of a GPU's memory, for weights, work space and cache together, if kv.memory is unset."""
_DTYPE_BYTES = {"float32": 4, "bfloat16": 2, "float16": 2}


@dataclass(frozen=True, slots=True)
class CacheBudget:
    """`num_blocks` a KV group."""

    num_blocks: tuple[int, ...]
    num_bytes: int
    block_size: int
    reason: str


def available_bytes(meminfo: Path = Path("/proc/meminfo")) -> int:
    """Memory the system says can be used without swapping."""
    for line in meminfo.read_text().splitlines():
        if line.startswith("MemAvailable:"):
            return int(line.split()[1]) * 1024
    return 4 * 2**30


def weight_bytes(parameters: Iterable[ParameterSpec]) -> int:
    """Bytes of all parameters, dense."""
    return sum(math.prod(one.shape) * _DTYPE_BYTES[one.dtype] for one in parameters)


def plan_cache(
    config: EngineConfig,
    groups: Sequence[KVGroup],
    store: KVStore,
    limits: EngineLimits,
    free_bytes: int,
    weights_bytes: int,
) -> CacheBudget:
    """Blocks for the cache out of what the weights leave of the free memory.

    Raises CapacityError when one full-length request cannot fit.
    """
    room = free_bytes - weights_bytes
    demands = [_demand(group, groups, store, limits) for group in groups]
    longest_bytes = sum(one.longest * one.block_bytes for one in demands)
    wanted, reason = _wanted_bytes(config.kv.memory, longest_bytes, room)
    if wanted > room:
        raise CapacityError(
            f"the KV cache wants {_mib(wanted)} and the weights {_mib(weights_bytes)}, but only "
            f"{_mib(free_bytes)} of memory are available",
            remedy=f"lower --max-model-len (now {limits.max_model_len}) or kv.memory",
        )
    return _budget(wanted, reason, demands, limits)


class DeviceMemory(NamedTuple):
    """Bytes of a GPU: all, those that weights and other users take, and those a step works in."""

    total: int
    taken: int
    workspace: int


def plan_device_cache(
    config: EngineConfig,
    groups: Sequence[KVGroup],
    store: KVStore,
    limits: EngineLimits,
    memory: DeviceMemory,
) -> CacheBudget:
    """Blocks for the cache out of a GPU's memory. Raises CapacityError, as `plan_cache`."""
    setting = config.kv.memory
    demands = [_demand(group, groups, store, limits) for group in groups]
    longest_bytes = sum(one.longest * one.block_bytes for one in demands)
    share = DEVICE_SHARE if setting == 0.0 else min(setting, 1.0)
    room = int(memory.total * share) - memory.taken - memory.workspace
    wanted, reason = room, f"{share:g} of the GPU's {_mib(memory.total)}"
    if setting > 1.0:
        wanted, reason = int(setting), "kv.memory, bytes"
    if wanted > room or wanted < longest_bytes:
        raise CapacityError(
            f"of the GPU's {_mib(memory.total)}, a share of {share:g}, weights take "
            f"{_mib(memory.taken)} and steps {_mib(memory.workspace)}; the KV cache wants "
            f"{_mib(max(wanted, longest_bytes))} and {_mib(max(room, 0))} are left",
            remedy=f"set kv.memory to {longest_bytes} bytes or more, {room} at most"
            if setting > 1.0 and longest_bytes <= room
            else _what_fits(groups, store, limits, room, memory),
        )
    return _budget(wanted, reason, demands, limits)


def _what_fits(
    groups: Sequence[KVGroup],
    store: KVStore,
    limits: EngineLimits,
    room: int,
    memory: DeviceMemory,
) -> str:
    """What to change, with the number that is known to suffice, if there is one."""
    length = _longest_text(groups, store, limits, room)
    if length:
        return (
            f"--max-model-len {length} fits, now it is {limits.max_model_len}; or raise "
            "--gpu-memory-utilization, or serve a smaller model"
        )
    if room + memory.workspace > 0:
        return (
            f"lower --max-num-batched-tokens (now {limits.max_num_batched_tokens}) or "
            f"--max-num-seqs (now {limits.max_num_seqs}), raise --gpu-memory-utilization, or "
            "serve a smaller model"
        )
    return (
        "the weights alone do not fit: serve a smaller model or use a GPU with more memory; if "
        "other programs are on it, end them"
    )


def _longest_text(
    groups: Sequence[KVGroup], store: KVStore, limits: EngineLimits, room: int
) -> int:
    """The largest max_model_len, in whole blocks, of which one request fits into `room` bytes."""

    def cost(blocks: int) -> int:
        shorter = replace(limits, max_model_len=blocks * limits.block_size)
        demands = (_demand(group, groups, store, shorter) for group in groups)
        return sum(one.longest * one.block_bytes for one in demands)

    most = range(limits.max_model_len // limits.block_size + 1)
    return max(0, bisect_right(most, room, key=cost) - 1) * limits.block_size


def _budget(
    wanted: int, reason: str, demands: Sequence[_Demand], limits: EngineLimits
) -> CacheBudget:
    num_blocks = _share(wanted, demands)
    if min(num_blocks) < _FEWEST:
        sizes = " + ".join(str(one.block_bytes) for one in demands)
        raise CapacityError(
            f"kv.memory of {_mib(wanted)} holds {min(num_blocks)} blocks of {sizes} bytes",
            remedy="raise kv.memory",
        )
    num_bytes = sum(count * one.block_bytes for count, one in zip(num_blocks, demands, strict=True))
    return CacheBudget(num_blocks, num_bytes, limits.block_size, reason)


class _Demand(NamedTuple):
    """Of one KV group: blocks that one full-length request holds, and that all can use."""

    block_bytes: int
    longest: int
    most: int


def _demand(
    group: KVGroup, groups: Sequence[KVGroup], store: KVStore, limits: EngineLimits
) -> _Demand:
    """A window group beside one that keeps everything needs only what queries see."""
    size, window = limits.block_size, group.sliding_window
    block_bytes = store.block_bytes(group, size)
    longest = -(-limits.max_model_len // size) + 1
    most = limits.max_num_seqs * longest
    if window is None:
        return _Demand(block_bytes, longest, most)
    chunk = limits.max_num_batched_tokens
    if any(one.sliding_window is None for one in groups):
        seen = limits.max_num_seqs * blocks_in_sight(window, 1, size)
        most = min(most, seen + -(-chunk // size))
    return _Demand(block_bytes, min(longest, blocks_in_sight(window, chunk, size)), most)


def _share(num_bytes: int, demands: Sequence[_Demand]) -> tuple[int, ...]:
    """The same number of blocks for every group, as many as fit, with two exceptions.

    No group gets more than it can use, nor, if it can be had, less than one full-length request.
    """
    enough = num_bytes >= sum(one.longest * one.block_bytes for one in demands)

    def counts(num_blocks: int) -> tuple[int, ...]:
        least = [one.longest if enough else 0 for one in demands]
        return tuple(
            min(max(num_blocks, low), one.most) for low, one in zip(least, demands, strict=True)
        )

    def cost(num_blocks: int) -> int:
        wanted = zip(counts(num_blocks), demands, strict=True)
        return sum(count * one.block_bytes for count, one in wanted)

    steps = range(max(one.most for one in demands) + 1)
    return counts(bisect_right(steps, num_bytes, key=cost) - 1)


def _wanted_bytes(setting: float, longest_bytes: int, room: int) -> tuple[int, str]:
    if setting > 1.0:
        return int(setting), "kv.memory, bytes"
    if setting > 0.0:
        return max(0, int(room * setting)), "kv.memory, share of free memory"
    floor = max(_DEFAULT_BYTES, longest_bytes)
    bound = int(room * _LARGEST_SHARE)
    return max(min(floor, bound), longest_bytes), "one full-length request, at least 512 MiB"


def _mib(num_bytes: int) -> str:
    return f"{num_bytes / 2**20:.0f} MiB"
