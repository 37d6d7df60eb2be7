"""`--report FILE`: a load test as one HTML file that asks no other host for anything.

All that comes from a server or a file is text here: escaped, without control characters. A policy
in the head forbids scripts and connections, should an escape ever fail.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from html import escape
from importlib.resources import files
from typing import Any

from rtp_core.bench import charts
from rtp_core.bench.printable import printable
from rtp_core.bench.report import Report
from rtp_core.bench.service_level import e2e_s, itl_s, ttft_s
from rtp_core.bench.table import amount
from rtp_core.bench.traffic import Traffic

_POLICY = "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'"
_METRICS = {
    "ttft_s": "TTFT",
    "tpot_s": "TPOT",
    "itl_s": "ITL",
    "e2e_s": "E2E",
    "send_delay_s": "send delay",
}
_TILES = (
    ("requests_per_s", "requests/s"),
    ("output_tokens_per_s", "output tokens/s"),
    ("goodput_requests_per_s", "good requests/s"),
    ("completed", "completed"),
    ("errors", "errors"),
)
_LEGEND = (
    ("waiting", "waiting in the client"),
    ("until", "until the first token"),
    ("second", "tokens"),
    ("failed", "failed"),
)


def page(report: Report, traffic: Traffic) -> str:
    """The whole document."""
    told = report.as_json()
    name = f"rtp bench {told['command']}: {printable(told['model'])}"
    body = [
        f"<h1>{_text(name)}</h1>",
        f"<p>{_text(told['device'])}. rtp {_text(told['version'])}, {_text(told['began'])}</p>",
        *_notes(told),
        _tiles(told["results"]),
        _card("Latencies [ms]", _latencies(told["results"]), wide=True),
        *_distributions(traffic),
        _card("Output tokens a second", charts.throughput(traffic), wide=True),
        _card("Requests under way", charts.in_flight(traffic), wide=True),
        _card("Requests", _legend(traffic) + charts.timeline(traffic), wide=True),
        _card("Results", _pairs(_plain(told["results"]))),
        _card("Parameters", _pairs(told["params"])),
        _card("Machine of the client", _pairs(_about(told))),
    ]
    style = (files("rtp_core.bench") / "page.css").read_text(encoding="utf-8")
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        '<meta name="color-scheme" content="light dark">\n'
        f"<title>{_text(name)}</title>\n<style>\n{style}</style>\n</head>\n<body>\n<main>\n"
        + "\n".join(filter(None, body))
        + "\n</main>\n</body>\n</html>\n"
    )


def _text(value: Any) -> str:
    return escape(printable(value))


def _notes(told: Mapping[str, Any]) -> Iterator[str]:
    if told["interrupted"]:
        yield '<p class="note">Interrupted: what was measured until then.</p>'
    kinds = told["results"].get("error_kinds", {})
    if kinds:
        failed = ", ".join(f"{count} × {kind}" for kind, count in kinds.items())
        yield f'<p class="note">Failed: {_text(failed)}</p>'


def _tiles(results: Mapping[str, Any]) -> str:
    tiles = (
        f"<div><b>{_text(amount(name, results.get(name)))}</b>{label}</div>"
        for name, label in _TILES
    )
    return f'<section class="tiles">{"".join(tiles)}</section>'


def _card(heading: str, body: str, *, wide: bool = False) -> str:
    """Nothing to show is no card."""
    kind = "card wide" if wide else "card"
    return f'<section class="{kind}"><h2>{heading}</h2>{_scrolling(body)}</section>' if body else ""


def _scrolling(body: str) -> str:
    return f'<div class="table-scroll">{body}</div>'


def _distributions(traffic: Traffic) -> Iterator[str]:
    done = [one for one in traffic.records if one.done]
    first = [value for one in done if (value := ttft_s(one)) is not None]
    gaps = [gap for one in done for gap in itl_s(one)]
    for name, values in (
        ("Time to first token", first),
        ("Between pieces of content", gaps),
        ("End to end", [e2e_s(one) for one in done]),
    ):
        yield _card(name, charts.distribution(values, name))


def _latencies(results: Mapping[str, Any]) -> str:
    known = {label: results[name] for name, label in _METRICS.items() if name in results}
    columns = list(next(iter(known.values()), ()))
    head = "".join(f"<th>{_text(column)}</th>" for column in columns)
    rows = (
        _row(label, (amount("n" if name == "n" else "_s", found[name]) for name in columns))
        for label, found in known.items()
    )
    body = f"<thead><tr><th></th>{head}</tr></thead><tbody>{''.join(rows)}</tbody>"
    return f'<table class="figures">{body}</table>'


def _row(label: Any, cells: Iterable[str]) -> str:
    written = "".join(f"<td>{_text(cell)}</td>" for cell in cells)
    return f'<tr><th scope="row">{_text(label)}</th>{written}</tr>'


def _pairs(values: Mapping[str, Any]) -> str:
    rows = (_row(name, [amount("", value)]) for name, value in values.items())
    return f"<table><tbody>{''.join(rows)}</tbody></table>"


def _plain(results: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in results.items() if not isinstance(value, Mapping)}


def _about(told: Mapping[str, Any]) -> dict[str, Any]:
    load = told["load_average"]
    return {**told["machine"], "torch": told["torch"], "load average": f"{load['before']} before, "
            f"{load['after']} after"}  # fmt: skip


def _legend(traffic: Traffic) -> str:
    keys: Sequence[str] = [f'<span class="key {kind}"></span>{label}' for kind, label in _LEGEND]
    shown = min(len(traffic.records), charts.MOST_ROWS)
    more = f" {shown} of {len(traffic.records)} requests." if shown < len(traffic.records) else ""
    return f'<p class="legend">{" ".join(keys)}.{more}</p>' if traffic.records else ""
