"""Draft vocabularies."""

from __future__ import annotations

from rtp_core.training.vocabulary import draft_vocabulary


def test_the_most_frequent_tokens_ascending_with_what_must_be_in():
    ids, coverage = draft_vocabulary([[5, 5, 5, 3, 3], [9, 5]], 3, 12, {11, 99})
    assert ids.tolist() == [3, 5, 11]
    assert coverage == 6 / 7


def test_ties_go_to_lower_ids_and_a_size_beyond_the_vocabulary_is_all_of_it():
    assert draft_vocabulary([[7, 2, 4]], 2, 8, ())[0].tolist() == [2, 4]
    assert draft_vocabulary([[7]], 100, 8, ())[0].tolist() == list(range(8))


def test_special_tokens_stay_in_when_they_are_more_than_asked_for():
    assert draft_vocabulary([[0, 0]], 1, 8, (5, 6))[0].tolist() == [5, 6]
