"""Drafters. The core verifies by drafter-invariant matching: a draft is accepted iff it
equals the token plain decoding would have drawn, so a drafter cannot change the output.

A drafter that reads tokens is a `Speculator`. One that reads the model's hidden states, or has
layers of its own, is a `StateSpeculator` too.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, NamedTuple, Protocol, runtime_checkable

from rtp_core.api.kv import KVGroup
from rtp_core.api.model import BoundAttention, ModelSpec
from rtp_core.api.sampling_params import SamplingParams

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True, slots=True)
class SpeculatorNeeds:
    """Declared before memory is sized; an overrun is refused at load.

    `capture_layers` asks for the hidden states entering those layers, `wants_final_hidden` for
    those behind the final norm; `kv_groups` for cache of the drafter's own layers, numbered from
    0, tabled with the request's; `memory_bytes` for device memory outside the KV cache (host
    memory is the drafter's own affair).
    """

    max_draft_tokens: int
    topology: Literal["chain", "tree"] = "chain"
    capture_layers: tuple[int, ...] = ()
    wants_final_hidden: bool = False
    kv_groups: tuple[KVGroup, ...] = ()
    memory_bytes: int = 0

    @property
    def states(self) -> bool:
        """True for what only a `StateSpeculator` can be given."""
        return bool(self.capture_layers or self.wants_final_hidden or self.kv_groups)


class DraftRow(NamedTuple):
    """A sequence that may draft: all its committed tokens, and how many drafts fit.

    `block_tables`, one a group the drafter declared, hold the slots of these tokens and drafts.
    Draft i is verified against the token drawn with `sampling` and with noise keyed by `seed`,
    position len(token_ids) + i and `choice`: a drafter may draw with the same noise.
    """

    sequence_id: str
    token_ids: Sequence[int]
    max_tokens: int
    tenant: str = ""
    block_tables: tuple[Sequence[int], ...] = ()
    sampling: SamplingParams = SamplingParams()
    seed: int = 0
    choice: int = 0


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


@runtime_checkable
class DraftableModel(Protocol):
    """What drafters read of the model they draft for; `CausalModel`s may be this too."""

    def embed(self, token_ids: torch.Tensor) -> torch.Tensor:
        """int64 [n] -> [n, hidden_size], as the first layer takes them."""
        ...

    def normed(self, hidden: torch.Tensor) -> torch.Tensor:
        """[n, hidden_size] behind the last layer -> the same behind the final norm."""
        ...

    def head_rows(self, token_ids: torch.Tensor | None = None) -> torch.Tensor:
        """[n, hidden_size] rows of the head; of all tokens it is the model's own tensor."""
        ...


@dataclass(frozen=True, slots=True)
class DraftParts:
    """What a drafter may use of the engine, once weights and cache are there.

    `attention` binds the drafter's own layers: it takes a description whose `kv_groups` are
    those of `needs`. Rows planned with it need `token_ids` for their number only. `states` are
    the `KVMemory.states` of these groups.
    """

    model: DraftableModel
    attention: Callable[[ModelSpec], BoundAttention]
    states: tuple[torch.Tensor, ...]


class StateRow(NamedTuple):
    """Committed tokens whose states were just computed.

    Their states are rows `begin` … of `HiddenStates`; `start` is the index of the first in its
    sequence. `block_tables` as in DraftRow.
    """

    sequence_id: str
    token_ids: Sequence[int]
    start: int
    begin: int
    block_tables: tuple[Sequence[int], ...]


class HiddenStates(NamedTuple):
    """[tokens, hidden_size] each: entering the layers asked for, and behind the final norm."""

    captured: Mapping[int, torch.Tensor]
    final: torch.Tensor | None = None


@runtime_checkable
class StateSpeculator(Protocol):
    """A drafter that reads hidden states; `Speculator`s may be this too."""

    def bind(self, parts: DraftParts) -> None:
        """Called once, before the first step: load weights, bind operations."""
        ...

    def extend(self, rows: Sequence[StateRow], states: HiddenStates) -> None:
        """Called after each step, with every token it committed, before drafts are asked for.

        Blocks that these tokens fill are shared with other sequences afterwards: what the
        drafter keeps in them must be there when this returns, and depend on nothing but tokens
        up to the block's last. A sequence that begins behind token 0 found the blocks before
        it in the cache. Tensors are read before this returns.
        """
        ...
