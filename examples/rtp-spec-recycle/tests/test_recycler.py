from __future__ import annotations

import pytest
from rtp_spec_recycle.recycler import Recycler
from rtp_spec_recycle.table import Table

from rtp_core.api import Commit, DraftRow, Role
from rtp_core.testing.conformance import check_name, suite

TEXT = [7, 3, 9, 4, 1, 8, 2, 6, 5]


def recycler(contexts=1000, tenants=8):
    return Recycler(4, contexts, tenants)


def draft(one, tokens, tenant="", name="s", most=4):
    return one.propose([DraftRow(name, tokens, most, tenant)])[0].token_ids


@pytest.mark.parametrize("check", suite(Role.SPECULATOR), ids=check_name)
def test_it_conforms(check):
    check(lambda context: recycler())


def test_the_first_request_teaches_the_second():
    one = recycler()
    assert draft(one, TEXT, name="first") == ()
    one.release("first")
    assert draft(one, TEXT[:3], name="second") == tuple(TEXT[3:7])


def test_what_was_committed_last_is_learnt_too():
    one = recycler()
    draft(one, TEXT[:4], name="first")
    one.observe([Commit("first", tuple(TEXT[4:]), 0, 0)])
    one.release("first")
    assert draft(one, TEXT[:6], name="second") == tuple(TEXT[6:])


def test_a_longer_context_decides_between_two_successors():
    one = recycler()
    draft(one, [1, 2, 3, 50, 51], name="first")
    draft(one, [9, 8, 3, 60, 61], name="second")
    assert draft(one, [1, 2, 3], name="third", most=1) == (50,)
    assert draft(one, [9, 8, 3], name="fourth", most=1) == (60,)


def test_one_token_of_context_must_prove_itself():
    table = Table(100)
    table.learn((5,), 6)
    assert table.draft((5,), 1) == ()
    for _ in range(2):
        table.learn((5,), 6)
    assert table.draft((5,), 1) == (6,)


def test_a_wrong_successor_is_replaced_after_as_much_doubt_as_it_had_trust():
    table = Table(100)
    for _ in range(2):
        table.learn((1, 2), 3)
    table.learn((1, 2), 4)
    assert table.draft((1, 2), 1) == (3,)
    table.learn((1, 2), 4)
    assert table.draft((1, 2), 1) == (4,)


def test_the_least_recently_used_context_is_dropped():
    table = Table(2)
    for first in (1, 2, 3):
        table.learn((first,), 9)
    for _ in range(2):
        table.learn((3,), 9)
        table.learn((1,), 9)
    assert table.draft((2,), 1) == ()
    assert table.draft((1,), 1) == ()
    assert table.draft((3,), 1) == (9,)


def test_tenants_beyond_the_limit_are_forgotten():
    one = recycler(tenants=1)
    draft(one, TEXT, "a", "first")
    draft(one, TEXT, "b", "second")
    assert draft(one, TEXT[:3], "a", "third") == ()
