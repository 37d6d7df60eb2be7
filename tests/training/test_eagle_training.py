"""What the training-time test teaches is what serving asks."""

from __future__ import annotations

import pytest
import torch

SHAPE = (2, 9, 6, 2, 16)
"""Texts, length, heads, KV heads, dim."""


def heads_of(seed):
    torch.manual_seed(seed)
    texts, length, heads, kv_heads, dim = SHAPE
    return [torch.randn(texts, length, count, dim) for count in (heads, kv_heads, kv_heads)]


def test_each_row_of_a_step_sees_true_keys_up_to_itself_and_its_own_later_ones(plugins):
    from rtp_spec_eagle.training.attention import TestTimeAttention

    steps = [heads_of(seed) for seed in range(4)]
    attend = TestTimeAttention()
    for number, (q, k, v) in enumerate(steps):
        found = attend(q, k, v)
        for text in range(SHAPE[0]):
            for row in range(SHAPE[1]):
                keys = [steps[0][1][text, : row + 1]]
                values = [steps[0][2][text, : row + 1]]
                for _, own_k, own_v in steps[1 : number + 1]:
                    keys.append(own_k[text, row : row + 1])
                    values.append(own_v[text, row : row + 1])
                wanted = attention(q[text, row], torch.cat(keys), torch.cat(values))
                torch.testing.assert_close(found[text, row], wanted)


def attention(q, k, v):
    """q [heads, dim], k and v [n, kv_heads, dim]."""
    group = q.shape[0] // k.shape[1]
    k, v = k.repeat_interleave(group, 1), v.repeat_interleave(group, 1)
    scores = torch.einsum("hd,nhd->hn", q, k) * q.shape[1] ** -0.5
    return torch.einsum("hn,nhd->hd", scores.softmax(-1), v)


def test_its_gradient_reaches_keys_and_values_of_every_step(plugins):
    from rtp_spec_eagle.training.attention import TestTimeAttention

    steps = [[one.requires_grad_() for one in heads_of(seed)] for seed in range(3)]
    attend = TestTimeAttention()
    out = [attend(*one) for one in steps]
    out[-1].square().sum().backward()
    for number, (q, k, v) in enumerate(steps):
        assert k.grad.abs().sum() > 0
        assert v.grad.abs().sum() > 0
        assert (q.grad is not None) == (number == 2)


def test_depth_grows_while_a_training_goes_on(plugins):
    from rtp_spec_eagle.training.head import steps_at

    depths = [steps_at(share / 100) for share in range(102)]
    assert depths == sorted(depths)
    assert depths[0] == 1
    assert depths[-1] >= 5


@torch.no_grad()
def test_rows_are_held_against_the_law_of_the_token_they_draft(
    plugins, methods, tiny_target, tiny_texts
):
    from rtp_core.training.batches import make_batches
    from rtp_core.training.lessons import Lessons

    vocab_ids = torch.arange(0, 259, 2)
    layers = methods["eagle"].capture_layers(tiny_target.spec)
    batches = make_batches(tiny_texts[:3], 10_000, 0, torch.device("cpu"))
    lesson = Lessons(tiny_target, batches, layers, vocab_ids).lesson(0)
    head = methods["eagle"].new_head(
        tiny_target.view, vocab_ids, lesson.captured.flatten(0, 1)[:50]
    )
    for prediction in head.predict(lesson, 1.0):
        count = 0
        for text in range(3):
            length = int(lesson.lengths[text])
            final = tiny_target.states(lesson.token_ids[text : text + 1, :length], ()).final[0]
            logits = torch.nn.functional.linear(final, tiny_target.head)
            for row in range(int(lesson.prompt_lengths[text]) - 1, length):
                at = row + 1 + prediction.depth
                if at <= length - 2 and int(logits[at].argmax()) % 2 == 0:
                    law = lesson.laws[prediction.labels[count]]
                    wanted = logits[at][vocab_ids].softmax(-1)
                    torch.testing.assert_close(law, wanted, rtol=1e-3, atol=1e-5)
                    count += 1
        assert count == len(prediction.labels) == len(prediction.logits)
        assert count > 0


@pytest.mark.parametrize("layers", [1, 2, 3, 6, 7, 30])
def test_captured_layers_are_in_the_model(methods, tiny_target, layers):
    import dataclasses

    spec = dataclasses.replace(tiny_target.spec, num_layers=layers)
    found = methods["eagle"].capture_layers(spec)
    assert len(found) == 3
    assert sorted(found) == list(found)
    assert all(0 <= one < layers for one in found)
    if layers == 30:
        assert found == (2, 15, 27)
