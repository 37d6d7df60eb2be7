"""A step's input on its way to the device."""

from __future__ import annotations

import pytest

from rtp_core.api import PlanRow, StepPlan
from rtp_core.execution.device.accelerator import HostAccelerator
from rtp_core.execution.device.frame import FrameRing, Limits, in_order


def row(name, new, start=0):
    return PlanRow(name, tuple(range(new)), start, 0, True, (range(2),))


def names(rows):
    return [one.sequence_id for one in rows]


def plan_of(rows):
    return StepPlan(step_id=1, rows=tuple(rows))


def test_alike_rows_lie_side_by_side_after_single_tokens():
    rows = [row("a", 8), row("b", 1, 5), row("c", 4, 8), row("d", 1, 2), row("e", 8, 16)]
    rows += [row("f", 8), row("g", 4)]
    assert names(in_order(plan_of(rows))) == ["b", "d", "g", "c", "a", "f", "e"]


def test_single_tokens_keep_their_order():
    rows = [row("a", 1, 9), row("b", 1, 5), row("c", 1, 7)]
    assert names(in_order(plan_of(rows))) == ["a", "b", "c"]


@pytest.mark.parametrize("first", [[], [("s", 1, 11), ("t", 1, 0)]])
def test_the_shape_says_what_rows_with_several_tokens_are(first):
    limits = Limits(8, 64, 16, 1, (64,))
    frames = FrameRing(limits, HostAccelerator(1), [0])
    rows = [row(*one) for one in [*first, ("a", 3, 0), ("b", 5, 0), ("c", 5, 20)]]
    for one in rows:
        frames.slots.take(one.sequence_id)
    shape = frames.send(in_order(plan_of(rows)), lambda shape: shape.num_rows)
    assert shape.runs == ((3, 0), (5, 0), (5, 20))
    starts = frames.device.starts[: len(shape.runs) + 1]
    lengths = frames.device.lengths[len(first) : len(rows)]
    assert starts.diff().tolist() == [new for new, _ in shape.runs]
    assert lengths.tolist() == [new + cached for new, cached in shape.runs]
