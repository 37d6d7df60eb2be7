"""On which line of a TOML file each key stands, in whatever of TOML's spellings."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

Path = tuple[str, ...]


def places(text: str) -> dict[Path, int]:
    """Line, from 1, of each key and table of valid TOML; a value's line is that of its key.

    Statements are parsed one by one, so that dotted keys, inline tables, quotes and strings over
    many lines need no grammar of ours.
    """
    found: dict[Path, int] = {}
    table: Path = ()
    for number, chunk, is_header in _statements(text.split("\n")):
        if is_header:
            table = next(iter(_paths(chunk)), ())
            keys: Iterator[Path] = iter(table[:size] for size in range(1, len(table) + 1))
        else:
            keys = ((*table, *path[:size]) for path in _paths(chunk) for size in _sizes(path))
        for key in keys:
            found.setdefault(key, number)
    return found


def _statements(lines: list[str]) -> Iterator[tuple[int, Mapping[str, Any], bool]]:
    """(line, what it says, whether it is a header) of each; what cannot be parsed ends it."""
    import tomllib

    start = 0
    while start < len(lines):
        for end in range(start + 1, len(lines) + 1):
            try:
                chunk = tomllib.loads("\n".join(lines[start:end]) + "\n")
            except tomllib.TOMLDecodeError:
                continue
            yield start + 1, chunk, lines[start].lstrip().startswith("[")
            start = end
            break
        else:
            return


def _paths(value: Any) -> Iterator[Path]:
    """Keys from the top to each value; a table without keys counts, a list is a value."""
    if not isinstance(value, Mapping) or not value:
        yield ()
        return
    for key, inner in value.items():
        yield from ((key, *rest) for rest in _paths(inner))


def _sizes(path: Path) -> range:
    return range(1, len(path) + 1)
