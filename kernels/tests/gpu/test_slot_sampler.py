"""The engine's sampler of devices over these kernels: same tokens as the host's sampler."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from rtp_core.api import EngineLimits, PlanRow, SamplingParams, SequenceStart
from rtp_core.execution.device.frame import Frame, Limits
from rtp_core.execution.device.sampler import SlotSampler
from rtp_core.sampling.sampler import Sampler
from rtp_core.text.structured.masks import Advance, Masks

VOCAB = 300
WAYS = [
    SamplingParams(temperature=0.0, max_tokens=9),
    SamplingParams(temperature=0.8, seed=3, max_tokens=9, logprobs=2),
    SamplingParams(temperature=1.3, top_k=20, top_p=0.8, seed=5, max_tokens=9),
    SamplingParams(
        temperature=0.9, presence_penalty=1.0, logit_bias={7: 3.0}, min_tokens=4, seed=1
    ),
]


def starts():
    return [
        SequenceStart(f"s{number}", way, number + 11, number, (1, 2, 3), 3)
        for number, way in enumerate(WAYS)
    ]


@pytest.fixture
def both():
    limits = EngineLimits(64, 4, 64, 16, 2)
    device, host = SlotSampler(limits, VOCAB, frozenset({0}), "cpu"), Sampler(VOCAB, frozenset({0}))
    device.rehearse(4)
    for slot, start in enumerate(starts()):
        device.start(start, slot)
        host.start(start)
    return device, host


def framed(rows, drafts):
    limits = Limits(4, 64, 16, 1, (64,), 2)
    frame = Frame(limits, torch.zeros(Frame.size(limits), dtype=torch.int32))
    known = [len(row.token_ids) - row.num_drafts for row in rows]
    frame.draws[: len(rows)] = torch.arange(len(rows))
    frame.positions[: len(rows)] = torch.tensor(
        [row.start + count for row, count in zip(rows, known, strict=True)]
    )
    frame.drafts[:] = -1
    for number, row in enumerate(rows if drafts else ()):
        for place, token in enumerate(row.token_ids[known[number] :]):
            frame.drafts[number * 2 + place] = token
    return frame


def same(found, expected):
    for one, other in zip(found, expected, strict=True):
        assert (one.sequence_id, one.token_ids) == (other.sequence_id, other.token_ids)
        assert one.num_accepted == other.num_accepted
        assert (one.logprobs is None) == (other.logprobs is None)
        for a, b in zip(one.logprobs or (), other.logprobs or (), strict=True):
            assert (a.token_id, [t for t, _ in a.top]) == (b.token_id, [t for t, _ in b.top])
            assert a.logprob == pytest.approx(b.logprob, abs=1e-4)


def test_several_steps_of_every_way_to_draw(both):
    device, host = both
    torch.manual_seed(0)
    for step in range(3):
        rows = [PlanRow(f"s{n}", [5], 3 + step, 0, True, ([0],)) for n in range(4)]
        logits = torch.randn(4, VOCAB) * 3
        drawn = device.draw(rows, framed(rows, False), logits, 0)
        found, errors = drawn.read()
        expected, _ = host.sample(rows, logits)
        same(found, expected)
        assert not errors
        assert drawn.token_ids.tolist() == [one.token_ids[-1] for one in expected]


def test_drafts_are_accepted_as_the_host_accepts_them(both):
    device, host = both
    torch.manual_seed(1)
    logits = torch.randn(4 * 3, VOCAB) * 3
    best = logits.argmax(-1).tolist()
    drafts = [[best[0], best[1]], [best[3]], [9, 9], []]
    rows = [
        PlanRow(f"s{n}", [5, *draft], 3, len(draft), True, ([0],)) for n, draft in enumerate(drafts)
    ]
    kept = [logits[3 * n : 3 * n + 1 + len(draft)] for n, draft in enumerate(drafts)]
    drawn = device.draw(rows, framed(rows, True), logits, 2)
    found, _ = drawn.read()
    expected, _ = host.sample(rows, torch.cat(kept))
    same(found, expected)
    assert found[0].num_accepted == 2
    assert drawn.token_ids.tolist() == [one.token_ids[-1] for one in expected]


def test_unusable_logits_end_their_own_row(both):
    device, _ = both
    rows = [PlanRow(f"s{n}", [5], 3, 0, True, ([0],)) for n in range(4)]
    logits = torch.randn(4, VOCAB)
    logits[2] = float("nan")
    found, errors = device.draw(rows, framed(rows, False), logits, 0).read()
    assert list(errors) == ["s2"]
    assert found[2].token_ids == ()
    assert all(len(one.token_ids) == 1 for one in (found[0], found[1], found[3]))


class Ready:
    """Masks written down by the test, and what was advanced."""

    def __init__(self, ready=(), late=(), errors=()):
        self.masks = Masks(dict(ready), set(late), dict(errors))
        self.begun, self.advanced = [], []

    def start(self, start):
        pass

    def release(self, sequence_id):
        pass

    def begin(self, rows):
        self.begun.append([row.sequence_id for row in rows])

    def collect(self, rows):
        return self.masks

    def advance(self, sequence_id, token_ids):
        self.advanced.append((sequence_id, tuple(token_ids)))
        return Advance(min(2, len(token_ids)), complete=len(token_ids) > 1)


def packed(*rows):
    bits = np.zeros((len(rows), 320), dtype=np.uint8)
    for row, tokens in zip(bits, rows, strict=True):
        row[list(tokens)] = 1
    return np.packbits(bits, axis=1, bitorder="little").view(np.int32)


def samplers_over(grammars):
    limits = EngineLimits(64, 4, 64, 16, 2)
    device = SlotSampler(limits, VOCAB, frozenset({0}), "cpu", grammars)
    host = Sampler(VOCAB, frozenset({0}), grammars=grammars)
    for slot, start in enumerate(starts()):
        device.start(start, slot)
        host.start(start)
    return device, host


def test_masked_rows_draw_as_on_the_host_and_logprobs_stay_raw():
    torch.manual_seed(2)
    masks = packed(range(40, 60)), packed([7, 8, 9]), packed(range(100, 290))
    grammars = Ready(zip(("s0", "s1", "s2"), masks, strict=True))
    device, host = samplers_over(grammars)
    rows = [PlanRow(f"s{n}", [5], 3, 0, True, ([0],)) for n in range(4)]
    device.prepare(rows)
    assert grammars.begun == [["s0", "s1", "s2", "s3"]]
    logits = torch.randn(4, VOCAB + 4) * 3
    logits[:, VOCAB:] = 99.0
    raw = logits.clone()
    found, errors = device.draw(rows, framed(rows, False), logits, 0).read()
    expected, _ = host.sample(rows, raw)
    same(found, expected)
    assert not errors
    assert 40 <= found[0].token_ids[0] < 60
    assert found[1].token_ids[0] in (7, 8, 9)
    chosen = raw[1, :VOCAB].log_softmax(0)
    assert found[1].logprobs[0].logprob == pytest.approx(
        float(chosen[found[1].token_ids[0]]), abs=1e-4
    )
    assert found[1].logprobs[0].top[0][0] == int(chosen.argmax())


def test_masks_of_drafts_and_the_end_of_a_text():
    torch.manual_seed(3)
    masks = packed([40], [41], [42]), packed([7, 8, 9], range(VOCAB))
    grammars = Ready(zip(("s0", "s1"), masks, strict=True))
    device, host = samplers_over(grammars)
    drafts = [[40, 41], [3], [], [9]]
    rows = [
        PlanRow(f"s{n}", [5, *draft], 3, len(draft), True, ([0],)) for n, draft in enumerate(drafts)
    ]
    logits = torch.randn(4 * 3, VOCAB)
    kept = torch.cat([logits[3 * n : 3 * n + 1 + len(d)].clone() for n, d in enumerate(drafts)])
    found, errors = device.draw(rows, framed(rows, True), logits, 2).read()
    advanced, grammars.advanced = grammars.advanced, []
    expected, _ = host.sample(rows, kept)
    same(found, expected)
    assert advanced == grammars.advanced
    assert not errors
    assert found[0].token_ids == (40, 41)  # 42 came after the end
    assert found[0].complete
    assert found[1].token_ids[0] in (7, 8, 9)


def test_late_rows_draw_nothing_and_failed_ones_end():
    grammars = Ready(late=["s0", "s3"], errors={"s1": "too complex"}.items())
    device, host = samplers_over(grammars)
    rows = [PlanRow(f"s{n}", [5], 3, 0, True, ([0],)) for n in range(4)]
    logits = torch.randn(4, VOCAB)
    for found, errors in (
        host.sample(rows, logits.clone()),
        device.draw(rows, framed(rows, False), logits.clone(), 0).read(),
    ):
        assert errors == {"s1": "too complex"}
        assert [len(one.token_ids) for one in found] == [0, 0, 1, 0]
    grammars.masks = Masks()
    # A late draw counted no token for the penalties of s3.
    rows = [PlanRow("s3", [5], 3, 0, True, ([0],))]
    frame = framed(rows, False)
    frame.draws[0] = 3
    again = torch.randn(1, VOCAB)
    found, _ = device.draw(rows, frame, again.clone(), 0).read()
    same(found, host.sample(rows, again)[0])
