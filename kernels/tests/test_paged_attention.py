"""Paged attention: the definition against dense attention, the CPU forms against it."""

from __future__ import annotations

import random

import pytest
import torch
from torch.nn import functional

from rtp_kernels.paged_attention.plan import (
    KEY_TILE,
    AttentionPlan,
    Batch,
    Geometry,
    Row,
    ancestor_mask,
    consecutive,
    key_index,
    num_unseen,
    row_keys,
    slot_of,
)
from rtp_kernels.paged_attention.reference import visible
from rtp_kernels.paged_attention.rotary import rotary_tables, rotate
from rtp_kernels.registry import resolve

BLOCK = 16
SLOTS = 96 * BLOCK
TOLERANCE = {"float32": (2e-5, 1e-4), "bfloat16": (3e-2, 3e-2)}


def geometry_of(group=3, dim=64, kv_heads=2, window=None, softcap=None):
    return Geometry(group * kv_heads, kv_heads, dim, BLOCK, dim**-0.5, window, softcap)


def normal(*shape, dtype="float32", seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, generator=generator).to(getattr(torch, dtype))


def planes_of(geometry, dtype, seed=5):
    """Filled memory, cut out of a larger tensor so that heads are not adjacent."""
    shape = (geometry.num_kv_heads, SLOTS + 7, geometry.head_dim)
    return tuple(normal(*shape, dtype=dtype, seed=seed + k)[:, :SLOTS] for k in range(2))


def plan_of(rows, dtype, *, rotary_dim=64, batch=False, window=None, unit=None):
    """With a `unit`, keys that no query sees are left out in multiples of it."""
    positions, slots, writers, keys, begin = [], [], [], [], 0
    for row in rows:
        skip = num_unseen(row.start, window, unit) if unit else 0
        keys.append(row_keys(row, begin, BLOCK, "cpu", skip))
        for number in range(row.num_new):
            positions.append(row.start + number)
            if row.writes:
                slots.append(slot_of(row.blocks, row.start + number, BLOCK))
                writers.append(begin + number)
        begin += row.num_new
    inv_freq = 10000.0 ** (-torch.arange(0, rotary_dim, 2) / rotary_dim)
    cos, sin = rotary_tables(inv_freq, torch.tensor(positions), getattr(torch, dtype))
    return AttentionPlan(
        num_tokens=begin,
        rows=() if batch else tuple(keys),
        slots=torch.tensor(slots, dtype=torch.int64),
        first_slot=slots[0] if slots and slots == list(range(slots[0], slots[0] + begin)) else -1,
        writers=None if len(writers) == begin else torch.tensor(writers, dtype=torch.int64),
        cos=cos,
        sin=sin,
        batch=batch_of(rows, dtype) if batch else None,
    )


def batch_of(rows, dtype):
    width = max(row.start + 1 for row in rows)
    index = torch.zeros(len(rows), width, dtype=torch.int64)
    bias = torch.zeros(len(rows), 1, 1, width, dtype=getattr(torch, dtype))
    for number, row in enumerate(rows):
        length = row.start + 1
        index[number, :length] = key_index(row.blocks, length, BLOCK, "cpu")[:length]
        bias[number, :, :, length:] = float("-inf")
    return Batch(index.flatten(), bias, width)


def table(length, first):
    return list(range(first, first - (-length // BLOCK)))


def scattered(length, seed=1, low=40, high=96):
    return random.Random(seed).sample(range(low, high), -(-length // BLOCK))


def qkv_for(plan, geometry, dtype, seed=9):
    heads = geometry.num_heads + 2 * geometry.num_kv_heads
    return normal(plan.num_tokens, heads * geometry.head_dim, dtype=dtype, seed=seed)


def run(
    device,
    dtype,
    rows,
    geometry,
    *,
    qkv=None,
    planes=None,
    norms=None,
    lse=False,
    batch=False,
    unit=None,
):
    """(out, planes after, lse or None) of one call."""
    plan = plan_of(
        rows,
        dtype,
        batch=batch,
        rotary_dim=geometry.head_dim,
        window=geometry.window,
        unit=unit,
    )
    qkv = qkv_for(plan, geometry, dtype) if qkv is None else qkv
    planes = planes_of(geometry, dtype) if planes is None else planes
    logs = torch.full((plan.num_tokens, geometry.num_heads), torch.nan) if lse else None
    attend = resolve("paged_attention", device, dtype)
    kept = qkv.clone()
    out = attend(qkv, planes, plan, geometry, norms, logs)
    assert torch.equal(qkv, kept)
    return out, planes, logs


ROWS = {
    "one token of one": [Row(0, 1, [3])],
    "decode": [Row(40, 1, table(41, 2))],
    "decode, long": [Row(600, 1, table(601, 2))],
    "decode, scattered": [Row(200, 1, scattered(201))],
    "block just full": [Row(31, 1, table(32, 4))],
    "prefill": [Row(0, 37, table(37, 1))],
    "prefill past a query block": [Row(0, 150, table(150, 1))],
    "chunk after a past": [Row(133, 70, scattered(203))],
    "drafts": [Row(50, 5, table(55, 9))],
    "mixed": [Row(0, 20, table(20, 1)), Row(63, 1, [9, 7, 8, 30]), Row(90, 4, scattered(94))],
    "tree": [Row(21, 6, table(27, 3), [-1, 0, 0, 1, 2, 2])],
    "tree, scattered": [Row(140, 4, scattered(144), [-1, -1, 0, 1]), Row(9, 1, [2])],
    "computes only": [Row(20, 1, table(21, 2), writes=False)],
    "some write": [Row(20, 2, table(22, 2), writes=False), Row(5, 3, [10])],
}


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize(("window", "softcap"), [(None, None), (24, None), (None, 2.0), (24, 2.0)])
@pytest.mark.parametrize("name", ROWS)
def test_cpu_form_equals_the_definition(name, window, softcap, dtype):
    geometry = geometry_of(window=window, softcap=softcap)
    expected, reference_planes, logs = run("any", dtype, ROWS[name], geometry, lse=True)
    got, planes, _ = run("cpu", dtype, ROWS[name], geometry)
    absolute, relative = TOLERANCE[dtype]
    torch.testing.assert_close(got, expected, atol=absolute, rtol=relative)
    assert all(torch.equal(*pair) for pair in zip(planes, reference_planes, strict=True))
    same, _, got_logs = run("cpu", dtype, ROWS[name], geometry, lse=True)
    torch.testing.assert_close(same, expected, atol=absolute, rtol=relative)
    torch.testing.assert_close(got_logs, logs, atol=absolute, rtol=relative)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("dim", [64, 80, 128])
@pytest.mark.parametrize(("group", "kv_heads"), [(1, 3), (3, 2), (8, 1)])
def test_head_ratios_and_sizes(group, kv_heads, dim, dtype):
    geometry = geometry_of(group, dim, kv_heads)
    absolute, relative = TOLERANCE[dtype]
    for name in ("one token of one", "mixed", "prefill past a query block"):
        expected, _, _ = run("any", dtype, ROWS[name], geometry)
        got, _, _ = run("cpu", dtype, ROWS[name], geometry)
        torch.testing.assert_close(got, expected, atol=absolute, rtol=relative)


@pytest.mark.parametrize("group", [1, 3, 8])
@pytest.mark.parametrize("blocks", ["run", "scattered"])
def test_definition_equals_dense_attention(group, blocks):
    geometry = geometry_of(group)
    length, past = 75, 40
    row = Row(past, length - past, table(length, 2) if blocks == "run" else scattered(length))
    plan = plan_of([row], "float32")
    qkv = qkv_for(plan, geometry, "float32")
    out, planes, _ = run("any", "float32", [row], geometry, qkv=qkv)
    order = [slot_of(row.blocks, position, BLOCK) for position in range(length)]
    key, value = (plane[:, order] for plane in planes)
    split = qkv.view(length - past, -1, geometry.head_dim)
    q, k = split[:, : geometry.num_heads], split[:, geometry.num_heads :]
    q = rotate(q, plan.cos, plan.sin).transpose(0, 1)
    k = rotate(k[:, : geometry.num_kv_heads], plan.cos, plan.sin).transpose(0, 1)
    assert torch.equal(key[:, past:], k)
    mask = torch.ones(length - past, length, dtype=torch.bool).tril(past)
    dense = functional.scaled_dot_product_attention(
        q[None], key[None], value[None], attn_mask=mask, enable_gqa=True
    )
    torch.testing.assert_close(out, dense[0].transpose(0, 1).flatten(1), atol=1e-5, rtol=1e-4)


def test_window_hides_older_keys():
    geometry = geometry_of(window=8)
    row = Row(100, 1, table(101, 2))
    planes = planes_of(geometry, "float32")
    near, _, _ = run("any", "float32", [row], geometry, planes=planes)
    first = 2 * BLOCK
    planes[1][:, first : first + 93] += 100.0  # keys 0 … 92; 93 … 100 are visible
    again, _, _ = run("any", "float32", [row], geometry, planes=planes)
    assert torch.equal(near, again)
    planes[1][:, first + 93] += 100.0
    assert not torch.equal(near, run("any", "float32", [row], geometry, planes=planes)[0])


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("window", [1, 24, 100])
@pytest.mark.parametrize("name", ROWS)
def test_keys_nobody_sees_can_be_left_out(name, window, dtype):
    geometry = geometry_of(window=window)
    unit = KEY_TILE if dtype == "float32" else BLOCK
    whole, _, _ = run("cpu", dtype, ROWS[name], geometry)
    for device in ("any", "cpu"):
        got, _, _ = run(device, dtype, ROWS[name], geometry, unit=unit)
        absolute, relative = TOLERANCE[dtype]
        torch.testing.assert_close(got, whole, atol=absolute, rtol=relative)
    assert dtype != "float32" or torch.equal(got, whole)


def test_unseen_keys_are_counted_in_whole_units():
    assert num_unseen(100, None, 16) == 0
    assert num_unseen(100, 101, 1) == 0
    assert num_unseen(100, 100, 1) == 1
    assert num_unseen(100, 1, 1) == 100
    assert num_unseen(100, 24, 16) == 64
    assert num_unseen(3, 24, 16) == 0


def test_a_window_counts_generations_of_a_tree():
    """Slots 20 … 23 hold a chain of two and its two siblings; each sees four keys."""
    row = row_keys(Row(20, 4, [0, 1], [-1, -1, 0, 1]), 0, BLOCK, "cpu")
    mask = visible(row, 4, torch.device("cpu"))
    seen = [line.nonzero().flatten().tolist() for line in mask]
    assert seen == [[17, 18, 19, 20], [17, 18, 19, 21], [18, 19, 20, 22], [18, 19, 21, 23]]


@pytest.mark.parametrize("softcap", [0.3, 5.0])
def test_softcap_limits_scores_before_softmax(softcap):
    geometry = geometry_of(1, kv_heads=1, softcap=softcap)
    row = Row(30, 1, table(31, 2))
    plan = plan_of([row], "float32")
    qkv = qkv_for(plan, geometry, "float32") * 4
    out, planes, _ = run("any", "float32", [row], geometry, qkv=qkv)
    key, value = (plane[0, 2 * BLOCK :][:31] for plane in planes)
    q = rotate(qkv.view(1, 3, 64)[:, :1], plan.cos, plan.sin)[0, 0]
    scores = softcap * torch.tanh(key @ q / 8 / softcap)
    torch.testing.assert_close(out[0], scores.softmax(0) @ value, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_a_row_that_writes_nothing_leaves_the_memory_alone(dtype):
    geometry = geometry_of()
    planes = planes_of(geometry, dtype)
    kept = [plane.clone() for plane in planes]
    run("cpu", dtype, ROWS["computes only"], geometry, planes=planes)
    assert all(torch.equal(*pair) for pair in zip(planes, kept, strict=True))


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_only_the_slots_of_the_new_tokens_are_written(dtype):
    geometry = geometry_of()
    planes = planes_of(geometry, dtype)
    kept = [plane.clone() for plane in planes]
    row = Row(30, 4, scattered(34))
    run("cpu", dtype, [row], geometry, planes=planes)
    written = {slot_of(row.blocks, position, BLOCK) for position in range(30, 34)}
    for plane, before in zip(planes, kept, strict=True):
        changed = (plane != before).any(dim=2).any(dim=0).nonzero().flatten().tolist()
        assert set(changed) == written


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_query_and_key_norms_come_before_the_rotation(dtype):
    geometry = geometry_of()
    norms = (normal(64, dtype=dtype, seed=3), normal(64, dtype=dtype, seed=4), 1e-6)
    expected, there, _ = run("any", dtype, ROWS["mixed"], geometry, norms=norms)
    got, here, _ = run("cpu", dtype, ROWS["mixed"], geometry, norms=norms)
    plain, _, _ = run("cpu", dtype, ROWS["mixed"], geometry)
    absolute, relative = TOLERANCE[dtype]
    torch.testing.assert_close(got, expected, atol=absolute, rtol=relative)
    torch.testing.assert_close(here[0], there[0], atol=absolute, rtol=relative)
    assert not torch.allclose(got, plain, atol=0.1)


@pytest.mark.parametrize("softcap", [None, 2.0])
@pytest.mark.parametrize("lse", [False, True])
@pytest.mark.parametrize("lengths", [(1, 1), (30, 41, 17), (128, 128), (129, 140, 100), (400, 300)])
def test_batched_single_tokens_equal_the_definition(lengths, lse, softcap):
    geometry = geometry_of(softcap=softcap)
    rows = [
        Row(length - 1, 1, scattered(length, seed, 1 + 30 * seed, 30 + 30 * seed))
        for seed, length in enumerate(lengths)
    ]
    expected, _, logs = run("any", "bfloat16", rows, geometry, lse=True)
    for device in ("cpu", "any"):
        got, _, got_logs = run(device, "bfloat16", rows, geometry, lse=lse, batch=True)
        torch.testing.assert_close(got, expected, atol=3e-2, rtol=3e-2)
        if lse:
            torch.testing.assert_close(got_logs, logs, atol=3e-2, rtol=3e-2)


@pytest.mark.parametrize("threads", [1, 2, 3])
@pytest.mark.parametrize(
    ("group", "kv_heads", "window", "softcap"),
    [(3, 3, None, None), (8, 1, 24, None), (1, 2, 1, 2.0), (2, 2, 150, 30.0)],
)
def test_float32_bits_do_not_depend_on_chunks_blocks_or_company(
    group, kv_heads, window, softcap, threads
):
    """Prefill of 200 tokens at once, and in chunks that share steps with another row."""
    geometry = geometry_of(group, kv_heads=kv_heads, window=window, softcap=softcap)
    length, other = 200, Row(0, 9, [95])
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        whole_row = Row(0, length, table(length, 1))
        qkv = qkv_for(plan_of([whole_row], "float32"), geometry, "float32")
        whole, _, logs = run("cpu", "float32", [whole_row], geometry, qkv=qkv, lse=True)
        extra = normal(9, qkv.shape[1], seed=77)
        for chunk in (1, 19, 130):
            planes, at = planes_of(geometry, "float32"), 0
            blocks = scattered(length, chunk, 20, 90)
            begins = range(0, length, chunk) if chunk > 1 else (0, 1, 127, 128, 199)
            if chunk == 1:  # one by one over memory that a whole prefill filled
                run("cpu", "float32", [Row(0, length, blocks)], geometry, qkv=qkv, planes=planes)
            for at in begins:
                end = min(at + chunk, length)
                both = torch.cat((extra, qkv[at:end]))
                rows = [other, Row(at, end - at, blocks)]
                got, _, part = run(
                    "cpu",
                    "float32",
                    rows,
                    geometry,
                    qkv=both,
                    planes=planes,
                    lse=True,
                    unit=KEY_TILE,
                )
                assert torch.equal(got[9:], whole[at:end]), (chunk, at)
                assert torch.equal(part[9:], logs[at:end]), (chunk, at)
    finally:
        torch.set_num_threads(before)


def part_rows(start, num_new, blocks, cut):
    """The keys before `cut` (a block edge) for every new token, and the keys from it on."""
    prefix = [Row(cut - 1, 1, blocks, writes=False) for _ in range(num_new)]
    rest = Row(start - cut, num_new, blocks[cut // BLOCK :])
    return prefix, rest


@pytest.mark.parametrize("device", ["any", "cpu"])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("num_new", [1, 6])
def test_parts_merge_to_full_attention(num_new, device, dtype):
    geometry = geometry_of()
    start, cut = 100, 48
    blocks = scattered(start + num_new)
    full_plan = plan_of([Row(start, num_new, blocks)], dtype)
    qkv = qkv_for(full_plan, geometry, dtype)
    full, planes, logs = run(
        device, dtype, [Row(start, num_new, blocks)], geometry, qkv=qkv, lse=True
    )
    prefix, rest = part_rows(start, num_new, blocks, cut)
    outs, parts = [], []
    for rows in (prefix, [rest]):
        plan = plan_of(rows, dtype)
        turned = AttentionPlan(
            plan.num_tokens, plan.rows, plan.slots, plan.first_slot, plan.writers,
            full_plan.cos, full_plan.sin, None,
        )  # fmt: skip
        lse = torch.empty(num_new, geometry.num_heads)
        attend = resolve("paged_attention", device, dtype)
        outs.append(attend(qkv, planes, turned, geometry, None, lse).view(num_new, -1, 64))
        parts.append(lse)
    merge = resolve("merge_attention", device, dtype)
    got, total = merge(torch.stack(outs), torch.stack(parts))
    absolute, relative = TOLERANCE[dtype]
    torch.testing.assert_close(got.flatten(1), full, atol=absolute, rtol=relative)
    torch.testing.assert_close(total, logs, atol=absolute, rtol=relative)
    assert got.dtype == full.dtype


class TestMerge:
    merge = staticmethod(resolve("merge_attention", "cpu", "float32"))

    def test_one_part_is_itself(self):
        part, lse = normal(1, 4, 2, 8), normal(1, 4, 2, seed=1)
        got, total = self.merge(part, lse)
        torch.testing.assert_close(got, part[0])
        torch.testing.assert_close(total, lse[0])

    def test_order_does_not_matter(self):
        parts, lse = normal(3, 4, 2, 8), normal(3, 4, 2, seed=1) * 30
        one, two = self.merge(parts, lse), self.merge(parts.flip(0), lse.flip(0))
        torch.testing.assert_close(one, two)

    def test_a_part_without_keys_is_left_out_whatever_it_holds(self):
        parts, lse = normal(2, 4, 2, 8), normal(2, 4, 2, seed=1)
        parts[1, 2], lse[1, 2] = torch.nan, -torch.inf
        got, total = self.merge(parts, lse)
        torch.testing.assert_close(got[2], parts[0, 2])
        torch.testing.assert_close(total[2], lse[0, 2])
        assert got.isfinite().all()

    @pytest.mark.parametrize("count", [0, 1, 3])
    def test_nothing_visible_anywhere_gives_zero(self, count):
        parts = torch.full((count, 2, 3, 8), torch.nan)
        got, total = self.merge(parts, torch.full((count, 2, 3), -torch.inf))
        assert torch.equal(got, torch.zeros(2, 3, 8))
        assert torch.equal(total, torch.full((2, 3), -torch.inf))

    def test_scores_far_apart_do_not_overflow(self):
        parts = torch.stack((torch.ones(1, 1, 4), torch.zeros(1, 1, 4)))
        got, total = self.merge(parts, torch.tensor([500.0, -500.0]).view(2, 1, 1))
        assert torch.equal(got, torch.ones(1, 1, 4))
        assert total.item() == 500.0


def test_rotation_turns_pairs_half_a_head_apart():
    inv_freq = torch.tensor([1.0, 0.25])
    cos, sin = rotary_tables(inv_freq, torch.tensor([0, 3]), torch.float32)
    x = normal(2, 5, 4)
    got = torch.view_as_complex(torch.stack((x[..., :2], x[..., 2:]), -1))
    angles = torch.tensor([[0.0, 0.0], [3.0, 0.75]])[:, None]
    got = got * torch.polar(torch.ones_like(angles), angles)
    expected = torch.cat((got.real, got.imag), dim=-1)
    torch.testing.assert_close(rotate(x, cos, sin), expected)


def test_partial_rotation_passes_the_rest_through():
    cos, sin = rotary_tables(torch.tensor([1.0, 0.5]), torch.tensor([7]), torch.float32)
    x = normal(1, 3, 10)
    got = rotate(x, cos, sin)
    assert torch.equal(got[..., 4:], x[..., 4:])
    torch.testing.assert_close(got[..., :4], rotate(x[..., :4].contiguous(), cos, sin))


def test_no_rotation_is_a_table_without_columns():
    cos, sin = rotary_tables(torch.empty(0), torch.tensor([7]), torch.float32)
    x = normal(1, 3, 10)
    assert torch.equal(rotate(x, cos, sin), x)


def test_tables_are_multiplied_by_the_factor():
    inv_freq, at = torch.tensor([1.0, 0.5]), torch.tensor([7])
    plain = rotary_tables(inv_freq, at, torch.float32)
    for got, one in zip(rotary_tables(inv_freq, at, torch.float32, 1.5), plain, strict=True):
        torch.testing.assert_close(got, one * 1.5)


def test_consecutive_blocks_are_one_view():
    assert consecutive([4, 5, 6])
    assert consecutive([4])
    assert not consecutive([4, 6, 5])
    assert not consecutive([4, 6, 6])
    keys = row_keys(Row(40, 1, [4, 5, 6, 99]), 0, BLOCK, "cpu")
    assert (keys.first_slot, keys.index) == (4 * BLOCK, None)
    keys = row_keys(Row(20, 1, [6, 5]), 0, BLOCK, "cpu")
    assert keys.index.tolist() == [*range(96, 112), *range(80, 85)]


def test_ancestors_are_seen_and_nobody_else():
    mask = ancestor_mask([-1, 0, 0, 1, -1], "cpu").int().tolist()
    assert mask == [
        [1, 0, 0, 0, 0],
        [1, 1, 0, 0, 0],
        [1, 0, 1, 0, 0],
        [1, 1, 0, 1, 0],
        [0, 0, 0, 0, 1],
    ]
