"""Drawing on the device: `rtp_kernels.sampling.device` over the batch's slots."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import torch

from rtp_core.api import (
    UNUSABLE_LOGITS,
    EngineLimits,
    PlanRow,
    RowResult,
    SequenceStart,
    TokenLogprob,
)
from rtp_core.execution.device.frame import Frame
from rtp_core.execution.device.runner import Drawn
from rtp_core.text.structured.masks import GrammarMasks, Masks
from rtp_kernels.sampling.device import DrawRows, Logprobs, draw, verify
from rtp_kernels.sampling.mask import apply_masks
from rtp_kernels.sampling.record import SlotEntry
from rtp_kernels.sampling.slots import SamplerSlots


class _Facts(NamedTuple):
    """What the host knows of a sequence: it decides which kernels run."""

    random: bool
    processed: bool
    truncated: bool
    logprobs: int | None


class SlotSampler:
    """`runner.DeviceSampler`. Sequences that join wait for the next draw."""

    def __init__(
        self,
        limits: EngineLimits,
        vocab_size: int,
        eos_token_ids: frozenset[int],
        device: str,
        grammars: GrammarMasks | None = None,
    ) -> None:
        self._grammars = grammars
        self._slots = SamplerSlots(limits.max_num_seqs, vocab_size, device)
        self._max_drafts = limits.max_draft_tokens
        self._eos = eos_token_ids
        self._joining: dict[int, SlotEntry] = {}
        self._facts: dict[str, _Facts] = {}

    def start(self, start: SequenceStart, slot: int) -> None:
        """A sequence joins the batch (again, after a preemption)."""
        entry = _entry(start, slot, self._eos)
        self._joining[slot] = entry
        self._facts[start.sequence_id] = _Facts(
            entry.random, entry.processed, entry.truncated, start.sampling.logprobs
        )
        if self._grammars is not None:
            self._grammars.start(start)

    def release(self, sequence_id: str, slot: int) -> None:
        """It left; what its slot holds no longer matters."""
        self._facts.pop(sequence_id, None)
        self._joining.pop(slot, None)
        if self._grammars is not None:
            self._grammars.release(sequence_id)

    def prepare(self, rows: Sequence[PlanRow]) -> None:
        """See `runner.DeviceSampler`."""
        if self._grammars is not None:
            self._grammars.begin(rows)

    def rehearse(self, num_rows: int) -> None:
        """See `runner.DeviceSampler`."""
        self._rehearse(num_rows)
        # Penalties have a table of counts, and their kernels are others.
        self._slots.put([SlotEntry(0, presence_penalty=1.0, bias={0: 1.0})])
        self._rehearse(num_rows)
        self._slots.clear((0,))

    def _rehearse(self, num_rows: int) -> None:
        slots, device = self._slots, self._slots.device
        for count in dict.fromkeys((1, 2, min(16, num_rows), num_rows)):
            logits = torch.zeros(count, slots.vocab_size, device=device)
            places = torch.arange(count, dtype=torch.int32, device=device)
            for random, truncated in ((False, False), (True, False), (True, True)):
                for processed in (False, True):
                    draw(logits, slots, DrawRows(places, places, random, processed, truncated))
            about = DrawRows(places, places)
            apply_masks(logits, self._no_masks(), places.neg() - 1, slots.vocab_size)
            draw(logits, slots, about, 1)
            if self._max_drafts:
                drafts = places[:, None].expand(count, self._max_drafts).contiguous()
                rows = logits.repeat_interleave(1 + self._max_drafts, dim=0)
                verify(rows, slots, about, drafts)

    def draw(
        self, rows: Sequence[PlanRow], frame: Frame, logits: torch.Tensor, num_drafts: int
    ) -> Drawn:
        """Queues the draw and the way back of its results."""
        if self._joining:
            self._slots.put(list(self._joining.values()))
            self._joining.clear()
        facts = [self._facts[row.sequence_id] for row in rows]
        count = len(rows)
        wanted = [one.logprobs for one in facts if one.logprobs is not None]
        most = max(wanted) if wanted else None
        masks = None if self._grammars is None else self._grammars.collect(rows)
        raw = None
        if masks is not None:
            raw = logits.clone() if wanted else None
            self._bar(rows, logits, masks, num_drafts)
        about = DrawRows(
            frame.draws[:count],
            frame.positions[:count],
            any(one.random for one in facts),
            any(one.processed for one in facts),
            any(one.truncated for one in facts),
            raw=raw,
        )
        names = [row.sequence_id for row in rows]
        counts = [one.logprobs for one in facts]
        if not num_drafts:
            drawn = draw(logits, self._slots, about, most)
            back = Back(drawn.token_ids[:, None], None, drawn.usable, None, drawn.logprobs)
            return Drawn(drawn.token_ids, lambda: self._read(back, names, counts, masks))
        drafts = frame.drafts[: count * num_drafts].view(count, num_drafts)
        found = verify(logits, self._slots, about, drafts, None, most)
        back = Back(found.token_ids, found.counts, found.usable, found.rows, found.logprobs)
        ends = (found.counts.long() - 1).clamp_(min=0)
        last = found.token_ids.gather(1, ends[:, None])[:, 0]
        return Drawn(last, lambda: self._read(back, names, counts, masks))

    def _bar(
        self, rows: Sequence[PlanRow], logits: torch.Tensor, masks: Masks, num_drafts: int
    ) -> None:
        """Late rows lose every token, so that they are not usable and count nothing."""
        own = 1 + num_drafts
        places = np.full((len(rows), own), -1, dtype=np.int32)
        parts = [np.zeros((1, self._words), dtype=np.int32)]
        size = 1
        for number, row in enumerate(rows):
            found = masks.ready.get(row.sequence_id)
            if found is not None:
                places[number, : len(found)] = range(size, size + len(found))
                parts.append(found)
                size += len(found)
            elif row.sequence_id in masks.late or row.sequence_id in masks.errors:
                places[number] = 0
        device = self._slots.device
        apply_masks(
            logits,
            _to_device(np.concatenate(parts), device),
            _to_device(places.reshape(-1), device),
            self._slots.vocab_size,
        )

    def _read(
        self,
        back: Back,
        names: Sequence[str],
        wanted: Sequence[int | None],
        masks: Masks | None,
    ) -> tuple[list[RowResult], dict[str, str]]:
        results, errors = back.results(names, wanted)
        if masks is None or self._grammars is None:
            return results, errors
        for number, name in enumerate(names):
            if name in masks.late:
                del errors[name]
            elif name in masks.errors:
                errors[name] = masks.errors[name]
            elif name in masks.ready and name not in errors:
                done = self._grammars.advance(name, results[number].token_ids)
                results[number] = _cut(results[number], done.num_tokens, done.complete)
                if done.error is not None:
                    errors[name] = done.error
        return results, errors

    @property
    def _words(self) -> int:
        return -(-self._slots.vocab_size // 32)

    def _no_masks(self) -> torch.Tensor:
        return torch.zeros(1, self._words, dtype=torch.int32, device=self._slots.device)


class Back:
    """Results on their way to pinned memory.

    token_ids int32 [rows, n], of which `counts` int32 [rows] are meant (None: one each); usable
    int8 [rows]; `places` int32 like token_ids: the row of `logprobs` behind each (None: the row's).
    """

    def __init__(
        self,
        token_ids: torch.Tensor,
        counts: torch.Tensor | None,
        usable: torch.Tensor,
        places: torch.Tensor | None,
        logprobs: Logprobs | None,
    ) -> None:
        self._token_ids, self._usable = _to_host(token_ids), _to_host(usable)
        self._counts = None if counts is None else _to_host(counts)
        self._places, self._logprobs = None, None
        if logprobs is not None:
            self._places = None if places is None else _to_host(places)
            parts = (logprobs.chosen, logprobs.top_ids, logprobs.top_values)
            self._logprobs = tuple(map(_to_host, parts))

    def results(
        self, names: Sequence[str], wanted: Sequence[int | None]
    ) -> tuple[list[RowResult], dict[str, str]]:
        """Once the device is done; `wanted` alternatives a row."""
        tokens, usable = self._token_ids.tolist(), self._usable.tolist()
        counts = [1] * len(names) if self._counts is None else self._counts.tolist()
        places = self._rows(tokens)
        tops = None if self._logprobs is None else [part.tolist() for part in self._logprobs]
        results: list[RowResult] = []
        errors: dict[str, str] = {}
        for row, name in enumerate(names):
            if not usable[row]:
                errors[name] = UNUSABLE_LOGITS
                results.append(RowResult(name, ()))
                continue
            drawn, most = tuple(tokens[row][: counts[row]]), wanted[row]
            found = None
            if tops is not None and most is not None:
                pairs = zip(drawn, places[row], strict=False)
                found = tuple(_alternatives(token, at, tops, most) for token, at in pairs)
            results.append(RowResult(name, drawn, len(drawn) - 1, found))
        return results, errors

    def _rows(self, tokens: Sequence[Sequence[int]]) -> Sequence[Sequence[int]]:
        if self._places is None:
            return [[row] for row in range(len(tokens))]
        return self._places.tolist()


def _alternatives(token: int, row: int, tops: Sequence[Any], most: int) -> TokenLogprob:
    chosen, top_ids, top_values = tops
    pairs = zip(top_ids[row][:most], top_values[row][:most], strict=True)
    return TokenLogprob(token, chosen[row], tuple(pair for pair in pairs if pair[0] >= 0))


def _cut(result: RowResult, count: int, complete: bool) -> RowResult:
    """The first `count` tokens of a row."""
    tokens = result.token_ids[:count]
    logprobs = None if result.logprobs is None else result.logprobs[:count]
    return RowResult(result.sequence_id, tokens, max(0, len(tokens) - 1), logprobs, complete)


def _to_device(array: np.ndarray, device: torch.device) -> torch.Tensor:
    """Through pinned memory, which its allocator keeps until the copy is done."""
    host = torch.from_numpy(array)
    if device.type == "cpu":
        return host
    return host.pin_memory().to(device, non_blocking=True)


def _to_host(tensor: torch.Tensor) -> torch.Tensor:
    if tensor.device.type == "cpu":
        return tensor
    host = torch.empty(tensor.shape, dtype=tensor.dtype, pin_memory=True)
    return host.copy_(tensor, non_blocking=True)


def _entry(start: SequenceStart, slot: int, eos: frozenset[int]) -> SlotEntry:
    sampling, num_prompt = start.sampling, start.num_prompt_tokens
    return SlotEntry(
        slot=slot,
        seed=start.seed,
        choice=start.choice,
        temperature=sampling.temperature,
        top_k=sampling.top_k,
        top_p=sampling.top_p,
        min_p=sampling.min_p,
        presence_penalty=sampling.presence_penalty,
        frequency_penalty=sampling.frequency_penalty,
        repetition_penalty=sampling.repetition_penalty,
        bias=sampling.logit_bias,
        stop_ids=tuple(eos | set(sampling.stop_token_ids)),
        min_tokens=0 if sampling.structured else sampling.min_tokens,  # the mask sees to it
        num_prompt=num_prompt,
        prompt_ids=start.token_ids[:num_prompt],
        output_ids=start.token_ids[num_prompt:],
    )
