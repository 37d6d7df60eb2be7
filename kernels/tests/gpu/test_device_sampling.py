"""Tokens drawn on the device are the reference's, batch by batch, in Triton's interpreter."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from rtp_kernels.sampling import batch_reference, device, philox
from rtp_kernels.sampling.batch_reference import Rows, SlotState
from rtp_kernels.sampling.device import DrawRows
from rtp_kernels.sampling.record import SlotEntry
from rtp_kernels.sampling.slots import SamplerSlots

CHEAP = {"any_random": False, "any_processed": False, "any_truncated": False}


def integers(values):
    return torch.tensor(values, dtype=torch.int32)


def random_logits(rows, vocab, spread=3.0, seed=0, pad=5):
    """Padding is the largest of all: it must never be drawn."""
    logits = torch.randn(rows, vocab + pad, generator=torch.Generator().manual_seed(seed)) * spread
    logits[:, vocab:] = 1000.0
    return logits


def rows_of(slots, positions, **facts):
    return DrawRows(integers(slots), integers(positions), **facts)


def both(entries, logits, positions, vocab, **facts):
    """Tokens of the device and of the reference, a row an entry; None where it is unusable."""
    slots = SamplerSlots(max(entry.slot for entry in entries) + 1, vocab, "cpu")
    slots.put(entries)
    drawn = device.draw(logits, slots, rows_of([e.slot for e in entries], positions, **facts))
    pairs = zip(drawn.token_ids.tolist(), drawn.usable.tolist(), strict=True)
    found = [token if usable else None for token, usable in pairs]
    states = [SlotState(entry) for entry in entries]
    return found, batch_reference.draw(logits, Rows(states, positions), vocab)


tokens = st.integers(0, 40)
entries = st.builds(
    SlotEntry,
    slot=st.just(0),
    seed=st.integers(-(2**63), 2**64 - 1),
    choice=st.integers(0, 127),
    temperature=st.sampled_from([0.0, 1e-6, 0.3, 0.7, 1.0, 2.0, 50.0]),
    top_k=st.sampled_from([-1, 0, 1, 2, 7, 33, 100_000]),
    top_p=st.sampled_from([1.0, 0.9999, 0.9, 0.5, 0.1, 1e-7, 1e-300]),
    min_p=st.sampled_from([0.0, 1e-4, 0.05, 0.5, 1.0]),
    presence_penalty=st.sampled_from([0.0, 0.0, 0.7, -2.0]),
    frequency_penalty=st.sampled_from([0.0, 0.3, -1.1]),
    repetition_penalty=st.sampled_from([1.0, 1.3, 0.7, 100.0]),
    bias=st.dictionaries(tokens, st.floats(-100, 100, width=32), max_size=5),
    stop_ids=st.lists(tokens, max_size=3),
    min_tokens=st.integers(0, 20),
    num_prompt=st.integers(0, 10),
    prompt_ids=st.lists(tokens, max_size=6),
    output_ids=st.lists(st.integers(0, 30), max_size=8),
)


@settings(max_examples=25, deadline=None)
@given(
    batch=st.lists(entries, min_size=1, max_size=3),
    vocab=st.sampled_from([31, 37, 64, 301]),
    spread=st.sampled_from([0.1, 3.0, 30.0]),
    ties=st.booleans(),
    holes=st.booleans(),
    seed=st.integers(0, 10_000),
    position=st.integers(0, 30),
)
def test_every_parameter_draws_what_the_reference_draws(
    batch, vocab, spread, ties, holes, seed, position
):
    batch = [SlotEntry(**{**fields(entry), "slot": i}) for i, entry in enumerate(batch)]
    logits = random_logits(len(batch), vocab, spread, seed)
    if ties:
        logits = (logits / spread).round() * spread
    if holes:
        logits[:, ::2] = -math.inf
        logits[:, 1] = 0.0  # even if bias and stop tokens leave nothing else
    positions = [position + 7 * i for i in range(len(batch))]
    states = [SlotState(entry) for entry in batch]
    finite = [
        bool((state.process(row[:vocab], place) > -math.inf).any())
        for state, row, place in zip(states, logits, positions, strict=True)
    ]
    if all(finite):
        found, expected = both(batch, logits, positions, vocab)
        assert found == expected


def fields(entry):
    return {name: getattr(entry, name) for name in SlotEntry.__dataclass_fields__}


@pytest.mark.parametrize("vocab", [1, 2, 3, 5, 1023, 1024, 1025, 5500])
def test_vocabularies_of_odd_sizes(vocab, monkeypatch):
    monkeypatch.setattr(device, "FEW_ROWS", 1 + vocab % 3 * 100)
    batch = [
        SlotEntry(0),
        SlotEntry(1, seed=3, temperature=1.0),
        SlotEntry(2, seed=3, temperature=1.0, top_k=2, top_p=0.9),
        SlotEntry(3, seed=4, temperature=1.5, top_p=0.8),
    ]
    found, expected = both(batch, random_logits(4, vocab), [4, 5, 6, 7], vocab)
    assert found == expected


@pytest.mark.parametrize(
    "facts",
    [
        CHEAP,
        {**CHEAP, "any_random": True},
        {**CHEAP, "any_processed": True},
        {**CHEAP, "any_random": True, "any_processed": True},
        {**CHEAP, "any_random": True, "any_truncated": True},
    ],
)
def test_facts_of_the_host_choose_kernels_not_tokens(facts):
    batch = [
        SlotEntry(
            i,
            seed=i,
            temperature=float(facts["any_random"] and i % 3),
            bias={7: 5.0, 9: -2.0} if facts["any_processed"] and i % 2 else {},
            presence_penalty=1.0 if facts["any_processed"] and i > 3 else 0.0,
            output_ids=[1, 1, 2],
            top_p=0.7 if facts["any_truncated"] and i % 2 else 1.0,
        )
        for i in range(6)
    ]
    logits = random_logits(6, 200)
    found, expected = both(batch, logits, list(range(6)), 200, **facts)
    everything, _ = both(batch, logits, list(range(6)), 200)
    assert found == expected == everything


def test_argmax_takes_the_lowest_of_equals():
    logits = torch.zeros(3, 2100)
    logits[1, [700, 1500]] = 4.0
    logits[2, 2099] = -0.0
    found, expected = both([SlotEntry(i) for i in range(3)], logits, [0, 0, 0], 2100, **CHEAP)
    assert found == expected == [0, 700, 0]


def test_top_k_keeps_ties_and_top_p_cuts_them_in_order_of_ids():
    """Forty equal tokens, ten in the nucleus: those with the lowest ids, as a stable sort has."""
    logits = torch.full((16, 60), -50.0)
    logits[:, 10:50] = 2.0
    entries = [SlotEntry(i, seed=i, temperature=1.0, top_p=0.249) for i in range(8)]
    entries += [SlotEntry(i, seed=i, temperature=1.0, top_k=3) for i in range(8, 16)]
    found, expected = both(entries, logits, list(range(16)), 60)
    assert found == expected
    assert set(found[:8]) <= set(range(10, 20))
    assert max(found[8:]) >= 20


def test_rows_without_a_usable_logit_are_told_from_the_others():
    logits = random_logits(6, 50)
    logits[0, 20] = math.nan
    logits[1, :50] = -math.inf
    logits[2, 3] = math.inf
    logits[3, 52] = math.nan  # padding
    entries = [SlotEntry(i, seed=i, temperature=i % 2, top_k=5) for i in range(6)]
    for facts in ({}, {**CHEAP, "any_random": True, "any_truncated": True}):
        found, expected = both(entries, logits, [0] * 6, 50, **facts)
        assert found == expected
        assert [token is None for token in found] == [True, True, True, False, False, False]


def test_rows_that_pad_the_batch_draw_nothing_and_touch_nothing():
    slots = SamplerSlots(2, 50, "cpu")
    slots.put([SlotEntry(1, temperature=1.0, top_k=3, presence_penalty=1.0)])
    logits = random_logits(3, 50)
    logits[[0, 2]] = math.nan
    drawn = device.draw(logits, slots, rows_of([-1, 1, -1], [0, 5, 0]), 2)
    assert drawn.usable.tolist() == [1, 1, 1]
    assert drawn.token_ids[[0, 2]].tolist() == [0, 0]
    assert slots.counts.sum() == 1


def test_no_rows():
    slots = SamplerSlots(2, 50, "cpu")
    drawn = device.draw(torch.empty(0, 64), slots, rows_of([], []), 3)
    assert drawn.token_ids.shape == (0,)
    assert drawn.logprobs.top_ids.shape == (0, 3)
    found = device.verify(torch.empty(0, 64), slots, rows_of([], []), integers([]).view(0, 3))
    assert found.token_ids.shape == (0, 4)


@pytest.mark.parametrize(
    "shape",
    [
        {"top_p": 0.95},
        {"top_k": 290, "top_p": 0.6},
        {"top_k": 150},
        {"min_p": 0.2},
        {"top_k": 200, "top_p": 0.9, "min_p": 0.1},
    ],
)
def test_rows_with_too_many_candidates_are_searched(monkeypatch, shape):
    monkeypatch.setattr(device, "ROOM", 16)
    monkeypatch.setattr(device, "SMALL", 8)
    entries = [
        SlotEntry(i, seed=i, temperature=1.5, bias={5: 1.0}, output_ids=[i, 1], **shape)
        for i in range(4)
    ]
    logits = random_logits(4, 300, spread=1.0)
    logits[3] = logits[3].round()
    logits[3, 250] = 3.5
    found, expected = both(entries, logits, [3, 4, 5, 6], 300)
    assert found == expected


def test_penalties_follow_the_tokens_drawn():
    """Ten steps; without the counts of drawn tokens the greedy row would repeat one token."""
    entries = [
        SlotEntry(0, presence_penalty=0.4, frequency_penalty=0.2),
        SlotEntry(2, seed=5, temperature=0.8, repetition_penalty=1.5, prompt_ids=[3, 4, 700]),
        SlotEntry(1, seed=6, temperature=1.0, top_k=8, frequency_penalty=0.7, output_ids=[2] * 3),
    ]
    slots = SamplerSlots(3, 40, "cpu")
    slots.put(entries)
    states = [SlotState(entry) for entry in entries]
    logits = random_logits(3, 40, spread=1.0)
    drawn = []
    for position in range(10):
        row = device.draw(logits, slots, rows_of([0, 2, 1], [position] * 3)).token_ids.tolist()
        assert row == batch_reference.draw(logits, Rows(states, [position] * 3), 40)
        drawn.append(row)
    assert len({row[0] for row in drawn}) > 3


def test_rows_that_do_not_commit_are_counted_later():
    slots = SamplerSlots(1, 40, "cpu")
    slots.put([SlotEntry(0, presence_penalty=3.0)])
    logits = random_logits(1, 40)
    rows = rows_of([0], [0], commits=False)
    first = device.draw(logits, slots, rows).token_ids
    assert torch.equal(device.draw(logits, slots, rows).token_ids, first)
    device.commit(slots, rows.slot, torch.cat([first, first, integers([-1])])[None])
    assert slots.counts[0, first.long()] == 2
    assert slots.counts.sum() == 2
    assert not torch.equal(device.draw(logits, slots, rows).token_ids, first)


def test_a_slot_forgets_who_had_it():
    slots = SamplerSlots(2, 40, "cpu")
    noisy = SlotEntry(
        0, seed=1, temperature=2.0, bias={3: 50.0}, repetition_penalty=2.0, prompt_ids=range(40)
    )
    logits = random_logits(1, 40)
    slots.put([noisy])
    slots.clear([0])
    assert device.draw(logits, slots, rows_of([0], [0])).token_ids == logits[0, :40].argmax()
    slots.put([noisy])
    fresh = SlotEntry(0, seed=2, temperature=1.0, presence_penalty=1.0, output_ids=[7])
    slots.put([fresh])
    expected = batch_reference.draw(logits, Rows([SlotState(fresh)], [4]), 40)
    assert device.draw(logits, slots, rows_of([0], [4])).token_ids.tolist() == expected


def test_many_biased_tokens_move_the_table_and_say_so():
    slots = SamplerSlots(2, 3000, "cpu")
    few = SlotEntry(0, bias={8: 30.0})
    slots.put([few])
    before = slots.generation
    many = SlotEntry(1, bias=dict.fromkeys(range(0, 3000, 3), -5.0) | {2999: 60.0})
    slots.put([many])
    assert slots.generation > before
    logits = random_logits(2, 3000)
    found = device.draw(logits, slots, rows_of([0, 1], [0, 0])).token_ids.tolist()
    assert found == batch_reference.draw(
        logits, Rows([SlotState(few), SlotState(many)], [0, 0]), 3000
    )
    assert found == [8, 2999]


@pytest.mark.parametrize(("asked", "words"), [([0, 5], "slot 5"), ([1, 1], "twice")])
def test_slots_that_cannot_be_are_named(asked, words):
    with pytest.raises(ValueError, match=words):
        SamplerSlots(2, 40, "cpu").put([SlotEntry(slot) for slot in asked])


def test_frequencies_follow_the_truncated_softmax():
    """Chi-square over one batch of 250 draws; another temperature fails the same bound."""
    count, law = 250, torch.tensor([2.0, 1.5, 1.0, 0.5, 0.0, -0.5, -1.0, -2.0])
    slots = SamplerSlots(1, 8, "cpu")
    slots.put([SlotEntry(0, seed=11, temperature=1.0)])
    rows = rows_of([0] * count, list(range(count)), any_truncated=False, any_processed=False)
    drawn = device.draw(law.expand(count, 8).contiguous(), slots, rows).token_ids
    seen = np.bincount(drawn.numpy(), minlength=8)

    def statistic(temperature):
        expected = (law / temperature).softmax(0).numpy() * count
        return ((seen - expected) ** 2 / expected).sum()

    bound = 7 + 4.5 * math.sqrt(14)
    assert statistic(1.0) < bound < statistic(0.5)


def test_noise_is_that_of_the_definition():
    """A flat row leaves the noise alone: its argmax for many keys, positions and choices."""
    vocab = 2500
    entries = [SlotEntry(i, seed=i * 2**40 - 9, choice=i % 5, temperature=1.0) for i in range(12)]
    positions = [i * 100_003 for i in range(12)]
    found, _ = both(entries, torch.zeros(12, vocab), positions, vocab, any_truncated=False)
    for entry, position, token in zip(entries, positions, found, strict=True):
        noise = philox.gumbel(entry.seed, position, entry.choice, np.arange(vocab))
        assert token == noise.argmax()


@pytest.mark.parametrize("wanted", [0, 1, 5, 20])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_logprobs_are_of_the_raw_distribution(wanted, dtype):
    vocab = 1500
    logits = random_logits(3, vocab).to(dtype)
    logits[2] = logits[2].round()
    slots = SamplerSlots(3, vocab, "cpu")
    slots.put([SlotEntry(i, seed=i, temperature=2.0, top_k=40, bias={3: 9.0}) for i in range(3)])
    drawn = device.draw(logits, slots, rows_of([0, 1, 2], [1, 2, 3]), wanted)
    expected = torch.log_softmax(logits[:, :vocab].float(), dim=-1)
    chosen = expected.gather(1, drawn.token_ids[:, None].long())[:, 0]
    torch.testing.assert_close(drawn.logprobs.chosen, chosen, rtol=1e-5, atol=1e-5)
    order = expected.sort(descending=True, stable=True)
    torch.testing.assert_close(
        drawn.logprobs.top_values, order.values[:, :wanted], rtol=1e-5, atol=1e-5
    )
    assert torch.equal(drawn.logprobs.top_ids, order.indices[:, :wanted].int())


def test_logprobs_of_rows_with_few_or_equal_logits(monkeypatch):
    monkeypatch.setattr(device, "ROOM", 16)
    logits = torch.full((2, 100), -math.inf)
    logits[0, [5, 70]] = torch.tensor([1.0, 2.0])
    logits[1] = 0.0
    logits[1, 60] = 1.0
    slots = SamplerSlots(2, 100, "cpu")
    drawn = device.draw(logits, slots, rows_of([0, 1], [0, 0]), 4)
    assert drawn.logprobs.top_ids.tolist() == [[70, 5, -1, -1], [60, 0, 1, 2]]
    assert drawn.logprobs.top_values[0, 2:].tolist() == [-math.inf, -math.inf]


def test_too_many_logprobs_are_refused():
    slots = SamplerSlots(1, 100, "cpu")
    with pytest.raises(ValueError, match="logprobs is 21"):
        device.draw(torch.zeros(1, 100), slots, rows_of([0], [0]), 21)


def test_put_is_one_transfer(monkeypatch):
    slots = SamplerSlots(8, 100, "cpu")
    seen = []
    transfer = slots._transfer
    monkeypatch.setattr(slots, "_transfer", lambda packed: seen.append(1) or transfer(packed))
    slots.put([SlotEntry(i, bias={1: 1.0}, presence_penalty=1.0, output_ids=[2]) for i in range(8)])
    slots.put([])
    assert len(seen) == 1


@pytest.mark.parametrize(
    ("logits", "slot", "words"),
    [
        (torch.zeros(1, 99), [0], "99 columns"),
        (torch.zeros(2, 100), [0], "2 rows"),
        (torch.zeros(1, 200)[:, ::2], [0], "contiguous"),
        (torch.zeros(1, 100, dtype=torch.float64), [0], "float64"),
    ],
)
def test_logits_that_do_not_fit_are_named(logits, slot, words):
    with pytest.raises(ValueError, match=words):
        device.draw(logits, SamplerSlots(1, 100, "cpu"), rows_of(slot, [0]))
