"""The hand-made gradient is that of soft cross-entropy."""

from __future__ import annotations

import torch

from rtp_core.api import Prediction
from rtp_core.training import losses


def test_value_and_gradient_are_those_of_torch(monkeypatch):
    monkeypatch.setattr(losses, "_ROWS", 3)
    torch.manual_seed(0)
    laws = torch.softmax(torch.randn(5, 11), -1)
    labels = [torch.tensor([4, 0, 1, 1, 2, 3, 0]), torch.tensor([2])]
    mine = [torch.randn(len(one), 11, requires_grad=True) for one in labels]
    theirs = [one.detach().clone().requires_grad_() for one in mine]
    loss, seen = losses.loss_of(
        [Prediction(d, x, y) for d, (x, y) in enumerate(zip(mine, labels, strict=True))],
        laws,
        look=True,
    )
    wanted = sum(
        losses.DECAY**depth
        / len(laws)
        * torch.nn.functional.cross_entropy(x, laws[y], reduction="sum")
        for depth, (x, y) in enumerate(zip(theirs, labels, strict=True))
    )
    torch.testing.assert_close(loss, wanted)
    loss.backward()
    wanted.backward()
    for one, other in zip(mine, theirs, strict=True):
        torch.testing.assert_close(one.grad, other.grad)
    hits = mine[0].argmax(-1) == laws[labels[0]].argmax(-1)
    assert seen[0] == hits.float().mean().item()


def test_nothing_to_learn_is_no_loss():
    logits = torch.zeros(0, 4, requires_grad=True)
    none = Prediction(0, logits, torch.zeros(0, dtype=torch.int64))
    loss, _ = losses.loss_of([none], torch.zeros(0, 4), look=False)
    loss.backward()
    assert loss.item() == 0
