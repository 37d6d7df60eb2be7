from __future__ import annotations

import pytest

from rtp_core.api import Commit, Draft, DraftRow, SpeculatorNeeds
from rtp_core.speculation.controller import MAX_BAD_DRAFTS, SpeculationController

VOCAB = 10


class Scripted:
    """Drafts what a function says; an exception in `fail_in` is raised by that method."""

    def __init__(self, draft, fail_in=()):
        self.needs = SpeculatorNeeds(4)
        self._draft = draft if callable(draft) else lambda row: draft
        self._fail_in = fail_in
        self.asked = []
        self.seen = []
        self.released = []

    def propose(self, rows):
        self.asked.append([row.sequence_id for row in rows])
        self._maybe_fail("propose")
        return [self._draft(row) for row in rows]

    def observe(self, commits):
        self._maybe_fail("observe")
        self.seen.extend(commits)

    def release(self, sequence_id):
        self._maybe_fail("release")
        self.released.append(sequence_id)

    def _maybe_fail(self, method):
        if method in self._fail_in:
            raise RuntimeError(method)


def control(*speculators, most=3):
    errors = []
    made = SpeculationController(
        [(f"s{number}", one) for number, one in enumerate(speculators)],
        most,
        VOCAB,
        lambda name, error: errors.append((name, str(error))),
    )
    return made, errors


def row(name="a", room=8):
    return DraftRow(name, [1], room)


NOTHING = ("", Draft())


def test_the_first_that_drafts_a_row_wins_it_and_later_ones_are_not_asked():
    only_a = Scripted(lambda one: Draft((1,)) if one.sequence_id == "a" else Draft())
    both = Scripted(Draft((2,)))
    last = Scripted(Draft((3,)))
    made, _ = control(only_a, both, last)
    assert made.propose([row("a"), row("b")]) == [("s0", Draft((1,))), ("s1", Draft((2,)))]
    assert (only_a.asked, both.asked, last.asked) == ([["a", "b"]], [["b"]], [])


def test_where_nobody_has_an_idea_there_is_no_draft():
    made, errors = control(Scripted(Draft()), Scripted(Draft()))
    assert made.propose([row()]) == [NOTHING]
    assert not errors


def test_drafts_are_cut_to_the_limit_and_to_the_row():
    made, _ = control(Scripted(Draft((1, 2, 3, 4, 5))))
    drafts = made.propose([row("a", 8), row("b", 2)])
    assert [draft.token_ids for _, draft in drafts] == [(1, 2, 3), (1, 2)]


def test_a_tree_is_cut_with_its_parents():
    made, _ = control(Scripted(Draft((1, 2, 3, 4), (-1, 0, -1, 2))))
    assert made.propose([row()]) == [("s0", Draft((1, 2, 3), (-1, 0, -1)))]


def test_whatever_counts_as_an_integer_becomes_a_plain_one():
    class Five:
        def __index__(self):
            return 5

    made, errors = control(Scripted(Draft([Five(), True], [-1, 0])))
    ((_, draft),) = made.propose([row()])
    assert draft == Draft((5, 1), (-1, 0))
    assert [type(token) for token in draft.token_ids] == [int, int]
    assert not errors


@pytest.mark.parametrize("method", ["propose", "observe", "release"])
def test_a_drafter_that_raises_is_dropped_once_and_the_others_go_on(method):
    bad, good = Scripted(Draft((1,)), {method}), Scripted(Draft((2,)))
    made, errors = control(bad, good)
    for _ in range(3):
        made.propose([row()])
        made.observe([Commit("a", (1,), 1, 1)])
        made.release("a")
    assert errors == [("s0", method)]
    assert made.active
    assert made.propose([row()]) == [("s1", Draft((2,)))]
    assert len(good.seen) == len(good.released) == 3


@pytest.mark.parametrize("answer", [[], [Draft(), Draft()], None, 7])
def test_an_answer_for_other_rows_than_asked_drops_the_drafter(answer):
    bad = Scripted(Draft())
    bad.propose = lambda rows: answer
    made, errors = control(bad)
    assert made.propose([row()]) == [NOTHING]
    assert [name for name, _ in errors] == ["s0"]
    assert not made.active


@pytest.mark.parametrize(
    ("bad", "words"),
    [
        (Draft((VOCAB,)), "0 … 9"),
        (Draft((-1,)), "0 … 9"),
        (Draft((1.0,)), "float"),
        (Draft(("x",)), "str"),
        (Draft((1, 2), (0, 0)), "parent comes before"),
        (Draft((1, 2), (-2, 0)), "parent comes before"),
        (Draft((1, 2), (-1,)), "1 parents for 2 tokens"),
        (Draft(5), "int"),
        (Draft((1,), 5), "int"),
        (None, "NoneType"),
        ((1, 2), "tuple"),
    ],
)
def test_malformed_drafts_are_ignored_then_the_drafter_is_dropped(bad, words):
    good = Scripted(Draft((2,)))
    made, errors = control(Scripted(bad), good)
    for _ in range(MAX_BAD_DRAFTS):
        assert not errors
        assert made.propose([row()]) == [("s1", Draft((2,)))]
    ((name, message),) = errors
    assert name == "s0"
    assert words in message


def test_many_malformed_drafts_of_one_step_drop_the_drafter_once():
    made, errors = control(Scripted(None))
    rows = [row(str(number)) for number in range(3 * MAX_BAD_DRAFTS)]
    assert made.propose(rows) == [NOTHING] * len(rows)
    assert len(errors) == 1


def test_accepted_tokens_are_counted_for_the_drafter_that_proposed_them():
    one = Scripted(lambda asked: Draft((1, 2)) if asked.sequence_id == "a" else Draft())
    made, _ = control(one, Scripted(Draft((3,))))
    made.propose([row("a"), row("b"), row("c")])
    made.observe([Commit("a", (1, 5), 2, 1), Commit("b", (3, 5), 1, 1), Commit("c", (5,), 0, 0)])
    made.observe([Commit("a", (5,), 0, 0)])  # drafted by nobody this time
    stats = made.stats
    assert (stats.drafts, stats.draft_tokens, stats.accepted_tokens) == (2, 3, 2)
    assert stats.method_tokens == {"s0": 1, "s1": 1}


def test_a_draft_that_was_not_scheduled_is_not_counted_later():
    made, _ = control(Scripted(Draft((1, 2))))
    made.propose([row("a")])
    made.release("a")
    made.observe([Commit("a", (1,), 1, 1)])
    assert made.stats.drafts == 0


def test_every_drafter_sees_every_commit_and_every_release():
    speculators = [Scripted(Draft((1,))), Scripted(Draft())]
    made, _ = control(*speculators)
    commits = [Commit("a", (1, 2), 1, 1), Commit("b", (2,), 0, 0)]
    made.observe(commits)
    made.release("a")
    for one in speculators:
        assert one.seen == commits
        assert one.released == ["a"]


def test_without_drafters_there_is_nothing_to_ask():
    made, _ = control()
    assert not made.active
    assert made.propose([row()]) == [NOTHING]
