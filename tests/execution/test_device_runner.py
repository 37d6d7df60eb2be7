"""The runner of devices, with the CPU in the device's part: same tokens as the plain runner."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from rtp_core import SamplingParams
from rtp_core.api import Draft, Request, SpeculatorNeeds, StructuredOutput
from rtp_core.engine import assemble
from rtp_core.engine.assemble import build_engine

pytest.importorskip("transformers")
sys.path.insert(0, str(Path(__file__).parents[1] / "models"))
sys.path.insert(0, str(Path(__file__).parent))
from device_world import answers, configured, on_a_device
from small_models import random_ids, random_model

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
        ("Qwen3MoeForCausalLM", "a dense layer"),
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
    """Alone in programs that pad them, and beside prompts: right ones, wrong ones and none."""
    path = save_model(random_model(architecture, case))
    expected = answers(build_engine(configured(path)), requests())
    drafting = configured(path, speculation={"methods": ["ngram"], "max_draft_tokens": 3})
    engine = on_a_device(build_engine(drafting), drafting, capture=capture)
    engine._speculation._speculators["ngram"] = HalfRight(expected)
    assert answers(engine, requests()) == expected
    stats = engine.stats()
    assert 0 < stats.spec_accepted_tokens < stats.spec_draft_tokens
    assert engine._scheduler.cache.num_blocks_used == 0


class HalfRight:
    """Knows the answers; drafts nothing for some lengths, and a wrong token here and there."""

    needs = SpeculatorNeeds(3)

    def __init__(self, expected):
        self._answers = {f"{request}/{choice}": ids for (request, choice), ids in expected.items()}
        self._prompts = {one.request_id: len(one.prompt_token_ids) for one in requests()}

    def propose(self, rows):
        return [Draft(self._draft(row)) for row in rows]

    def _draft(self, row):
        request = row.sequence_id.partition("/")[0]
        done = len(row.token_ids) - self._prompts[request]
        draft = self._answers[row.sequence_id][done : done + min(row.max_tokens, 1 + done % 4)]
        if done % 3 == 1:
            draft[done % 2 :] = [1] * len(draft[done % 2 :])
        return draft if done % 5 else []

    def observe(self, commits):
        """Knows it all."""

    def release(self, sequence_id):
        """Keeps it all."""


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
