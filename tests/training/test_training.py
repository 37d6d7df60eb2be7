"""Heads learn, a training that was stopped goes on, and files hold what was learnt."""

from __future__ import annotations

import dataclasses

import pytest
import torch

from rtp_core.api import open_stored_tensors
from rtp_core.errors import ModelError
from rtp_core.training import loop
from rtp_core.training.loop import Training
from rtp_core.training.measure import measure
from rtp_core.training.publish import read_head
from rtp_core.training.tensor_file import read_tensors


def nothing(share):
    """Progress that nobody watches."""


def test_losses_fall_and_more_drafts_are_right(school, tiny_texts, methods, tiny_target, tmp_path):
    speeds = []
    for steps in (1, 60):
        one = school(steps=steps)
        (tmp_path / str(steps)).mkdir()
        one.train(tiny_texts, frozenset(), tmp_path / str(steps), None, nothing)
        found = measure(tiny_target, methods, one.out, tiny_texts)
        speeds.append({name: found[name]["greedy"]["chat"]["tokens_per_step"] for name in methods})
    for name in methods:
        before, after = (one[name]["3"] for one in speeds)
        assert after > before + 0.05, (name, speeds)
        assert speeds[1][name]["3"] >= speeds[1][name]["1"] >= 1


def test_what_was_learnt_depends_on_the_seed_alone(school, tiny_texts, tmp_path):
    found = []
    for number, seed in enumerate((1, 1, 2)):
        work = tmp_path / f"work{number}"
        work.mkdir()
        school(steps=3, seed=seed).train(tiny_texts, frozenset(), work, None, nothing)
        found.append(read_head(tmp_path / "heads" / "eagle")[1])
    assert all(torch.equal(found[0][name], found[1][name]) for name in found[0])
    assert not torch.equal(found[0]["lm_head.weight"], found[2]["lm_head.weight"])


def test_a_training_stopped_anywhere_ends_as_one_that_was_not(
    school, tiny_texts, tmp_path, monkeypatch
):
    monkeypatch.setattr(loop, "CHECKPOINT_S", 0.0)
    results = []
    for name, stops in (("whole", ()), ("parted", (2, 1, 4))):
        work = tmp_path / name
        work.mkdir()
        for stop in stops:
            with monkeypatch.context() as patch:
                patch.setattr(Training, "_step", dying(Training._step, stop))
                with pytest.raises(KeyboardInterrupt):
                    school(steps=9).train(tiny_texts, frozenset(), work, None, nothing)
        school(steps=9).train(tiny_texts, frozenset(), work, None, nothing)
        heads = {one: read_head(tmp_path / "heads" / one)[1] for one in ("eagle", "medusa")}
        results.append((heads, read_tensors(work / "checkpoint.safetensors")))
    for one, other in zip(results[0][0].values(), results[1][0].values(), strict=True):
        assert all(torch.equal(one[name], other[name]) for name in one)
    one, other = results[0][1], results[1][1]
    assert one.keys() == other.keys()
    assert all(torch.equal(one[name], other[name]) for name in one)


def dying(step, after):
    """`Training._step` that is interrupted when it is called once too often."""
    left = after

    def stopped(self, place, share, *, tell):
        nonlocal left
        left -= 1
        if left < 0:
            raise KeyboardInterrupt
        step(self, place, share, tell=tell)

    return stopped


def test_a_clock_ends_a_training_too(school, tiny_texts, tmp_path):
    work = tmp_path / "work"
    work.mkdir()
    one = school(steps=None, minutes=1.0)
    shares = []
    one.train(tiny_texts, frozenset(), work, 0.5, shares.append)
    assert shares == sorted(shares)
    assert shares[-1] >= 1.0
    assert all(share < 1.0 for share in shares[:-1])


def test_no_texts_are_nothing_to_learn_from(school, tmp_path):
    with pytest.raises(ModelError, match="nothing to learn from"):
        school().train([], frozenset(), tmp_path, None, nothing)


def test_published_heads_draft_as_those_that_were_trained(
    school, tiny_texts, methods, tiny_target, tmp_path
):
    """But for the rounding to what is published."""
    work = tmp_path / "work"
    work.mkdir()
    school(steps=40, draft_vocab=64).train(tiny_texts, frozenset({257}), work, None, nothing)
    config, tensors = read_head(tmp_path / "heads" / "eagle")
    assert config["draft_vocab_size"] == 64
    assert tensors["t2d"].sum() == 64
    ids = torch.arange(64) + tensors["d2t"]
    assert torch.equal(tensors["t2d"].nonzero().squeeze(1), ids)
    assert 257 in ids
    hidden = tiny_target.spec.hidden_size
    assert tensors["fc.weight"].shape == (hidden, 3 * hidden)
    assert tensors["midlayer.self_attn.q_proj.weight"].shape[1] == 2 * hidden
    assert tensors["fc.weight"].dtype == torch.bfloat16
    assert config["eagle_aux_hidden_state_layer_ids"] == [0, 1, 2]
    state = read_tensors(work / "checkpoint.safetensors")
    for method in methods:
        config, tensors = read_head(tmp_path / "heads" / method)
        head = methods[method].load_head(tiny_target.view, config, tensors)
        trained = {
            name.removeprefix(f"{method}.module."): one
            for name, one in state.items()
            if name.startswith(f"{method}.module.")
        }
        if method == "eagle":
            trained["fc"], trained["scale"] = (
                trained["fc"] / trained["scale"],
                torch.ones(3 * hidden),
            )
        loaded = head.module.state_dict()
        assert loaded.keys() == trained.keys()
        for name, one in trained.items():
            rounded = one.to(torch.bfloat16).float() if one.is_floating_point() else one
            torch.testing.assert_close(loaded[name], rounded)


def test_a_head_with_missing_tensors_is_refused_by_name(methods, tiny_target):
    with pytest.raises(ModelError, match=r"midlayer\.mlp\.down_proj\.weight"):
        methods["eagle"].load_head(tiny_target.view, {}, {})
    config = {"medusa_num_heads": 1, "medusa_num_layers": 1}
    with pytest.raises(ModelError, match=r"0\.0\.linear\.bias"):
        methods["medusa"].load_head(tiny_target.view, config, {})


def test_the_speculator_takes_what_was_trained(school, tiny_texts, tiny_target, tmp_path):
    """Both sides of the plugin agree on names, shapes, layers and identity."""
    from rtp_spec_eagle.description import describe
    from rtp_spec_eagle.shapes import check_model, check_tensors, target_ids
    from rtp_spec_eagle.shipped import FIELD

    work = tmp_path / "work"
    work.mkdir()
    school(draft_vocab=64).train(tiny_texts, frozenset(), work, None, nothing)
    files = open_stored_tensors(tmp_path / "heads" / "eagle", FIELD)
    head = describe(files, tiny_target.spec.num_layers)
    check_tensors(files, head)
    model = dataclasses.replace(tiny_target.spec, fingerprint="f" * 32 + ":bf16")
    check_model(files, head, model, any_model=False)
    assert len(target_ids(files, head)) == 64
    assert head.fingerprint == "f" * 32
    assert head.capture_layers == (0, 1, 2)
