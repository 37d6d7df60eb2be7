"""How much memory the KV cache gets, decided before any weight is read."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from rtp_core.api import EngineLimits, KVGroup, KVStore, ModelSpec
from rtp_core.config.schema import EngineConfig
from rtp_core.errors import CapacityError

_DEFAULT_BYTES = 512 * 2**20
_LARGEST_SHARE = 0.5
_DTYPE_BYTES = {"float32": 4, "bfloat16": 2, "float16": 2}


@dataclass(frozen=True, slots=True)
class CacheBudget:
    """`num_blocks` a KV group, all groups sized for the same number of tokens."""

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


def weight_bytes(spec: ModelSpec) -> int:
    """Bytes of the parameters in the run dtype, estimated from the shape unless counted."""
    if spec.num_parameters:
        return spec.num_parameters * _DTYPE_BYTES[spec.dtype]
    heads = spec.num_heads + 2 * spec.num_kv_heads
    attention = spec.hidden_size * spec.head_dim * (heads + spec.num_heads)
    mlp = 3 * spec.hidden_size * spec.intermediate_size
    tables = spec.vocab_size * spec.hidden_size * (1 if spec.tied_head else 2)
    return (spec.num_layers * (attention + mlp) + tables) * _DTYPE_BYTES[spec.dtype]


def plan_cache(
    config: EngineConfig,
    spec: ModelSpec,
    store: KVStore,
    limits: EngineLimits,
    free_bytes: int,
) -> CacheBudget:
    """Blocks for the cache. Raises CapacityError when one full-length request cannot fit."""
    per_block = _bytes_per_block(store, spec.kv_groups, limits.block_size)
    longest = -(-limits.max_model_len // limits.block_size) + 1
    room = free_bytes - weight_bytes(spec)
    wanted, reason = _wanted_bytes(config.kv.memory, longest * per_block, room)
    num_blocks = wanted // per_block
    most = limits.max_num_seqs * longest
    num_blocks = min(num_blocks, most)
    if wanted > room:
        raise CapacityError(
            f"the KV cache wants {_mib(wanted)} and the weights {_mib(weight_bytes(spec))}, but "
            f"only {_mib(free_bytes)} of memory are available",
            remedy=f"lower --max-model-len (now {limits.max_model_len}) or kv.memory",
        )
    if num_blocks < 2:
        raise CapacityError(
            f"kv.memory of {_mib(wanted)} holds {num_blocks} blocks of {per_block} bytes",
            remedy="raise kv.memory",
        )
    blocks = tuple(num_blocks for _ in spec.kv_groups)
    return CacheBudget(blocks, num_blocks * per_block, limits.block_size, reason)


def _wanted_bytes(setting: float, longest_bytes: int, room: int) -> tuple[int, str]:
    if setting > 1.0:
        return int(setting), "kv.memory, bytes"
    if setting > 0.0:
        return max(0, int(room * setting)), "kv.memory, share of free memory"
    floor = max(_DEFAULT_BYTES, longest_bytes)
    bound = int(room * _LARGEST_SHARE)
    return max(min(floor, bound), longest_bytes), "one full-length request, at least 512 MiB"


def _bytes_per_block(store: KVStore, groups: Sequence[KVGroup], block_size: int) -> int:
    return sum(store.block_bytes(group, block_size) for group in groups)


def _mib(num_bytes: int) -> str:
    return f"{num_bytes / 2**20:.0f} MiB"
