"""Drawing on the device: `rtp_kernels.sampling.device` over the batch's slots."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch

from rtp_core.api import PlanRow, RowResult, SequenceStart, TokenLogprob
from rtp_core.execution.device.frame import Frame
from rtp_core.execution.device.runner import Drawn
from rtp_core.sampling.sampler import UNUSABLE
from rtp_kernels.sampling.device import DrawRows, Logprobs, draw
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
        self, num_slots: int, vocab_size: int, eos_token_ids: frozenset[int], device: str
    ) -> None:
        self._slots = SamplerSlots(num_slots, vocab_size, device)
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

    def release(self, sequence_id: str, slot: int) -> None:
        """It left; what its slot holds no longer matters."""
        self._facts.pop(sequence_id, None)
        self._joining.pop(slot, None)

    def draw(self, rows: Sequence[PlanRow], frame: Frame, logits: torch.Tensor) -> Drawn:
        """Queues the draw and the way back of its results."""
        if self._joining:
            self._slots.put(list(self._joining.values()))
            self._joining.clear()
        facts = [self._facts[row.sequence_id] for row in rows]
        count = len(rows)
        wanted = [one.logprobs for one in facts if one.logprobs is not None]
        drawn = draw(
            logits,
            self._slots,
            DrawRows(
                frame.draws[:count],
                frame.positions[:count],
                any(one.random for one in facts),
                any(one.processed for one in facts),
                any(one.truncated for one in facts),
            ),
            max(wanted) if wanted else None,
        )
        back = _Back(drawn.token_ids, drawn.usable, drawn.logprobs)
        names = [row.sequence_id for row in rows]
        counts = [one.logprobs for one in facts]
        return Drawn(drawn.token_ids, lambda: back.results(names, counts))


class _Back:
    """Results on their way to pinned memory."""

    def __init__(
        self, token_ids: torch.Tensor, usable: torch.Tensor, logprobs: Logprobs | None
    ) -> None:
        self._token_ids, self._usable = _to_host(token_ids), _to_host(usable)
        self._logprobs = None
        if logprobs is not None:
            parts = (logprobs.chosen, logprobs.top_ids, logprobs.top_values)
            self._logprobs = tuple(map(_to_host, parts))

    def results(
        self, names: Sequence[str], counts: Sequence[int | None]
    ) -> tuple[list[RowResult], dict[str, str]]:
        """Once the device is done."""
        tokens, usable = self._token_ids.tolist(), self._usable.tolist()
        logprobs = self._alternatives(tokens, counts)
        results: list[RowResult] = []
        errors: dict[str, str] = {}
        for number, name in enumerate(names):
            if usable[number]:
                results.append(RowResult(name, (tokens[number],), 0, logprobs[number]))
            else:
                errors[name] = UNUSABLE
                results.append(RowResult(name, ()))
        return results, errors

    def _alternatives(
        self, tokens: Sequence[int], counts: Sequence[int | None]
    ) -> Sequence[tuple[TokenLogprob, ...] | None]:
        if self._logprobs is None:
            return [None] * len(tokens)
        chosen, top_ids, top_values = (part.tolist() for part in self._logprobs)
        found: list[tuple[TokenLogprob, ...] | None] = []
        for row, (token, count) in enumerate(zip(tokens, counts, strict=True)):
            if count is None:
                found.append(None)
                continue
            pairs = zip(top_ids[row][:count], top_values[row][:count], strict=True)
            top = tuple(pair for pair in pairs if pair[0] >= 0)
            found.append((TokenLogprob(token, chosen[row], top),))
        return found


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
        min_tokens=sampling.min_tokens,
        num_prompt=num_prompt,
        prompt_ids=start.token_ids[:num_prompt],
        output_ids=start.token_ids[num_prompt:],
    )
