"""Sequences that drafters are asked about."""

from __future__ import annotations

from collections.abc import Iterable

from rtp_core.api import DraftRow
from rtp_core.kv.cache import KVCache
from rtp_core.scheduling.sequence import Sequence


def rows_to_draft(
    batch: Iterable[Sequence], most: int, ahead: bool, cache: KVCache | None
) -> list[DraftRow]:
    """As `Scheduler.draft_rows`. With `cache`, drafts get blocks from it first."""
    rows: list[DraftRow] = []
    for sequence in batch:
        room = min(most, sequence.limit - len(sequence.token_ids) - 1 - ahead)
        if room > 0 and (sequence.draws_next if ahead else sequence.decoding):
            room = room if cache is None else _with_blocks(cache, sequence, room)
            if room > 0:
                tables = () if cache is None else sequence.blocks.tables
                rows.append(_row(sequence, room, tables))
    return rows


def _with_blocks(cache: KVCache, sequence: Sequence, room: int) -> int:
    """As many drafts as there are blocks for; nobody gives way to a draft."""
    length = len(sequence.token_ids)
    while room > 0 and not cache.try_grow(sequence.blocks, length + room):
        room -= 1
    return room


def _row(sequence: Sequence, room: int, tables: tuple[list[int], ...]) -> DraftRow:
    request = sequence.request
    return DraftRow(
        sequence.sequence_id,
        sequence.token_ids,
        room,
        request.tenant,
        tables,
        request.sampling,
        sequence.seed,
        sequence.choice,
    )
