"""A report as a person reads it on a terminal."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from rtp_core.bench.printable import printable

Row = tuple[str, ...]


def render(report: Mapping[str, Any]) -> str:
    """Head, one table a kind of summary, then single numbers. Times are in milliseconds."""
    load = report["load_average"]
    lines = [
        f"rtp bench {report['command']}: {printable(report['model'])} on {report['device']}",
        "  ".join(f"{key} {_plain(value)}" for key, value in report["params"].items()),
        f"load average {load['before']} before, {load['after']} after",
    ]
    if report["interrupted"]:
        lines.append("INTERRUPTED: what was measured until then")
    return "\n".join([*lines, "", *_section(report["results"])]) + "\n"


def _section(results: Mapping[str, Any]) -> Iterator[str]:
    groups: dict[Row, list[Row]] = {}
    nested: list[tuple[str, Mapping[str, Any]]] = []
    for name, value in results.items():
        if value == {}:
            continue
        if not isinstance(value, Mapping):
            groups.setdefault(("",), []).append((_label(name), amount(name, value)))
        elif value and not any(isinstance(item, Mapping) for item in value.values()):
            columns = tuple(value)
            cells = (amount(name if key != "n" else key, value[key]) for key in columns)
            groups.setdefault(columns, []).append((_label(name), *cells))
        else:
            nested.append((name, value))
    for columns, rows in groups.items():
        yield from _aligned([("", *columns), *rows] if columns != ("",) else rows)
        yield ""
    for name, value in nested:
        yield f"{name}:"
        yield from (f"  {line}" if line else line for line in _section(value))


def _aligned(rows: Sequence[Row]) -> Iterator[str]:
    widths = [max(len(row[at]) for row in rows) for at in range(len(rows[0]))]
    for row in rows:
        cells = [row[0].ljust(widths[0])]
        cells += [cell.rjust(width) for cell, width in zip(row[1:], widths[1:], strict=True)]
        yield "  ".join(cells).rstrip()


def _is_time(name: str) -> bool:
    return name.endswith(("_s", "_s_per_step")) and not name.endswith("_per_s")


def _label(name: str) -> str:
    if not _is_time(name):
        return name
    stem, _, rest = name.partition("_s_per_step")
    return f"{stem}_per_step [ms]" if stem != name else f"{name.removesuffix('_s')} [ms]{rest}"


def amount(name: str, value: Any) -> str:
    """A value by its name's unit: what ends with ``_s`` is shown in milliseconds."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return _plain(value)
    if _is_time(name):
        value = 1e3 * value
    return f"{value:,}" if isinstance(value, int) else _digits(value)


def _digits(value: float) -> str:
    if value == 0:
        return "0"
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.4g}"


def _plain(value: Any) -> str:
    if value is None:
        return "-"
    if isinstance(value, Mapping):
        return ",".join(f"{key}:{_plain(item)}" for key, item in value.items()) or "none"
    return printable(value)
