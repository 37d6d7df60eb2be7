"""The sampling kernels for Hopper: they compile, spill nothing and load sixteen bytes at a time."""

from __future__ import annotations

import pytest
from ahead_of_time import Case, compile_all

STAGES = "rtp_kernels.sampling.stages"
WORD, REAL, SIZE = "*i32", "*fp32", "i32:16"
INPUTS = {
    "logits": REAL, "row_stride": SIZE, "slots": WORD, "positions": WORD, "records": WORD,
    "counts": "*i16", "counts_stride": SIZE, "history": WORD, "special_ids": WORD,
    "special_bias": REAL,
}  # fmt: skip
PARTS = {
    "best": REAL, "best_id": WORD, "raw_best": REAL, "mass": REAL, "group_best": REAL,
    "floors": REAL, "found": WORD, "kept": REAL, "kept_id": WORD,
}  # fmt: skip
SHAPE = {"TILE": 2048, "CAPACITY": 64, "HISTORY": 0}


def parts(*names):
    return {name: PARTS[name] for name in names}


def survey(*, random=False, processed=False, truncated=False, raw=False, **constants):
    written = parts("best", "best_id", "raw_best", "mass", "group_best")
    flags = {"RANDOM": random, "PROCESSED": processed, "TRUNCATED": truncated, "RAW": raw}
    constants = {**SHAPE, "GROUP": 64, **flags, **constants}
    return Case(STAGES, "survey", {**INPUTS, **written, "VOCAB": SIZE}, constants)


def bound(wanted):
    types = {**parts("best", "mass", "group_best", "floors", "found"), "tiles": "i32"}
    constants = {"TILES": 128, "GROUPS": 4096, "EACH": 32, "WANTED": wanted}
    return Case(STAGES, "bound", {"slots": WORD, "records": WORD, **types}, constants, warps=8)


def gather(*, processed=False, raw=False, span=4):
    types = {**INPUTS, **parts("best", "floors", "found", "kept", "kept_id")}
    types |= {"tiles": "i32", "VOCAB": SIZE}
    constants = {**SHAPE, "SPAN": span, "PROCESSED": processed, "RAW": raw, "ROOM": 4096}
    return Case(STAGES, "gather", types, constants, warps=8)


def finish(*, processed=False, truncated=False):
    names = ("slots", "positions", "records", "counts", "counts_stride")
    seen = parts(*(name for name in PARTS if name not in ("group_best", "floors")))
    types = {**{name: INPUTS[name] for name in names}, **seen}
    types |= {"token_ids": WORD, "usable": "*i8", "tiles": "i32"}
    flags = {"TRUNCATED": truncated, "COMMITS": processed}
    constants = {"TILES": 128, **flags, "SMALL": 512, "ROOM": 4096}
    return Case(STAGES, "finish", types, constants, warps=8 if truncated else 4)


def search(*, processed=False, history=0):
    types = {**INPUTS, **parts("best", "mass", "floors"), "token_ids": WORD}
    types |= {"tiles": "i32", "VOCAB": SIZE}
    constants = {"TILE": 4096, "TILES": 128, "CAPACITY": 64, "HISTORY": history}
    constants |= {"PROCESSED": processed, "COMMITS": processed}
    return Case("rtp_kernels.sampling.search", "search", types, constants, warps=16)


def rank(wanted):
    types = {"logits": REAL, "row_stride": SIZE, "slots": WORD, "token_ids": WORD}
    types |= parts("best", "mass", "found", "kept", "kept_id")
    types |= {"chosen": REAL, "top_ids": WORD, "top_values": REAL, "tiles": "i32", "VOCAB": SIZE}
    constants = {"TILE": 2048, "TILES": 128, "ROOM": 4096, "WANTED": wanted}
    return Case("rtp_kernels.sampling.ranking", "rank", types, constants, warps=8)


def tables():
    module = "rtp_kernels.sampling.tables"
    common = {"records": WORD, "counts": "*i16", "counts_stride": SIZE}
    joins = {"transfer": WORD, **common, "special_ids": WORD, "special_bias": REAL}
    drawn = {"slots": WORD, "token_ids": WORD, **common}
    constants = {"CAPACITY": 64, "WIDTH": 22, "BLOCK": 1024}
    return [
        Case(module, "install", joins, constants),
        Case(module, "count_drawn", drawn, {"LENGTH": 5}, warps=1),
    ]


def drafts(*, tree):
    module = "rtp_kernels.sampling.drafts"
    rows = {"slots": WORD, "positions": WORD, "drafts": WORD, "parents": WORD,
            "row_slots": WORD, "row_positions": WORD, "history": WORD}  # fmt: skip
    paths = {"slots": WORD, "drafts": WORD, "parents": WORD, "token_ids": WORD,
             "row_usable": "*i8", "emitted": WORD, "number": WORD, "usable": "*i8",
             "rows": WORD}  # fmt: skip
    return [
        Case(module, "expand", rows, {"DRAFTS": 4, "TREE": tree}, warps=1),
        Case(module, "accept", paths, {"DRAFTS": 4, "BLOCK": 4, "TREE": tree}, warps=1),
    ]


def masks():
    types = {"logits": REAL, "row_stride": SIZE, "masks": WORD, "mask_stride": "i32"}
    types |= {"places": WORD, "VOCAB": SIZE}
    return Case("rtp_kernels.sampling.mask", "bar", types, {"TILE": 2048})


def test_masks():
    (bar,) = compile_all([masks()])
    assert bar.stack == 0
    assert bar.registers <= 64


def test_cheap_draws():
    greedy, end = compile_all([survey(), finish()])
    assert greedy.stack == end.stack == 0
    assert (greedy.vector_loads, greedy.scalar_loads) == (4, 1)
    assert greedy.registers <= 64


# Divisions rounded exactly call a subroutine for numbers near the ends of the range; its frame
# is no spill of a loop.
FRAME = 64


@pytest.mark.long
def test_all_other_draws():
    flags = [(False, False, False), (True, False, False), (True, False, True), (True, True, True)]
    surveys = [
        survey(random=random, processed=processed, truncated=truncated)
        for random, processed, truncated in flags
    ]
    surveys += [survey(raw=True), survey(random=True, TILE=1024, GROUP=32)]
    surveys += [survey(random=True, processed=True, HISTORY=4, CAPACITY=1024)]
    rest = [bound(0), bound(20), gather(), gather(processed=True), gather(raw=True, span=1)]
    rest += [finish(truncated=True), finish(truncated=True, processed=True)]
    rest += [search(), search(processed=True, history=4)]
    rest += [rank(0), rank(20), *tables(), *drafts(tree=False), *drafts(tree=True)]
    for case, compiled in zip([*surveys, *rest], compile_all([*surveys, *rest]), strict=True):
        assert compiled.stack <= FRAME, str(case)
        assert compiled.registers <= 168, str(case)
        if case.kernel in ("survey", "gather"):
            assert compiled.vector_loads >= case.constants["TILE"] // (128 * case.warps), str(case)
        # The inner logarithm of noise near 1 needs more than the hardware's approximation.
        assert compiled.count(r"lg2\.approx") == 0 or case.kernel == "rank", str(case)
