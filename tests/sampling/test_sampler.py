"""The sampler against a plain loop: drafts, batching and order never change the tokens."""

from __future__ import annotations

import random

import pytest
import torch

from rtp_core.api import PlanRow, SamplingParams, SequenceStart
from rtp_core.sampling.sampler import Sampler

VOCAB = 40
EOS = frozenset({3})


def toy_logits(tokens):
    """A second-order toy model: logits depend on the last two tokens."""
    seed = tokens[-1] * 1009 + (tokens[-2] if len(tokens) > 1 else 0)
    return torch.randn(VOCAB, generator=torch.Generator().manual_seed(seed)) * 2


def start(sampling, prompt, sequence_id="a", choice=0, tokens=None):
    return SequenceStart(sequence_id, sampling, 99, choice, tuple(tokens or prompt), len(prompt))


def decode(sampling, prompt, count, drafter=None, choice=0):
    """Tokens drawn step by step, with drafts from `drafter(tokens, truth)`."""
    sampler = Sampler(VOCAB, EOS)
    sampler.start(start(sampling, prompt, choice=choice))
    tokens, steps = list(prompt), 0
    while len(tokens) < len(prompt) + count:
        drafts = list(drafter(tokens)) if drafter else []
        new = [tokens[-1], *drafts]
        rows = [toy_logits(tokens + drafts[:i]) for i in range(len(drafts) + 1)]
        row = PlanRow("a", new, len(tokens) - 1, len(drafts), True, ([0],))
        (result,), errors = sampler.sample([row], torch.stack(rows))
        assert not errors
        assert result.num_accepted == len(result.token_ids) - 1
        tokens.extend(result.token_ids)
        steps += 1
    return tokens[len(prompt) : len(prompt) + count], steps


PARAMS = {
    "greedy": SamplingParams(temperature=0),
    "seeded": SamplingParams(temperature=1.0, seed=1),
    "truncated": SamplingParams(temperature=0.8, top_k=10, top_p=0.9, min_p=0.01),
    "penalties": SamplingParams(
        temperature=1.0, presence_penalty=1.0, frequency_penalty=0.7, repetition_penalty=1.3
    ),
    "greedy_penalties": SamplingParams(temperature=0, repetition_penalty=1.5),
    "min_tokens": SamplingParams(temperature=1.0, min_tokens=20, max_tokens=40),
    "bias": SamplingParams(temperature=1.0, logit_bias={5: 3.0, 7: -100.0}),
}


@pytest.mark.parametrize("sampling", PARAMS.values(), ids=PARAMS.keys())
@pytest.mark.parametrize("kind", ["oracle", "wrong", "random", "half"])
def test_drafts_never_change_the_tokens(sampling, kind):
    prompt = [1, 2, 5]
    plain, plain_steps = decode(sampling, prompt, 60)
    draw = random.Random(4)

    def drafter(tokens):
        truth = plain[len(tokens) - len(prompt) :][:4]
        if kind == "oracle":
            return truth
        if kind == "wrong":
            return [(token + 1) % VOCAB for token in truth]
        if kind == "random":
            return [draw.randrange(VOCAB) for _ in range(draw.randrange(5))]
        return [t if draw.random() < 0.5 else (t + 1) % VOCAB for t in truth]

    drafted, steps = decode(sampling, prompt, 60, drafter)
    assert drafted == plain
    if kind == "oracle":
        assert steps <= plain_steps / 4
    if kind == "wrong":
        assert steps == plain_steps


def test_tree_drafts_take_the_matching_branch():
    sampling = SamplingParams(temperature=1.0)
    prompt = [1, 2, 5]
    plain, _ = decode(sampling, prompt, 3)
    wrong = (plain[0] + 1) % VOCAB
    # nodes: 0 = wrong, 1 = right, 2 = child of the wrong one, 3 = right child of the right one
    drafts, parents = [wrong, plain[0], 7, plain[1]], [-1, -1, 0, 1]
    paths = [[], [wrong], [plain[0]], [wrong, 7], [plain[0], plain[1]]]
    logits = torch.stack([toy_logits(prompt + path) for path in paths])
    sampler = Sampler(VOCAB, EOS)
    sampler.start(start(sampling, prompt))
    row = PlanRow("a", [5, *drafts], 2, 4, True, ([0],), tree_parents=parents)
    (result,), _ = sampler.sample([row], logits)
    assert list(result.token_ids) == plain
    assert result.num_accepted == 2


def test_rows_do_not_depend_on_the_batch():
    ids = ("a", "b", "c")
    params = (PARAMS["seeded"], PARAMS["penalties"], PARAMS["greedy"])
    together, apart = Sampler(VOCAB, EOS), []
    rows, logits = [], []
    for sequence_id, sampling in zip(ids, params, strict=True):
        began = start(sampling, [1, 2], sequence_id)
        together.start(began)
        alone = Sampler(VOCAB, EOS)
        alone.start(began)
        row = PlanRow(sequence_id, [2], 1, 0, True, ([0],))
        rows.append(row)
        logits.append(toy_logits([1, ord(sequence_id)]))
        apart.append(alone.sample([row], logits[-1][None])[0][0])
    assert together.sample(rows, torch.stack(logits))[0] == apart


def test_choices_and_seeds_differ_and_repeat():
    sampling = PARAMS["seeded"]
    first, _ = decode(sampling, [1, 2], 30)
    assert decode(sampling, [1, 2], 30)[0] == first
    assert decode(sampling, [1, 2], 30, choice=1)[0] != first


def test_restart_after_preemption_continues_the_same_text():
    sampling = PARAMS["penalties"]
    prompt = [1, 2, 5]
    whole, _ = decode(sampling, prompt, 30)
    sampler = Sampler(VOCAB, EOS)
    tokens = prompt + whole[:10]
    sampler.start(start(sampling, prompt, tokens=tokens))
    while len(tokens) < 33:
        row = PlanRow("a", tokens, 0, 0, True, ([0],))
        (result,), _ = sampler.sample([row], toy_logits(tokens)[None])
        tokens.extend(result.token_ids)
    assert tokens[3:] == whole


def test_min_tokens_masks_every_stop():
    sampling = SamplingParams(
        temperature=0, min_tokens=2, max_tokens=5, stop_token_ids=(4,), logit_bias={3: 50.0, 4: 40}
    )
    logits = torch.zeros(1, VOCAB)
    sampler = Sampler(VOCAB, EOS)
    sampler.start(start(sampling, [1]))
    drawn = []
    for position in range(1, 4):
        row = PlanRow("a", [0], position - 1, 0, True, ([0],))
        drawn.append(sampler.sample([row], logits)[0][0].token_ids[0])
    assert drawn[0] not in (3, 4)
    assert drawn[1] not in (3, 4)
    assert drawn[2] == 3


def test_unusable_logits_end_their_own_sequence_only():
    sampler = Sampler(VOCAB, EOS)
    rows, logits = [], torch.randn(3, VOCAB)
    logits[1] = float("nan")
    logits[2] = float("-inf")
    for sequence_id in "abc":
        sampler.start(start(PARAMS["seeded"], [1], sequence_id))
        rows.append(PlanRow(sequence_id, [1], 0, 0, True, ([0],)))
    results, errors = sampler.sample(rows, logits)
    assert set(errors) == {"b", "c"}
    assert len(results[0].token_ids) == 1
    assert results[1].token_ids == ()


def test_padded_vocabulary_is_never_drawn():
    sampler = Sampler(VOCAB, EOS)
    sampler.start(start(SamplingParams(temperature=0), [1]))
    logits = torch.zeros(1, VOCAB + 8)
    logits[0, VOCAB + 2] = 100.0
    row = PlanRow("a", [1], 0, 0, True, ([0],))
    assert sampler.sample([row], logits)[0][0].token_ids[0] < VOCAB


def test_logprobs_are_of_the_raw_distribution():
    sampling = SamplingParams(temperature=0.5, logprobs=3, logit_bias={7: 5.0})
    sampler = Sampler(VOCAB, EOS)
    sampler.start(start(sampling, [1]))
    logits = toy_logits([1, 2])[None]
    row = PlanRow("a", [1], 0, 0, True, ([0],))
    (entry,) = sampler.sample([row], logits)[0][0].logprobs
    raw = logits[0].log_softmax(0)
    assert entry.logprob == pytest.approx(float(raw[entry.token_id]), abs=1e-6)
    assert [token for token, _ in entry.top] == raw.topk(3).indices.tolist()
