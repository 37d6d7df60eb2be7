"""Drafts verified on the device: the tokens plain decoding would draw, in fewer steps."""

from __future__ import annotations

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from rtp_kernels.sampling import batch_reference, device
from rtp_kernels.sampling.batch_reference import SlotState
from rtp_kernels.sampling.device import DrawRows
from rtp_kernels.sampling.record import SlotEntry
from rtp_kernels.sampling.slots import SamplerSlots

VOCAB = 8  # few tokens, so that drafts are often right


def integers(values):
    return torch.tensor(values, dtype=torch.int32)


shapes = st.fixed_dictionaries(
    {
        "seed": st.integers(0, 2**64 - 1),
        "temperature": st.sampled_from([0.0, 0.5, 1.0]),
        "presence_penalty": st.sampled_from([0.0, 1.5]),
        "repetition_penalty": st.sampled_from([1.0, 1.5]),
        "bias": st.sampled_from([{}, {2: 3.0}]),
        "min_tokens": st.sampled_from([0, 12]),
        "num_prompt": st.just(5),
        "stop_ids": st.just((1,)),
        "prompt_ids": st.lists(st.integers(0, 7), max_size=3),
    }
)


@settings(max_examples=12, deadline=None)
@given(data=st.data(), number=st.integers(1, 3), tree=st.booleans(), batch=st.integers(1, 2))
def test_accepted_paths_are_the_references(data, number, tree, batch):
    entries = [SlotEntry(slot, **data.draw(shapes)) for slot in range(batch)]
    states = [SlotState(entry) for entry in entries]
    slots = SamplerSlots(batch, VOCAB, "cpu")
    slots.put(entries)
    for step in range(2):
        seed = data.draw(st.integers(0, 1000))
        logits = torch.randn(
            batch * (1 + number), 16, generator=torch.Generator().manual_seed(seed)
        )
        drafts = data.draw(
            st.lists(
                st.lists(st.integers(0, VOCAB - 1), min_size=number, max_size=number),
                min_size=batch, max_size=batch,
            )
        )  # fmt: skip
        parents = [[i - 1 if not tree else data.draw(st.integers(-1, i - 1))
                    for i in range(number)] for _ in range(batch)]  # fmt: skip
        positions = [5 + 10 * step + sequence for sequence in range(batch)]
        found = device.verify(
            logits,
            slots,
            DrawRows(
                torch.arange(batch, dtype=torch.int32), integers(positions), any_truncated=False
            ),
            integers(drafts),
            integers(parents) if tree else None,
            0,
        )
        for sequence, state in enumerate(states):
            first = sequence * (1 + number)
            expected = batch_reference.verify(
                logits[first : first + 1 + number, :VOCAB], state, positions[sequence],
                drafts[sequence], parents[sequence],
            )  # fmt: skip
            count = int(found.counts[sequence])
            assert found.token_ids[sequence].tolist() == expected + [-1] * (1 + number - count)
            path = found.rows[sequence, :count].long()
            assert path[0] == first
            logprobs = torch.log_softmax(logits[path, :VOCAB], dim=-1)
            chosen = logprobs[torch.arange(count), torch.tensor(expected)]
            drawn = found.logprobs.chosen[path]
            torch.testing.assert_close(drawn, chosen, rtol=1e-4, atol=1e-4)


def test_right_drafts_are_all_accepted_and_change_no_token():
    entry = SlotEntry(0, seed=3, temperature=1.0, top_p=0.9, frequency_penalty=0.5)
    logits = torch.randn(5, 100, generator=torch.Generator().manual_seed(1))
    plain = SamplerSlots(1, 100, "cpu")
    plain.put([entry])
    tokens = [
        int(device.draw(logits[i : i + 1], plain, DrawRows(integers([0]), integers([i]))).token_ids)
        for i in range(5)
    ]
    slots = SamplerSlots(1, 100, "cpu")
    slots.put([entry])
    rows = DrawRows(integers([0]), integers([0]))
    found = device.verify(logits, slots, rows, integers([tokens[:4]]))
    assert found.token_ids.tolist() == [tokens]
    assert found.counts.tolist() == [5]
    assert torch.equal(slots.counts, plain.counts)


def test_missing_drafts_and_bad_rows():
    """Sequence 0 has one draft of three, 1 a NaN in a draft's row, 2 pads the batch, 3 is whole."""
    slots = SamplerSlots(3, 10, "cpu")
    logits = torch.zeros(16, 10)
    logits[:, 4] = 1.0
    logits[[2, 3]] = torch.nan  # behind drafts that are not there
    logits[6] = torch.nan
    logits[8:12] = torch.nan
    rows = DrawRows(integers([0, 1, -1, 2]), integers([9, 9, 0, 9]), any_random=False)
    drafts = integers([[4, -1, -1], [4, 4, 4], [4, 4, 4], [4, 4, 5]])
    found = device.verify(logits, slots, rows, drafts)
    assert found.counts.tolist() == [2, 0, 0, 3]
    assert found.usable.tolist() == [1, 0, 1, 1]
    assert found.token_ids[0].tolist() == [4, 4, -1, -1]
    assert found.token_ids[3].tolist() == [4, 4, 4, -1]
