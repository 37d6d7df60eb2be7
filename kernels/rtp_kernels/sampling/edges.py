"""Edges of a distribution without sorting it: bits of the answer, highest first.

Floats become unsigned integers in the same order (the radix sort's trick); the edge is then the
largest integer that still has enough above it, found bit by bit with one sum over the block a bit.
"""

# ruff: noqa: ANN001, ANN201 - device code
# pyright: reportArgumentType=false, reportAttributeAccessIssue=false, reportCallIssue=false
# pyright: reportGeneralTypeIssues=false, reportIndexIssue=false, reportOperatorIssue=false

from __future__ import annotations

import triton
from triton import language as tl


@triton.jit
def ordered(values):
    """uint32 keys of float32 values, in their order; never 0 for a number, and 0.0 == -0.0."""
    bits = tl.where(values == 0.0, 0.0, values).to(tl.int32, bitcast=True)
    flipped = bits ^ ((bits >> 31) & 0x7FFFFFFF)
    return (flipped ^ (-2147483648)).to(tl.uint32, bitcast=True)


@triton.jit
def value_of(key):
    """The float32 that `ordered` made `key` of."""
    flipped = key.to(tl.int32, bitcast=True) ^ (-2147483648)
    return (flipped ^ ((flipped >> 31) & 0x7FFFFFFF)).to(tl.float32, bitcast=True)


@triton.jit
def by_count(keys, wanted):
    """The `wanted`-th largest of `keys`, or 0 when there are fewer. Keys of 0 do not count."""
    edge = tl.full([], 0, tl.uint32)
    step = tl.full([], 0x80000000, tl.uint32)
    for _ in range(32):
        trial = edge | step
        enough = tl.sum((keys >= trial).to(tl.int32)) >= wanted
        edge = tl.where(enough, trial, edge)
        step = step >> 1
    return edge


@triton.jit
def by_mass(keys, weights, wanted):
    """The largest key with a mass of `wanted` at and above it, or 0 when there is less."""
    edge = tl.full([], 0, tl.uint32)
    step = tl.full([], 0x80000000, tl.uint32)
    for _ in range(32):
        trial = edge | step
        enough = tl.sum(tl.where(keys >= trial, weights, 0.0)) >= wanted
        edge = tl.where(enough, trial, edge)
        step = step >> 1
    return edge


@triton.jit
def lowest(ids, chosen, wanted):
    """bool like `chosen`: the `wanted` lowest ids of those chosen. Ids are distinct, below 2^30."""
    bound = tl.full([], 0, tl.int32)
    step = tl.full([], 1 << 30, tl.int32)
    for _ in range(31):
        trial = bound | step
        few = tl.sum((chosen & (ids < trial)).to(tl.int32)) <= wanted
        bound = tl.where(few, trial, bound)
        step = step >> 1
    return chosen & (ids < bound)
