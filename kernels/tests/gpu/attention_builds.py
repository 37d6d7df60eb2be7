"""Attention kernels as they are launched, for compilation without a GPU."""

from __future__ import annotations

from ahead_of_time import Case

from rtp_kernels.paged_attention.choice import choose, choose_ragged
from rtp_kernels.paged_attention.plan import Geometry

_STRIDES = dict.fromkeys(("page_stride", "token_stride", "head_stride"), "i32:16")
_TABLES = {
    "rotary": "*fp32",
    "block_tables": "*i32",
    "lengths": "*i32",
    "table_stride": "i32",
    **_STRIDES,
}
_HEADS = dict.fromkeys(("qkv", "q_norm", "k_norm", "k_plane", "v_plane"), "*bf16")


def geometry_of(group=4, dim=128, kv_heads=8, *, block=16, window=None, softcap=None):
    return Geometry(group * kv_heads, kv_heads, dim, block, dim**-0.5, window, softcap)


def decode_case(geometry, rows, new, context, *, rotary=None, tree=False, lse=False, **changes):
    """`decode_rows` for a step; `changes` go over what the table says."""
    picked = choose(geometry, rows, new, context)
    constants = {
        "HEADS": geometry.num_heads,
        "KV_HEADS": geometry.num_kv_heads,
        "DIM": geometry.head_dim,
        "HALF": picked.width // 2,
        "PAGE": geometry.block_size,
        "ROTARY": geometry.head_dim if rotary is None else rotary,
        "NEW": new,
        "ROWS": picked.query_rows,
        "TILES": picked.tiles,
        "TILE": picked.tile,
        "SPLITS": picked.splits,
        "STAGES": picked.stages,
        "WINDOW": geometry.window or 0,
        "SOFTCAP": geometry.softcap or 0.0,
        "NORM": True,
        "TREE": tree,
        "WRITES": True,
        "LSE": lse,
        "EARLY": picked.early,
        "PDL": True,
    }
    types = {
        **_HEADS,
        **_TABLES,
        "depths": "*i32",
        "ancestors": "*i32",
        "writes": "*i8",
        "out": "*bf16",
        "lse": "*fp32",
        "partial": "*fp32",
        "stats": "*fp32",
        "counters": "*i32",
        "scale": "fp32",
        "eps": "fp32",
    }
    warps = changes.pop("warps", picked.warps)
    module = "rtp_kernels.paged_attention.decode"
    return Case(module, "decode_rows", types, {**constants, **changes}, warps, picked.stages)


def ragged_case(geometry, *, lse=False, **changes):
    """`attend_rows`."""
    picked = choose_ragged(geometry)
    constants = {
        "HEADS": geometry.num_heads,
        "KV_HEADS": geometry.num_kv_heads,
        "DIM": geometry.head_dim,
        "WIDE": picked.width,
        "PAGE": geometry.block_size,
        "BLOCK": picked.block,
        "TILE": picked.tile,
        "STAGES": picked.stages,
        "WINDOW": geometry.window or 0,
        "SOFTCAP": geometry.softcap or 0.0,
        "LSE": lse,
        "PDL": True,
    }
    types = {name: _HEADS[name] for name in ("qkv", "k_plane", "v_plane")}
    types |= {name: type_ for name, type_ in _TABLES.items() if name != "rotary"}
    types |= {"starts": "*i32", "out": "*bf16", "lse": "*fp32", "scale": "fp32", "rows": "i32"}
    warps = changes.pop("warps", picked.warps)
    module = "rtp_kernels.paged_attention.ragged"
    return Case(module, "attend_rows", types, {**constants, **changes}, warps, picked.stages)


def store_case(geometry, *, rotary=None, norm=True):
    """`store_heads`."""
    width = 1 << (geometry.head_dim - 1).bit_length()
    constants = {
        "HEADS": geometry.num_heads,
        "KV_HEADS": geometry.num_kv_heads,
        "DIM": geometry.head_dim,
        "HALF": width // 2,
        "PAGE": geometry.block_size,
        "ROTARY": geometry.head_dim if rotary is None else rotary,
        "CHUNK": 16,
        "NORM": norm,
        "DEPTHS": False,
        "WRITES": True,
        "PDL": True,
    }
    types = {**_HEADS, **_TABLES, "starts": "*i32", "depths": "*i32", "writes": "*i8"}
    types |= {"eps": "fp32", "rows": "i32"}
    return Case("rtp_kernels.paged_attention.ragged", "store_heads", types, constants)
