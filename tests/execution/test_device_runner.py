"""The runner of devices, with the CPU in the device's part: same tokens as the plain runner."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch

from rtp_core import SamplingParams
from rtp_core.api import Request, StructuredOutput
from rtp_core.config.read import load_config
from rtp_core.engine import assemble
from rtp_core.engine.assemble import build_engine
from rtp_core.execution.device.accelerator import HostAccelerator
from rtp_core.execution.device.build import Placed, build_programs
from rtp_core.execution.device.runner import DeviceRunner, Drawn
from rtp_core.execution.device.triton_attention import BoundTritonAttention
from rtp_core.sampling.sampler import Sampler
from rtp_core.text.structured.masks import GrammarMasks

pytest.importorskip("transformers")
sys.path.insert(0, str(Path(__file__).parents[1] / "models"))
from small_models import random_ids, random_model


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


def on_a_device(engine, config, *, most_in_flight=2, capture=True):
    """The engine with its runner replaced."""
    prepared = assemble.prepare(config)
    spec, limits = prepared.spec, prepared.context.limits
    plain = engine._runner
    attention = BoundTritonAttention(spec, engine._memory, limits.block_size, "cpu")
    eos = frozenset(engine.info.eos_token_ids)
    masks = GrammarMasks(engine._grammars.grammars, spec.vocab_size, eos)
    sampler = HostSampler(Sampler(spec.vocab_size, eos, grammars=masks))
    accelerator = HostAccelerator(most_in_flight)
    placed = Placed(plain._model, spec, limits, accelerator)
    programs = build_programs(placed, attention, engine._memory)
    if capture:
        with torch.inference_mode():
            programs.capture()
    engine._runner = DeviceRunner(programs, engine._memory, sampler, accelerator)
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


GREEDY = SamplingParams(temperature=0.0, max_tokens=12, ignore_eos=True)
DRAWN = SamplingParams(temperature=0.9, top_p=0.9, seed=7, max_tokens=9, n=2, presence_penalty=0.5)


def requests():
    lengths = (1, 5, 16, 33, 60, 97)
    prompts = [tuple(random_ids(length, seed=length)) for length in lengths]
    prompts += [(*prompts[-1][:80], *random_ids(9, seed=1))]
    params = [GREEDY, DRAWN]
    return [
        Request(f"r{number}", prompt, params[number % 2]) for number, prompt in enumerate(prompts)
    ]


@pytest.mark.parametrize(
    ("architecture", "case"),
    [
        ("LlamaForCausalLM", "llama3"),
        ("SmolLM3ForCausalLM", "windows where unturned"),
        ("Qwen3ForCausalLM", "wide heads, tied"),
        ("Gemma3ForCausalLM", "five to one"),
    ],
)
@pytest.mark.parametrize("capture", [True, False])
def test_tokens_are_those_of_the_plain_runner(architecture, case, capture, save_model):
    config = configured(save_model(random_model(architecture, case)))
    expected = answers(build_engine(config), requests())
    engine = on_a_device(build_engine(config), config, capture=capture)
    assert answers(engine, requests()) == expected
    assert engine._scheduler.cache.num_blocks_used == 0


def test_a_pool_too_small_for_the_batch_changes_nothing(save_model):
    """Preemption while steps are in flight."""
    path = save_model(random_model("LlamaForCausalLM", "llama3"))
    growing = SamplingParams(temperature=0.0, max_tokens=60, ignore_eos=True)
    work = [Request(f"r{n}", tuple(random_ids(30, seed=n)), growing) for n in range(3)]
    expected = answers(build_engine(configured(path)), work)
    roomy = assemble.prepare(configured(path, memory=2**25))
    (group,) = roomy.spec.kv_groups
    block = roomy.store.block_bytes(group, roomy.context.limits.block_size)
    few = configured(path, memory=14 * block)
    engine = on_a_device(build_engine(few), few)
    assert answers(engine, work) == expected
    assert engine.stats().preemptions > 0


@pytest.mark.parametrize(
    ("architecture", "case"),
    [("LlamaForCausalLM", "llama3"), ("Gemma3ForCausalLM", "five to one")],
)
@pytest.mark.parametrize("capture", [True, False])
def test_drafts_are_verified(architecture, case, capture, save_model):
    """Alone in programs that pad them, and beside prompts."""
    path = save_model(random_model(architecture, case))
    repeating = [*requests(), *(Request(f"x{n}", (5, 6, 7) * (9 + n), GREEDY) for n in range(3))]
    expected = answers(build_engine(configured(path)), repeating)
    drafting = configured(path, speculation={"methods": ["ngram"], "max_draft_tokens": 3})
    engine = on_a_device(build_engine(drafting), drafting, capture=capture)
    assert answers(engine, repeating) == expected
    stats = engine.stats()
    assert stats.spec_draft_tokens > 0
    assert stats.spec_accepted_tokens > 0 or architecture == "LlamaForCausalLM"  # it never repeats


@pytest.mark.parametrize("most_in_flight", [1, 2, 3])
@pytest.mark.parametrize("sections", [{}, {"speculation": {"methods": ["ngram"]}}])
def test_rows_under_a_grammar_beside_pipelined_ones(save_model, most_in_flight, sections):
    """They are planned when their last token is known; the others keep their pace."""
    path = save_model(random_model("LlamaForCausalLM", "llama3"))
    under = SamplingParams(
        temperature=1.0,
        seed=3,
        n=2,
        max_tokens=20,
        structured=StructuredOutput("regex", "[a-d]{9,}"),
    )
    work = [*requests(), *(Request(f"g{n}", (5, 6, 7) * (1 + n), under) for n in range(2))]
    expected = answers(build_engine(configured(path)), work)
    assert len({token for key, ids in expected.items() if key[0] == "g0" for token in ids}) <= 5
    config = configured(path, **sections)
    engine = on_a_device(build_engine(config), config, most_in_flight=most_in_flight)
    assert answers(engine, work) == expected
    assert engine._scheduler.cache.num_blocks_used == 0
