"""Charts as SVG text: shapes on a plane with round numbers at its edges.

No scripts, no files from elsewhere; every text and attribute is escaped here. Colours are classes
of the page around (`rtp_core.bench.page`), so that it may be light or dark.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from html import escape

LEFT, RIGHT, TOP, BOTTOM = 50, 12, 14, 44
"""Room for the numbers, in the chart's units."""
_TICKS = 5


def tag(name: str, body: str = "", **attributes: float | str) -> str:
    """One element. `body` is markup already; attributes are not (``_`` becomes ``-``)."""
    written = "".join(
        f' {key.strip("_").replace("_", "-")}="{escape(_number(value))}"'
        for key, value in attributes.items()
    )
    return f"<{name}{written}>{body}</{name}>" if body else f"<{name}{written}/>"


def text(words: str, x: float, y: float, anchor: str = "start", kind: str = "label") -> str:
    """Words at a place."""
    return tag("text", escape(words), x=x, y=y, text_anchor=anchor, class_=kind)


def title(words: str) -> str:
    """What browsers show over the element around."""
    return tag("title", escape(words))


def ticks(low: float, high: float, most: int = _TICKS) -> list[float]:
    """Round numbers (1, 2 or 5 times a power of ten) from `low` to `high`, at most `most` + 1."""
    span = high - low
    if not (math.isfinite(span) and span > 0):
        return [low]
    rough = span / most
    power = 10.0 ** math.floor(math.log10(rough))
    step = next((power * m for m in (1, 2, 5, 10) if power * m >= rough * (1 - 1e-9)), 10 * power)
    first = math.ceil(low / step - 1e-9)
    last = math.floor(high / step + 1e-9)
    return [number * step for number in range(first, last + 1)]


def short(value: float) -> str:
    """A number for an axis: ``0.25``, ``12``, ``3.4k``."""
    if abs(value) >= 10_000:
        return f"{value / 1000:.3g}k"
    return f"{value:.4g}"


@dataclass(frozen=True, slots=True)
class Plane:
    """`width` by `height` units, from x 0 to `x_high` and y 0 to `y_high`."""

    width: float
    height: float
    x_high: float
    y_high: float
    x_low: float = 0.0

    def x(self, value: float) -> float:
        """Place of a value from left to right."""
        share = (value - self.x_low) / (self.x_high - self.x_low or 1)
        return LEFT + (self.width - LEFT - RIGHT) * share

    def y(self, value: float) -> float:
        """Place of a value from the bottom up."""
        return self.bottom - (self.bottom - TOP) * value / (self.y_high or 1)

    @property
    def bottom(self) -> float:
        """Where y is 0."""
        return self.height - BOTTOM

    def frame(self, x_unit: str, *, rows: bool = False) -> Iterator[str]:
        """Grid lines with their numbers, and the unit of x.

        Values of y have lines; with `rows` those of x have, as y then has no values.
        """
        for value in () if rows else ticks(0, self.y_high):
            at = self.y(value)
            yield tag("line", x1=LEFT, x2=self.width - RIGHT, y1=at, y2=at, class_="grid")
            yield text(short(value), LEFT - 6, at + 4, "end")
        for value in ticks(self.x_low, self.x_high):
            at = self.x(value)
            top = TOP if rows else self.bottom
            yield tag("line", x1=at, x2=at, y1=top, y2=self.bottom + 4, class_="grid")
            yield text(short(value), at, self.bottom + 19, "middle")
        yield tag(
            "line", x1=LEFT, x2=self.width - RIGHT, y1=self.bottom, y2=self.bottom, class_="axis"
        )
        yield text(x_unit, self.width - RIGHT, self.height - 5, "end")

    def bar(self, x0: float, x1: float, y0: float, y1: float, kind: str, words: str = "") -> str:
        """A rectangle between values, with words over it."""
        left, right = self.x(x0), self.x(x1)
        return tag(
            "rect",
            title(words) if words else "",
            x=left,
            y=self.y(y1),
            width=max(right - left, 0.5),
            height=max(self.y(y0) - self.y(y1), 0.0),
            class_=kind,
        )

    def area(self, points: Sequence[tuple[float, float]], kind: str) -> str:
        """A line through the points, filled down to 0."""
        if not points:
            return ""
        line = " L".join(f"{_number(self.x(x))} {_number(self.y(y))}" for x, y in points)
        first, last = self.x(points[0][0]), self.x(points[-1][0])
        foot = _number(self.bottom)
        down = f"M{_number(first)} {foot} L{line} L{_number(last)} {foot} Z"
        return tag("path", d=down, class_=f"{kind} area") + tag(
            "path", d=f"M{line}", class_=f"{kind} line"
        )

    def mark(self, x: float, words: str, row: int = 0) -> str:
        """A vertical line with words at its top; those of another row stand below."""
        at, top = self.x(x), TOP + 13 * row
        line = tag("line", x1=at, x2=at, y1=top, y2=self.bottom, class_="mark")
        anchor, aside = ("end", -3) if at > 0.75 * self.width else ("start", 3)
        return line + text(words, at + aside, top + 8, anchor, "label strong")

    def drawing(self, parts: Iterable[str], name: str) -> str:
        """The whole chart; `name` is for those who do not see it."""
        return tag(
            "svg",
            "".join(parts),
            viewBox=f"0 0 {_number(self.width)} {_number(self.height)}",
            role="img",
            aria_label=name,
        )


def _number(value: float | str) -> str:
    return value if isinstance(value, str) else f"{value:.2f}".rstrip("0").rstrip(".")
