"""An engine whose steps run as on a device, with the CPU in the device's part."""

from __future__ import annotations

import torch

from rtp_core.config.read import load_config
from rtp_core.engine import assemble
from rtp_core.execution.device.accelerator import HostAccelerator
from rtp_core.execution.device.build import Placed, build_programs
from rtp_core.execution.device.runner import DeviceRunner, Drawn
from rtp_core.execution.device.triton_attention import BoundTritonAttention
from rtp_core.execution.prompt_scores import PromptScores
from rtp_core.sampling.sampler import Sampler
from rtp_core.text.structured.masks import GrammarMasks


class HostSampler:
    """The host's sampler behind the device's interface."""

    def __init__(self, sampler):
        self._sampler = sampler

    def start(self, start, slot):
        self._sampler.start(start)

    def release(self, sequence_id, slot):
        self._sampler.release(sequence_id)

    def prepare(self, rows):
        self._sampler.prepare(rows)

    def draw(self, rows, frame, logits, num_drafts):
        known = [len(row.token_ids) - row.num_drafts for row in rows]
        positions = [row.start + count for row, count in zip(rows, known, strict=True)]
        assert frame.positions[: len(rows)].tolist() == positions
        groups = logits.float().view(len(rows), 1 + num_drafts, -1)
        kept = [group[: 1 + row.num_drafts] for group, row in zip(groups, rows, strict=True)]
        for number, row in enumerate(rows):
            if num_drafts:
                drafts = frame.drafts[number * num_drafts :][: row.num_drafts].tolist()
                assert drafts == list(row.token_ids[known[number] :])
        results, errors = self._sampler.sample(rows, torch.cat(kept))
        ids = [result.token_ids[-1] if result.token_ids else 0 for result in results]
        return Drawn(torch.tensor(ids, dtype=torch.int32), lambda: (results, errors))


def on_a_device(engine, config, *, most_in_flight=2, capture=True, accelerator=None, model=None):
    """The engine with its runner replaced."""
    prepared = assemble.prepare(config)
    spec, limits = prepared.spec, prepared.context.limits
    plain = engine._runner
    attention = BoundTritonAttention(spec, engine._memory, limits.block_size, "cpu")
    eos = frozenset(engine.info.eos_token_ids)
    masks = GrammarMasks(engine._grammars.grammars, spec.vocab_size, eos)
    sampler = HostSampler(Sampler(spec.vocab_size, eos, grammars=masks))
    accelerator = accelerator or HostAccelerator(most_in_flight)
    placed = Placed(model or plain._model, spec, limits, accelerator)
    programs = build_programs(placed, attention, engine._memory)
    if capture:
        with torch.inference_mode():
            programs.capture()
    scores = PromptScores(spec.vocab_size)
    engine._runner = DeviceRunner(programs, engine._memory, sampler, accelerator, scores)
    return engine


def answers(engine, requests):
    tokens = {}
    for request in requests:
        engine.submit(request)
    for _ in range(2000):
        if not engine.has_work:
            return tokens
        for event in engine.step():
            key = event.request_id, event.choice
            tokens.setdefault(key, []).extend(event.token_ids)
            assert event.finish_reason != "error"
    raise AssertionError("still busy")


def configured(path, memory=2**25, **sections):
    return load_config(
        overrides={
            **sections,
            "model": str(path),
            "dtype": "float32",
            "max_model_len": 200,
            "kv": {"memory": memory, "watermark": 0.0},
            "scheduling": {"max_num_seqs": 6, "max_num_batched_tokens": 64},
        }
    )
