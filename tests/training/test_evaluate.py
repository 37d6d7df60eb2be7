"""Measuring without a loop gives what a loop gives."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.nn import functional

from rtp_core.api import TargetText
from rtp_core.training.evaluate import Tally, evaluate, right_drafts, walk
from rtp_core.training.noise import noise_of
from rtp_core.training.publish import read_head


@pytest.fixture
def heads(school, tiny_texts, methods, tiny_target, tmp_path):
    """Trained a little: they are right now and then."""
    work = tmp_path / "work"
    work.mkdir()
    school(steps=60, draft_vocab=200).train(
        tiny_texts, frozenset({257}), work, None, lambda share: None
    )
    return {
        name: (
            method.load_head(tiny_target.view, *read_head(tmp_path / "heads" / name)),
            method.capture_layers(tiny_target.spec),
        )
        for name, method in methods.items()
    }


def loop_steps(draft, text, most):
    """(tokens, steps) of decoding that drafts, verifies and begins again; nothing is shared."""
    tokens, steps, known = 0, 0, text.num_prompt + 1  # the prompt's step draws the first token
    while known < len(text.token_ids):
        drafts = draft(text.token_ids[:known], most)
        right = 0
        for one, true in zip(drafts, text.token_ids[known:], strict=False):
            if one != true:
                break
            right += 1
        gained = min(right + 1, len(text.token_ids) - known)
        tokens, steps, known = tokens + gained, steps + 1, known + gained
    return tokens, steps


def eagle_chain(head, target, layers, temperature, noise):
    """Drafts after known tokens as served: one row at a time, keys of all rows in a list."""
    module = head.module

    def draft(known, most):
        ids = torch.tensor(known)
        states = target.states(ids[None, :-1], layers).captured[0]
        keys, values, out = [], [], None

        def attend(q, k, v):
            keys.append(k)
            values.append(v)
            group = q.shape[0] // k.shape[0]
            all_k = torch.stack(keys).repeat_interleave(group, 1)
            all_v = torch.stack(values).repeat_interleave(group, 1)
            scores = torch.einsum("hd,nhd->hn", q, all_k) * q.shape[1] ** -0.5
            return torch.einsum("hn,nhd->hd", scores.softmax(-1), all_v)

        fused = module.fuse(states)
        for row in range(len(known) - 1):
            embedded = target.embed[ids[row + 1]]
            out = module.layer(embedded, fused[row], torch.tensor(row), attend)
        drafts = []
        for step in range(most):
            scores = module.logits(out[None])[0]
            if noise is not None:
                position = torch.tensor([len(known) + step])
                scores = scores / temperature + noise(position, module.vocab_ids)[0]
            drafts.append(int(module.vocab_ids[scores.argmax()]))
            at = torch.tensor(len(known) - 1 + step)
            out = module.layer(target.embed[drafts[-1]], out, at, attend)
        return drafts

    return draft


def medusa_chain(head, target, layers, temperature, noise):
    module = head.module

    def draft(known, most):
        final = target.states(torch.tensor(known)[None, :-1], ()).final[0, -1:]
        drafts = []
        for step in range(most):
            scores = functional.linear(module(step, final), target.head[module.vocab_ids])[0]
            if noise is not None:
                position = torch.tensor([len(known) + step])
                scores = scores / temperature + noise(position, module.vocab_ids)[0]
            drafts.append(int(module.vocab_ids[scores.argmax()]))
        return drafts

    return draft


CHAINS = {"eagle": eagle_chain, "medusa": medusa_chain}


@torch.no_grad()
@pytest.mark.parametrize("with_noise", [False, True], ids=["best", "noise"])
def test_equal_to_a_loop_that_drafts_and_verifies(heads, tiny_target, tiny_texts, with_noise):
    texts = [one for one in tiny_texts if (one.temperature > 0) == with_noise][:3]
    mode = "T=0.8, shared noise" if with_noise else "greedy"
    found = evaluate(tiny_target, heads, texts)
    for name, (head, layers) in heads.items():
        for most in (1, 3):
            tokens = steps = 0
            for text in texts:
                noise = noise_of(text.seed) if with_noise else None
                chain = CHAINS[name](head, tiny_target, layers, text.temperature, noise)
                more = loop_steps(chain, text, most)
                tokens, steps = tokens + more[0], steps + more[1]
            speed = found[name][mode]["chat"]["tokens_per_step"][str(most)]
            assert speed == round(tokens / steps, 3)
            assert found[name][mode]["chat"]["tokens"] == tokens
        assert speed > 1.05, "too little is right for this to say anything"


def test_texts_are_told_apart_by_temperature_and_source(heads, tiny_target, tiny_texts):
    found = evaluate(tiny_target, {"eagle": heads["eagle"]}, tiny_texts[:4])["eagle"]
    assert set(found) == {"greedy", "T=0.8", "T=0.8, shared noise"}
    assert found["greedy"]["chat"]["texts"] == 2
    assert len(found["greedy"]["chat"]["acceptance"]) == 7


@torch.no_grad()
def test_drafts_past_the_end_are_wrong_and_a_mistake_ends_a_chain(tiny_target, tiny_texts):
    text = tiny_texts[0]
    ids = torch.tensor(text.token_ids)

    class Prophet:
        """Right everywhere but for token 15."""

        def drafts(self, states, first, depth, temperature, noise):
            padded = functional.pad(ids, (0, depth), value=7)
            rows = padded.unfold(0, depth, 1)[first + 2 : len(ids)].clone()
            number = torch.arange(first + 2, len(ids))[:, None] + torch.arange(depth)
            rows[number == 15] += 1
            return rows

    states = TargetText(ids, torch.zeros(len(ids), 0), torch.zeros(len(ids), 1))
    right = right_drafts(Prophet(), text, states, 3)
    assert len(right) == len(text.answer) - 1
    lengths = right.sum(1).tolist()
    for place, length in enumerate(lengths, text.num_prompt + 1):
        inside = min(3, len(ids) - place)
        assert length == (min(15 - place, inside) if place <= 15 < place + 3 else inside)


@given(st.lists(st.integers(0, 7), max_size=60))
def test_a_walk_takes_every_token_once(accepted):
    tokens, steps = walk(accepted)
    assert tokens == len(accepted)
    assert steps <= tokens
    assert walk([0] * len(accepted)) == (len(accepted), len(accepted))


def test_acceptance_counts_only_chains_that_got_so_far():
    tally = Tally(2)
    tally.add(torch.tensor([[True, True], [True, False], [False, False], [False, False]]))
    assert tally.summary()["acceptance"] == [0.5, 0.5]
    assert Tally(2).summary()["tokens_per_step"] == {"1": 0.0, "2": 0.0}
