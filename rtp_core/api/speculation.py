"""Drafters. The core verifies by drafter-invariant matching: a draft is accepted iff it
equals the token plain decoding would have drawn, so a drafter cannot change the output.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, NamedTuple, Protocol

from rtp_core.api.kv import KVGroup

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True, slots=True)
class SpeculatorNeeds:
    """Declared before memory is sized; an overrun is refused at load.

    `capture_layers` asks for the hidden states entering those layers; `kv_groups` for
    cache of the drafter's own layers, tabled with the request's; `memory_bytes` for device
    memory outside the KV cache (host memory is the drafter's own affair).
    """

    max_draft_tokens: int
    topology: Literal["chain", "tree"] = "chain"
    capture_layers: tuple[int, ...] = ()
    wants_final_hidden: bool = False
    kv_groups: tuple[KVGroup, ...] = ()
    memory_bytes: int = 0


class DraftRow(NamedTuple):
    """A sequence that may draft: all its committed tokens, and how many drafts fit.

    `hidden` holds the captured states of the last committed rows if asked for. Slots of
    this step are `block_tables`, one a group the drafter declared.
    """

    sequence_id: str
    token_ids: Sequence[int]
    max_tokens: int
    tenant: str = ""
    hidden: torch.Tensor | None = None
    block_tables: tuple[Sequence[int], ...] = ()


class Draft(NamedTuple):
    """Proposed continuation; `parents` None means a chain."""

    token_ids: Sequence[int] = ()
    parents: Sequence[int] | None = None


class Commit(NamedTuple):
    """What became of a row: the tokens appended, and how many drafts were right."""

    sequence_id: str
    token_ids: Sequence[int]
    num_drafted: int
    num_accepted: int


class Speculator(Protocol):
    """Proposes drafts. An exception at run time drops the drafter, not the request.

    Equal calls propose equal drafts; what one tenant's text taught is never drafted for
    another; what is kept of a sequence ends with `release`, and what is kept of a tenant has a
    bound.
    """

    @property
    def needs(self) -> SpeculatorNeeds:
        """Fixed at construction."""
        ...

    def propose(self, rows: Sequence[DraftRow]) -> Sequence[Draft]:
        """One draft a row, in order; an empty one means no idea."""
        ...

    def observe(self, commits: Sequence[Commit]) -> None:
        """Called after each step for the rows this speculator serves."""
        ...

    def release(self, sequence_id: str) -> None:
        """Forget a sequence; unknown ids are ignored."""
        ...
