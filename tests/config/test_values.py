"""Values from TOML, Python and text become what a field declares, or are refused."""

from __future__ import annotations

from typing import Literal

import pytest

from rtp_core.config.values import Mismatch, Text, coerce

MODE = Literal["tree", "chain"]


@pytest.mark.parametrize(
    ("value", "annotation", "wanted"),
    [
        (3, int, 3),
        (Text("3"), int, 3),
        (Text("-1"), int, -1),
        (2, float, 2.0),
        (Text("1e9"), float, 1e9),
        (True, bool, True),
        (Text("Yes"), bool, True),
        (Text("off"), bool, False),
        ("a", str, "a"),
        (Text("3"), str, "3"),
        (None, int | None, None),
        (Text("none"), int | None, None),
        (Text("7"), int | None, 7),
        ("a,b", tuple[str, ...], ("a,b",)),
        (Text("a, b,"), tuple[str, ...], ("a", "b")),
        (Text('["a", "b,c"]'), tuple[str, ...], ("a", "b,c")),
        (Text("[]"), tuple[str, ...], ()),
        (Text("[1, 2]"), tuple[int, ...] | None, (1, 2)),
        (Text(""), tuple[str, ...], ()),
        (["a"], tuple[str, ...], ("a",)),
        (4, tuple[int, ...], (4,)),
        (Text("1,2"), tuple[int, ...], (1, 2)),
        ("tree", MODE, "tree"),
    ],
)
def test_a_fitting_value_takes_the_declared_type(value, annotation, wanted):
    found = coerce(value, annotation)
    assert found == wanted
    assert type(found) is type(wanted)


@pytest.mark.parametrize(
    ("value", "annotation", "expected"),
    [
        (True, int, "an integer"),
        (3.0, int, "an integer"),
        ("3", int, "an integer"),
        (Text("3.5"), int, "an integer"),
        (True, float, "a number"),
        (Text("nan"), float, "a number"),
        (float("inf"), float, "a number"),
        ("0.5", float, "a number"),
        (1, bool, "true or false"),
        (Text("perhaps"), bool, "true or false"),
        (3, str, "a string that is not empty"),
        ("", str, "a string that is not empty"),
        (None, str, "a string that is not empty"),
        (["a", 3], tuple[str, ...], "a list; each item is a string that is not empty"),
        ({"a": 1}, tuple[str, ...], "a list; each item is a string that is not empty"),
        ("bush", MODE, "one of tree, chain"),
    ],
)
def test_any_other_value_says_what_is_expected(value, annotation, expected):
    with pytest.raises(Mismatch) as caught:
        coerce(value, annotation)
    assert str(caught.value) == expected


@pytest.mark.parametrize("annotation", [set, dict[str, int], bytes])
def test_other_types_are_the_declarers_mistake(annotation):
    with pytest.raises(TypeError, match="is not a type that settings can have"):
        coerce("x", annotation)


def test_a_list_in_brackets_is_one_or_is_refused():
    """It never becomes items that hold a bracket, which keys of an API would be."""
    with pytest.raises(Mismatch, match=r'a list, written a,b or \["a", "b"\]'):
        coerce(Text("[a,b]"), tuple[str, ...])
