"""A drafter that reads states, fed as the engine feeds it, by a model that is a formula."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from rtp_core.api import (
    BoundAttention,
    BuildContext,
    Commit,
    Draft,
    DraftParts,
    DraftRow,
    HiddenStates,
    KVFormatId,
    ModelSpec,
    Speculator,
    StateRow,
    StateSpeculator,
)
from rtp_core.execution.torch_attention import TorchAttention
from rtp_core.testing.fakes.kv import PlaneStore

NUM_BLOCKS = 256


class FormulaModel:
    """`api.DraftableModel`: fixed random rows; a state depends on its token and place only."""

    def __init__(self, spec: ModelSpec) -> None:
        generator = torch.Generator().manual_seed(17)
        shape = (spec.vocab_size, spec.hidden_size)
        self._embed = torch.randn(shape, generator=generator)
        self._head = torch.randn(shape, generator=generator)
        self._turns = torch.randn(spec.hidden_size, generator=generator)

    def embed(self, token_ids: torch.Tensor) -> torch.Tensor:
        """Fixed rows."""
        return self._embed[token_ids]

    def normed(self, hidden: torch.Tensor) -> torch.Tensor:
        """As they are."""
        return hidden

    def head_rows(self, token_ids: torch.Tensor | None = None) -> torch.Tensor:
        """Fixed rows."""
        return self._head if token_ids is None else self._head[token_ids]

    def states(self, token_ids: Sequence[int], start: int, layer: int) -> torch.Tensor:
        """Entering a layer, of tokens from place `start` on."""
        places = torch.arange(start, start + len(token_ids))[:, None]
        return self._embed[list(token_ids)] + torch.sin(self._turns * (places + layer))


class FedDrafter:
    """`api.Speculator` over a drafter that reads states: what it lacks it is given first.

    Every sequence has blocks of its own, unless `share` gave it some of another's.
    """

    def __init__(self, speculator: Speculator, context: BuildContext, spec: ModelSpec) -> None:
        if not isinstance(speculator, StateSpeculator):
            raise TypeError(f"{type(speculator).__name__} has no bind and extend")
        self.needs = speculator.needs
        self.groups = self.needs.kv_groups
        self.size = context.limits.block_size
        counts = [NUM_BLOCKS] * len(self.groups)
        self.memory = PlaneStore().open(self.groups, counts, self.size, "cpu")
        self.tables: dict[str, list[int]] = {}
        self._speculator: Speculator = speculator
        self._reader: StateSpeculator = speculator
        self._model = FormulaModel(spec)
        self._fed: dict[str, int] = {}
        states = tuple(self.memory.states(number) for number in range(len(self.groups)))
        speculator.bind(DraftParts(self._model, self._attention, states))

    def feed(self, name: str, token_ids: Sequence[int], chunk: int = 1024) -> None:
        """Commit tokens that were not, at most `chunk` at once."""
        begin = self._fed.get(name, 0)
        while begin < len(token_ids):
            end = min(len(token_ids), begin + chunk)
            row = StateRow(name, list(token_ids[begin:end]), begin, 0, self._grown(name, end))
            self._reader.extend([row], self._states(row))
            self._fed[name] = begin = end

    def share(self, name: str, other: str, num_blocks: int) -> None:
        """A new sequence finds the first blocks of another one in the cache."""
        self.tables[name] = self.tables[other][:num_blocks]
        self._fed[name] = num_blocks * self.size

    def propose(self, rows: Sequence[DraftRow]) -> Sequence[Draft]:
        """Feed all but the last token of each row, then ask."""
        asked: list[DraftRow] = []
        for row in rows:
            length = len(row.token_ids)
            self.feed(row.sequence_id, row.token_ids[: length - 1])
            tables = self._grown(row.sequence_id, length + row.max_tokens)
            asked.append(row._replace(block_tables=tables))
        return self._speculator.propose(asked)

    def observe(self, commits: Sequence[Commit]) -> None:
        """Passed on."""
        self._speculator.observe(commits)

    def release(self, sequence_id: str) -> None:
        """Its blocks go back."""
        self._fed.pop(sequence_id, None)
        for block in self.tables.pop(sequence_id, []):
            self.memory.space(0).free(block)
        self._speculator.release(sequence_id)

    def _grown(self, name: str, length: int) -> tuple[list[int], ...]:
        table = self.tables.setdefault(name, [])
        while self.groups and len(table) * self.size < length:
            block = self.memory.space(0).allocate(KVFormatId.DENSE)
            if block is None:
                raise RuntimeError("the suite has no block left")
            table.append(block)
        return tuple(table for _ in self.groups)

    def _states(self, row: StateRow) -> HiddenStates:
        def of(layer: int) -> torch.Tensor:
            return self._model.states(row.token_ids, row.start, layer)

        captured = {layer: of(layer) for layer in self.needs.capture_layers}
        return HiddenStates(captured, of(99) if self.needs.wants_final_hidden else None)

    def _attention(self, spec: ModelSpec) -> BoundAttention:
        return TorchAttention("cpu").bind(spec, self.memory, self.size)
