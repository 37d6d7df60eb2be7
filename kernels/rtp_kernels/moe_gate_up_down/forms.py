"""In which blocks the chosen experts multiply so many tokens.

Few tokens are bound by the bytes of the experts' weights: these lie on the wide side of the
matrix instruction, and a tile of tokens holds all of an expert's, so that each byte is read
once. Many are bound by arithmetic: tokens fill the wide side. Forms of known shapes are data,
`gpu/configurations/experts_sm_90.json`; other shapes go by rule.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Any, NamedTuple

from rtp_kernels.gpu.forms import architecture, power_of_2

WIDE = 64
"""Least tokens of a tile that fill the wide side of Hopper's instruction."""
_ONCE = 32
"""Up to so many tokens, a tile takes all that an expert can get."""
_MOST = 128


@dataclass(frozen=True, slots=True)
class Tile:
    """Outputs and inputs of a step of a product. `tiles`: weights by a tensor descriptor."""

    block_n: int
    block_k: int
    stages: int
    warps: int = 4
    tiles: bool = False


@dataclass(frozen=True, slots=True)
class ExpertForm:
    """Tokens of a tile, which both products share."""

    block_m: int
    gate_up: Tile
    down: Tile


class Shape(NamedTuple):
    """Of a layer of experts; `width` is one expert's."""

    experts: int
    top_k: int
    hidden: int
    width: int

    @property
    def key(self) -> str:
        """As tables name it."""
        return "x".join(map(str, self))


Choose = Callable[[int, Shape], ExpertForm]
Table = Mapping[str, Mapping[int, ExpertForm]]
"""shape -> most tokens -> form."""


@cache
def default() -> Choose:
    """By the table that is shipped for this process's device, if there is one."""
    file = files("rtp_kernels.gpu") / "configurations" / f"experts_sm_{architecture()}.json"
    return choice(read(json.loads(file.read_text())) if file.is_file() else {})


def choice(table: Table) -> Choose:
    """A function that looks a form up in `table`, and goes by rule for what is not in it."""

    @cache
    def choose(tokens: int, shape: Shape) -> ExpertForm:
        listed = table.get(shape.key, {})
        limits = [limit for limit in listed if limit >= tokens]
        return listed[min(limits)] if limits else by_rule(tokens, shape)

    return choose


def by_rule(tokens: int, shape: Shape) -> ExpertForm:
    """A form for a shape that no table has."""
    block_m = _tokens_of_tile(tokens, shape)
    if block_m <= 16:
        # Here and below: two programs a multiprocessor, each with 80 KiB and more under way.
        gate_up, down = Tile(64, 128, 3), Tile(64, 128, 5)
    elif block_m < WIDE:
        gate_up, down = Tile(64, 64, 5), Tile(64, 128, 4)
    elif block_m == WIDE:
        gate_up, down = Tile(64, 64, 4), Tile(128, 64, 4)
    else:
        gate_up, down = Tile(128, 64, 4, warps=8), Tile(256, 64, 4, warps=8)
    return ExpertForm(block_m, _fitted(gate_up, shape.hidden), _fitted(down, shape.width))


def _tokens_of_tile(tokens: int, shape: Shape) -> int:
    """Twice what an expert gets on average, so that most need one tile."""
    if tokens <= _ONCE:
        return max(16, power_of_2(tokens))
    average = -(-tokens * shape.top_k // shape.experts)
    return min(_MOST, max(_ONCE, power_of_2(2 * average)))


def _fitted(tile: Tile, inputs: int) -> Tile:
    """Not wider than the input."""
    block_k = min(tile.block_k, max(16, power_of_2(inputs)))
    return Tile(tile.block_n, block_k, tile.stages, tile.warps, tile.tiles)


def read(document: Mapping[str, Any]) -> Table:
    """A table from its JSON. ValueError names the entry that cannot be, and why."""
    return {
        shape: {int(limit): _form(shape, limit, entry) for limit, entry in by_tokens.items()}
        for shape, by_tokens in document.items()
    }


def _form(shape: str, limit: str, entry: Mapping[str, Any]) -> ExpertForm:
    try:
        return ExpertForm(entry["block_m"], Tile(**entry["gate_up"]), Tile(**entry["down"]))
    except (KeyError, TypeError) as error:
        raise ValueError(
            f"experts {shape}, up to {limit} tokens: {dict(entry)} is no form: {error}"
        ) from error
