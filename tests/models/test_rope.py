"""Rotary frequencies against transformers, and refusals."""

from __future__ import annotations

import pytest
import torch

from rtp_core.errors import ModelError
from rtp_core.models.rope import inverse_frequencies, read_rope, rope_from

transformers = pytest.importorskip("transformers")
from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS  # noqa: E402

HEAD_DIM, LONGEST = 64, 4096
KINDS = {
    "linear": {"rope_type": "linear", "factor": 8.0},
    "llama 3.1": {
        "rope_type": "llama3",
        "factor": 8.0,
        "low_freq_factor": 1.0,
        "high_freq_factor": 4.0,
        "original_max_position_embeddings": 1024,
    },
    "llama 3.2": {
        "rope_type": "llama3",
        "factor": 32.0,
        "low_freq_factor": 1.0,
        "high_freq_factor": 4.0,
        "original_max_position_embeddings": 2048,
    },
    "yarn": {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 1024},
    "yarn, factor from the lengths": {
        "rope_type": "yarn",
        "factor": None,
        "original_max_position_embeddings": 512,
    },
    "yarn, not rounded": {
        "rope_type": "yarn",
        "factor": 32.0,
        "beta_fast": 20.0,
        "beta_slow": 2.0,
        "truncate": False,
        "original_max_position_embeddings": 1024,
    },
    "yarn, given factor": {
        "rope_type": "yarn",
        "factor": 4.0,
        "attention_factor": 0.7,
        "original_max_position_embeddings": 1024,
    },
    "yarn, pair of scales": {
        "rope_type": "yarn",
        "factor": 40.0,
        "mscale": 1.0,
        "mscale_all_dim": 0.7,
        "original_max_position_embeddings": 1024,
    },
    "yarn, a ramp that ends beyond the last frequency": {
        "rope_type": "yarn",
        "rope_theta": 1e4,
        "factor": 4.0,
        "original_max_position_embeddings": 131072,
    },
    "yarn, no ramp": {
        "rope_type": "yarn",
        "factor": 4.0,
        "original_max_position_embeddings": 4,
    },
}


def theirs(values, seq_len=None, longest=LONGEST, theta=500000.0):
    config = transformers.LlamaConfig(
        head_dim=HEAD_DIM,
        max_position_embeddings=longest,
        rope_parameters={"rope_theta": theta, **values},
    )
    return ROPE_INIT_FUNCTIONS[values["rope_type"]](config, seq_len=seq_len)


def flat(values, theta=500000.0):
    """As older files have it."""
    return {
        "rope_theta": theta,
        "rope_scaling": values,
        "max_position_embeddings": LONGEST,
    }


@pytest.mark.parametrize("share", [1.0, 0.5])
@pytest.mark.parametrize("name", KINDS)
def test_frequencies_equal_transformers(name, share):
    values = {**KINDS[name], "partial_rotary_factor": share}
    frequencies, factor = theirs(values)
    rope = read_rope(flat(values), HEAD_DIM, LONGEST)
    assert rope.rotary_dim == HEAD_DIM * share
    torch.testing.assert_close(inverse_frequencies(rope), frequencies, rtol=1e-6, atol=0)
    assert rope.attention_factor == pytest.approx(factor)


def test_plain_frequencies_are_powers_of_the_base():
    rope = read_rope({"rope_theta": 100.0}, 4, 512)
    torch.testing.assert_close(inverse_frequencies(rope), torch.tensor([1.0, 0.1]))


def test_dynamic_is_fixed_at_the_configured_maximum():
    values = {"rope_type": "dynamic", "factor": 4.0}
    ours = rope_from(
        {**values, "rope_theta": 1e4, "original_max_position_embeddings": 512}, HEAD_DIM, LONGEST
    )
    frequencies, _ = theirs(values, seq_len=LONGEST, longest=512, theta=1e4)
    torch.testing.assert_close(inverse_frequencies(ours), frequencies, rtol=1e-5, atol=0)
    short, _ = theirs(values, seq_len=100, longest=LONGEST, theta=1e4)
    ours = rope_from({**values, "rope_theta": 1e4}, HEAD_DIM, LONGEST)
    torch.testing.assert_close(inverse_frequencies(ours), short, rtol=1e-6, atol=0)


def test_both_spellings_mean_the_same():
    values = KINDS["llama 3.1"]
    old = {**values, "type": values["rope_type"]}
    del old["rope_type"]
    new = {"rope_parameters": {"rope_theta": 500000.0, **values}, "rope_theta": 7.0}
    assert read_rope(flat(old), HEAD_DIM, LONGEST) == read_rope(new, HEAD_DIM, LONGEST)


@pytest.mark.parametrize("missing", ["factor", "low_freq_factor", "high_freq_factor"])
def test_llama3_needs_its_factors(missing):
    values = {key: value for key, value in KINDS["llama 3.1"].items() if key != missing}
    with pytest.raises(ModelError, match=missing):
        read_rope({"rope_scaling": values}, HEAD_DIM, LONGEST)


def test_null_is_as_good_as_nothing():
    config = {"rope_theta": 5e5, "rope_scaling": None, "rope_parameters": {"rope_theta": None}}
    expected = read_rope({"rope_theta": 5e5}, HEAD_DIM, LONGEST)
    assert read_rope(config, HEAD_DIM, LONGEST) == expected
    assert expected.theta == 5e5


@pytest.mark.parametrize("section", [None, "rope_parameters"])
def test_part_of_a_head_rotates(section):
    share = {"partial_rotary_factor": 0.5}
    rope = read_rope({section: share} if section else share, HEAD_DIM, LONGEST)
    assert rope.rotary_dim == 32
    assert len(inverse_frequencies(rope)) == 16


@pytest.mark.parametrize("kind", ["longrope", "spiral", ["x"], 3])
@pytest.mark.parametrize("key", ["rope_type", "type"])
@pytest.mark.parametrize("section", ["rope_scaling", "rope_parameters"])
def test_an_unknown_kind_is_never_the_default_in_silence(section, key, kind):
    with pytest.raises(ModelError, match=r"rope_type .* is not supported.*default, linear"):
        read_rope({section: {key: kind, "factor": 2.0}}, HEAD_DIM, LONGEST)


def test_no_rotation_has_no_frequencies():
    assert inverse_frequencies(None).shape == (0,)


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"rope_type": "linear"}, "factor is None"),
        ({"rope_type": "linear", "factor": 0.5}, "factor is 0.5, expected a number from 1"),
        ({"rope_type": "linear", "factor": "8"}, "factor is '8'"),
        ({**KINDS["llama 3.1"], "low_freq_factor": 4.0}, "low_freq_factor is 4.0, expected less"),
        ({**KINDS["yarn"], "original_max_position_embeddings": 0}, "original_max_position"),
        ({"rope_theta": -1.0}, "rope_theta is -1.0"),
        ({"rope_theta": float("inf")}, "rope_theta is inf"),
        ({"partial_rotary_factor": 1.5}, "partial_rotary_factor is 1.5"),
        ({"partial_rotary_factor": 0.05}, "partial_rotary_factor is 0.05"),
        ({"full_attention": {"rope_theta": 1.0}}, "rope_parameters is 'nested'"),
        ("yarn", "rope_parameters is 'yarn', expected an object"),
    ],
)
def test_what_cannot_be_honoured_is_named(values, words):
    with pytest.raises(ModelError, match=words):
        read_rope({"rope_parameters": values}, HEAD_DIM, LONGEST)
