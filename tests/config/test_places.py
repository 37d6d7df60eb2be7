"""Lines of keys, whichever way TOML allows to write them."""

from __future__ import annotations

import tomllib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rtp_core.config.places import places
from rtp_core.config.render import value_text

TEXT = '''# a comment
top = 1
kv.memory = 2

[server] # here
host = "x"
'port' = 7000
api_keys = [
  "a", # [kv]
  "b",
]
text = """
[kv]
block_size = 1
"""

[ plugins . "core.x" ]
n = 3

[plugins]
y.k = 4
z = {a = 1, b = {c = 2}}
[model]
'''


def test_every_spelling_has_its_line():
    found = places(TEXT)
    assert found == {
        ("top",): 2,
        ("kv",): 3,
        ("kv", "memory"): 3,
        ("server",): 5,
        ("server", "host"): 6,
        ("server", "port"): 7,
        ("server", "api_keys"): 8,
        ("server", "text"): 12,
        ("plugins",): 17,
        ("plugins", "core.x"): 17,
        ("plugins", "core.x", "n"): 18,
        ("plugins", "y"): 21,
        ("plugins", "y", "k"): 21,
        ("plugins", "z"): 22,
        ("plugins", "z", "a"): 22,
        ("plugins", "z", "b"): 22,
        ("plugins", "z", "b", "c"): 22,
        ("model",): 23,
    }


def test_what_is_written_with_returns_or_nothing_has_its_line():
    assert places("") == {}
    assert places("a = 1\r\n[b]\r\nc = 2\r\n") == {("a",): 1, ("b",): 2, ("b", "c"): 3}
    assert places("a = 1") == {("a",): 1}


INTEGERS = st.integers(-9, 9)
names = st.text(min_size=1, max_size=5)
values = st.one_of(INTEGERS, st.booleans(), st.text(max_size=8), st.lists(INTEGERS))


@given(st.dictionaries(names, st.dictionaries(names, values, max_size=4), max_size=4))
def test_the_line_of_a_key_is_the_line_that_holds_it(tables):
    lines, wanted = [], {}
    for table, entries in tables.items():
        lines.append(f"[{value_text(table)}]")
        wanted[(table,)] = len(lines)
        for key, value in entries.items():
            lines.append(f"{value_text(key)} = {value_text(value)}")
            wanted[(table, key)] = len(lines)
    text = "\n".join(lines)
    assert tomllib.loads(text) == tables
    assert places(text) == wanted


@pytest.mark.timeout(20)
def test_a_long_file_takes_no_long_time():
    text = "[plugins.x]\n" + "".join(f"k{number} = {number}\n" for number in range(3000))
    assert places(text)[("plugins", "x", "k2999")] == 3001
