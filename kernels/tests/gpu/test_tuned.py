"""Tuned forms come before the shipped ones, and candidates are forms that kernels can serve."""

from __future__ import annotations

import pytest

pytest.importorskip("triton")

from hypothesis import given
from hypothesis import strategies as st

from rtp_kernels.gpu import candidates, forms, tuned
from rtp_kernels.paged_attention.choice import choose
from rtp_kernels.paged_attention.plan import Geometry
from rtp_kernels.paged_attention.tables import Scratch

GEOMETRY = Geometry(8, 2, 64, 16, 0.125)
EMPTY = {"linear": {}, "attention": {}}
SLOTS = st.builds(
    tuned.linear_slot,
    st.sampled_from(["norm_linear", "linear_residual", "norm_gate_up", "head"]),
    st.integers(1, 600).map(lambda n: 16 * n),
    st.integers(1, 600).map(lambda n: 16 * n),
)


@pytest.fixture(autouse=True)
def as_shipped():
    yield
    tuned.use_none()


@given(SLOTS, st.sampled_from(forms.BUCKETS), st.sampled_from([80, 90]))
def test_every_linear_candidate_can_be_kept_and_serves(slot, rows, arch):
    found = candidates.linear(slot, rows, arch)
    assert {"form": "library"} in found
    for form in found:
        tuned.use(tuned.with_setting(EMPTY, {slot: form}, rows, 2048))
        assert tuned.linear_form(slot, rows) == form
        if arch != forms.HOPPER:
            assert form["form"] in ("gemv", "library")
    tuned.use_none()


@given(st.integers(1, 256), st.sampled_from([1024, 2048, 8192]))
def test_every_attention_candidate_can_be_kept_and_serves(rows, context):
    now = tuned.attention_form(GEOMETRY, rows, 1, context)
    slot = tuned.attention_slot(GEOMETRY)
    found = [*candidates.splits(now, context), *candidates.tiles(now, 64), *candidates.early(now)]
    assert len(found) > 5
    for form in found:
        tuned.use(tuned.with_setting(EMPTY, {slot: form}, rows, context))
        assert tuned.attention_form(GEOMETRY, rows, 1, context) == form
    tuned.use_none()
    assert tuned.attention_form(GEOMETRY, rows, 1, context) == now


def test_a_tuned_form_serves_its_bucket_alone():
    slot = tuned.linear_slot("norm_linear", 4096, 4096)
    form = {"form": "library"}
    shipped = {rows: forms.default()("norm_linear", rows, 4096, 4096) for rows in range(300)}
    assert shipped[20] != forms.Library()
    tuned.use(tuned.with_setting(EMPTY, {slot: form}, 20, 2048))
    for rows, before in shipped.items():
        now = forms.default()("norm_linear", rows, 4096, 4096)
        assert now == (forms.Library() if 17 <= rows <= 32 else before)


def test_operations_that_share_forms_share_tuned_ones():
    assert tuned.linear_slot("linear_norm_residual", 8, 16) == "linear_residual 8x16"


def test_work_space_is_reserved_for_tuned_splits():
    form = {**tuned.attention_form(GEOMETRY, 64, 1, 2048), "splits": 16}
    before = Scratch.for_steps(GEOMETRY, [(64, 1, 2048)], "cpu")
    slot = tuned.attention_slot(GEOMETRY)
    tuned.use(tuned.with_setting(EMPTY, {slot: form}, 64, 2048))
    assert choose(GEOMETRY, 64, 1, 2048).splits == 16
    after = Scratch.for_steps(GEOMETRY, [(64, 1, 2048)], "cpu")
    assert len(after.partial) > len(before.partial)


def test_the_digest_follows_what_is_used():
    assert tuned.digest() == ""
    slot = tuned.linear_slot("head", 64, 32)
    digests = set()
    for form in ({"form": "library"}, candidates.linear(slot, 16, 90)[0]):
        tuned.use(tuned.with_setting(EMPTY, {slot: form}, 16, 2048))
        digests.add(tuned.digest())
    assert len(digests - {""}) == 2
    tuned.use_none()
    assert tuned.digest() == ""


def test_rows_beyond_all_buckets_are_refused():
    with pytest.raises(ValueError, match="1 to 256"):
        tuned.with_setting(EMPTY, {}, 257, 2048)
