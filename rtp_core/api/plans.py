"""The step contract: what the scheduler asks for and what the runner answers.

`StepPlan` is plain data and serialisable, so that rank 0 can send it to other ranks.
Token index, position id and KV slot are three different things: `start` counts tokens,
`positions` overrides position ids, block tables give slots.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from rtp_core.api.kv import BlockCopy, KVLoad
from rtp_core.api.requests import TokenLogprob
from rtp_core.api.sampling_params import SamplingParams
from rtp_core.api.speculation import HiddenStates

TO_BE_DRAWN = -1
"""In `PlanRow.token_ids`: the token that the step before this one draws for the sequence.

Such a step is planned while the one before it runs; only the device knows the token yet.
"""


UNUSABLE_LOGITS = "the model produced unusable logits (NaN or all minus infinity)"
"""Why a sequence ends of which no token can be drawn."""


class FeatureSpan(NamedTuple):
    """Rows `start` … `start + length` of the step's tokens take encoder features instead."""

    start: int
    length: int
    digest: str
    offset: int


class PlanRow(NamedTuple):
    """The work of one sequence in one step.

    token_ids: known tokens to compute, then `num_drafts` draft tokens.
    start: index of token_ids[0] in the sequence = KV tokens already valid.
    samples: the row reaches the end of the known tokens, so tokens are drawn for it.
    block_tables: one table of block ids a KV group; read-only view, valid for this step.
    tree_parents: parent index of each draft within the row (-1 = last known token);
        None means a chain.
    positions: position ids of token_ids, three rows for mRoPE; None means start, start+1, …
    writes_kv: False = compute without a slot (nothing is stored).
    """

    sequence_id: str
    token_ids: Sequence[int]
    start: int
    num_drafts: int
    samples: bool
    block_tables: tuple[Sequence[int], ...]
    tree_parents: Sequence[int] | None = None
    positions: Sequence[Sequence[int]] | None = None
    features: tuple[FeatureSpan, ...] = ()
    writes_kv: bool = True


@dataclass(frozen=True, slots=True)
class SequenceStart:
    """Announces a sequence to the runner, on admission and again after preemption.

    `token_ids` is prompt plus outputs so far; `seed` is the 64-bit noise key; `choice` the
    index among the request's n.
    """

    sequence_id: str
    sampling: SamplingParams
    seed: int
    choice: int
    token_ids: tuple[int, ...]
    num_prompt_tokens: int


@dataclass(frozen=True, slots=True)
class StepPlan:
    """One step: deltas of the batch, block traffic, then one forward over all rows."""

    step_id: int
    rows: tuple[PlanRow, ...]
    started: tuple[SequenceStart, ...] = ()
    released: tuple[str, ...] = ()
    copies: tuple[BlockCopy, ...] = ()
    loads: tuple[KVLoad, ...] = ()

    @property
    def num_tokens(self) -> int:
        """Token rows of the forward."""
        return sum(len(row.token_ids) for row in self.rows)


class RowResult(NamedTuple):
    """Tokens drawn for a row: accepted drafts, then the bonus token; empty if not sampling.

    Empty for a row that samples: nothing could be drawn yet, its last token is to be computed
    again. `complete`: the sequence's grammar lets nothing follow, so it ends here.
    `prompt_logprobs`: of the prompt's tokens that follow the row's tokens, if they are wanted.
    """

    sequence_id: str
    token_ids: tuple[int, ...]
    num_accepted: int = 0
    logprobs: tuple[TokenLogprob, ...] | None = None
    complete: bool = False
    prompt_logprobs: tuple[TokenLogprob, ...] = ()


@dataclass(frozen=True, slots=True)
class StepResult:
    """Answer to a StepPlan, rows in plan order.

    `errors` names sequences whose logits were unusable (NaN) with a reason; they end with
    FinishReason.ERROR and the others go on. Of the `seconds` the runner took, `model_seconds`
    passed inside the model's forward and head; the rest is the host's own work. `states` of all
    the step's tokens, in order, are there if a drafter asked for them; they stay in the process
    that computed them.
    """

    step_id: int
    rows: tuple[RowResult, ...]
    seconds: float = 0.0
    errors: dict[str, str] = field(default_factory=dict)
    model_seconds: float = 0.0
    states: HiddenStates | None = None
