"""Token recycling: what was generated once is drafted when its context comes again.

After "Turning Trash into Treasure: Accelerating Inference of Large Language Models with Token
Recycling" (Luo et al. 2024, arXiv 2408.08696), which keeps the likely successors of every
token in an adjacency table across requests. Here the table is learnt from committed tokens
only, with contexts of one to three tokens, and walked greedily into a chain.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass

from rtp_core.api import Commit, Draft, DraftRow, SpeculatorNeeds
from rtp_spec_recycle.table import LONGEST, Context, Table

FIRST_TOKENS = 4096
"""How much of a context is learnt when a sequence is seen first."""


@dataclass(slots=True)
class Reader:
    """How far a sequence was read: `seen` tokens, ending with `tail`."""

    tenant: str
    seen: int = 0
    tail: Context = ()


class Recycler:
    """See `rtp_core.api.Speculator`. Tables are per tenant: drafts must not reveal texts."""

    def __init__(self, max_draft_tokens: int, max_contexts: int, max_tenants: int) -> None:
        self.needs = SpeculatorNeeds(max_draft_tokens=max_draft_tokens)
        self._max_contexts = max_contexts
        self._max_tenants = max_tenants
        self._tables: OrderedDict[str, Table] = OrderedDict()
        self._readers: dict[str, Reader] = {}

    def propose(self, rows: Sequence[DraftRow]) -> Sequence[Draft]:
        """Learn what is new in each row, then draft from the tenant's table."""
        return [self._propose(row) for row in rows]

    def observe(self, commits: Sequence[Commit]) -> None:
        """Learn at once, so that the last tokens of a sequence are not missed."""
        for commit in commits:
            reader = self._readers.get(commit.sequence_id)
            if reader is not None:
                self._read(reader, commit.token_ids)

    def release(self, sequence_id: str) -> None:
        """What was learnt stays; where the sequence was is forgotten."""
        self._readers.pop(sequence_id, None)

    def _propose(self, row: DraftRow) -> Draft:
        size = len(row.token_ids)
        reader = self._readers.get(row.sequence_id)
        if reader is None or reader.seen > size or reader.tenant != row.tenant:
            reader = Reader(row.tenant, max(0, size - FIRST_TOKENS))
            self._readers[row.sequence_id] = reader
        self._read(reader, row.token_ids[reader.seen :])
        most = min(row.max_tokens, self.needs.max_draft_tokens)
        return Draft(self._table(row.tenant).draft(reader.tail, most))

    def _read(self, reader: Reader, tokens: Sequence[int]) -> None:
        table = self._table(reader.tenant)
        for token in tokens:
            table.learn(reader.tail, token)
            reader.tail = (*reader.tail, token)[-LONGEST:]
        reader.seen += len(tokens)

    def _table(self, tenant: str) -> Table:
        if tenant not in self._tables:
            self._tables[tenant] = Table(self._max_contexts)
            if len(self._tables) > self._max_tenants:
                self._tables.popitem(last=False)
        self._tables.move_to_end(tenant)
        return self._tables[tenant]
