"""What the device script takes for right: stored keys and values."""

from __future__ import annotations

import pytest
import torch
from checks.attention_steps import expected, make_step, stored_right

from rtp_kernels.paged_attention.plan import Geometry
from rtp_kernels.paged_attention.ragged import store

GEOMETRY = Geometry(4, 2, 64, 16, 0.125)
NORMED = {"norm": torch.float16}
BARE = {"norm": None, "rotary_dim": 0}


def stored_step(options):
    """A step in float16 after `store`, what its planes must hold, and a slot it wrote."""
    step = make_step(GEOMETRY, [70, 40], [64, 9], dtype=torch.float16, **options)
    _, planes, _ = expected(step)
    blank = step.planes[0][0, :, 0].isnan()
    store(step.qkv, step.planes, step.tables, GEOMETRY, step.norms, 64)
    written = blank & ~step.planes[0][0, :, 0].isnan()
    return step, planes, int(written.nonzero()[0])


def move(plane, slot, steps):
    """The largest element of a slot, by so many steps of its precision."""
    at = int(plane[0, slot].abs().argmax())
    plane.view(torch.int16)[0, slot, at] += steps


@pytest.mark.parametrize(
    "options", [NORMED, BARE, {"norm": None}, {**NORMED, "rotary_dim": 0}, {"rotary_dim": 32}]
)
def test_what_is_stored_is_rounded_once(options):
    step, planes, _ = stored_step(options)
    assert stored_right(step, planes)


@pytest.mark.parametrize(
    ("options", "plane", "steps"), [(NORMED, 0, 2), (NORMED, 1, 1), (BARE, 0, 1), (BARE, 1, 1)]
)
def test_what_is_off_by_more_is_wrong(options, plane, steps):
    step, planes, slot = stored_step(options)
    move(step.planes[plane], slot, steps)
    assert not stored_right(step, planes)


@pytest.mark.parametrize("plane", [0, 1])
def test_slots_that_are_not_the_steps_must_be_untouched(plane):
    step, planes, slot = stored_step(NORMED)
    same = planes[0][0, :, 0].isnan().nonzero()[0]
    step.planes[plane][0, same] = 0.0
    assert not stored_right(step, planes)
    step, planes, slot = stored_step(NORMED)
    step.planes[plane][1, slot] = torch.nan
    assert not stored_right(step, planes)
