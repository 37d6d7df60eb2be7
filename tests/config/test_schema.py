"""Bounds hold at construction, wherever the values come from."""

from __future__ import annotations

import dataclasses
import pickle
from pathlib import Path

import pytest

from rtp_core.config.reference import config_reference
from rtp_core.config.rules import settings_of
from rtp_core.config.schema import SECTIONS, EngineConfig, KVConfig, SpeculationConfig
from rtp_core.errors import ConfigError

EVERY = [(name, key) for name, kind in SECTIONS.items() for key in settings_of(kind)]
DOCS = Path(__file__).parent.parent.parent / "docs" / "config.md"


def made(section, **values):
    return SECTIONS[section](**values)


@pytest.mark.parametrize(
    ("section", "key", "good", "bad"),
    [
        ("model", "max_model_len", [1, 10**6, None], [0, -1]),
        ("model", "seed", [0], [1, -1]),
        ("server", "port", [0, 65535], [-1, 65536]),
        ("server", "max_body_bytes", [1], [0]),
        ("server", "max_queued_requests", [1], [0]),
        ("server", "keep_alive_s", [0, 0.5], [-0.1]),
        ("server", "shutdown_timeout_s", [0], [-1]),
        ("scheduling", "max_num_seqs", [1], [0]),
        ("scheduling", "max_num_batched_tokens", [1], [0]),
        ("kv", "block_size", [1, 1024, None], [0, 1025]),
        ("kv", "memory", [0, 0.5, 1, 2**40], [-1]),
        ("kv", "watermark", [0, 0.99], [-0.01, 1]),
        ("speculation", "max_draft_tokens", [0, 64], [-1, 65]),
        ("modality", "feature_cache_bytes", [0], [-1]),
    ],
)
def test_numbers_keep_their_bounds(section, key, good, bad):
    for value in good:
        assert getattr(made(section, **{key: value}), key) == value
    for value in bad:
        with pytest.raises(ConfigError, match=rf"^{section}\.{key}: {value}"):
            made(section, **{key: value})


def test_every_number_has_bounds():
    for section, key in EVERY:
        setting = settings_of(SECTIONS[section])[key]
        if setting.annotation in (int, float, int | None):
            assert setting.rule.bounds, f"{section}.{key}"


def test_every_default_keeps_its_own_rule_and_every_setting_is_described():
    for section, key in EVERY:
        setting = settings_of(SECTIONS[section])[key]
        assert getattr(made(section), key) == setting.default
        assert setting.rule.doc.endswith("."), f"{section}.{key}"


@pytest.mark.parametrize(
    ("section", "values", "message"),
    [
        ("kv", {"block_size": "big"}, "kv.block_size: 'big' is not allowed (give an integer, 1 to"),
        ("server", {"port": 1.5}, "server.port: 1.5 is not allowed (give an integer, 0 to 65535)"),
        ("model", {"dtype": "float64"}, "use auto or float32 or bfloat16)"),
        ("model", {"cpu_weights": "int2"}, "bf16"),
        ("model", {"seed": 7}, "(set seed in the request"),
        ("speculation", {"methods": ["a", "a"]}, "'a' is named twice (name each once)"),
        ("server", {"api_keys": [""]}, "each item is a string that is not empty"),
        ("server", {"ui": 1}, "server.ui: 1 is not allowed (give true or false)"),
    ],
)
def test_a_refusal_names_field_value_and_remedy(section, values, message):
    with pytest.raises(ConfigError) as caught:
        made(section, **values)
    assert message in str(caught.value)
    assert caught.value.field.startswith(f"{section}.")


def test_a_single_value_is_a_list_of_one_and_lists_become_tuples():
    assert SpeculationConfig(methods="ngram").methods == ("ngram",)  # pyright: ignore
    assert KVConfig(tiers=["host", "disk"]).tiers == ("host", "disk")  # pyright: ignore


def test_settings_cannot_be_changed_and_replace_checks_again():
    config = KVConfig()
    with pytest.raises(dataclasses.FrozenInstanceError):
        config.block_size = 8  # pyright: ignore
    with pytest.raises(ConfigError):
        dataclasses.replace(config, block_size=0)


def test_a_configuration_crosses_a_process_border_unchanged():
    config = EngineConfig(kv=KVConfig(block_size=32), plugins={"x": {"k": 1}})
    assert pickle.loads(pickle.dumps(config)) == config


def test_the_documentation_is_current():
    assert DOCS.read_text(encoding="utf-8") == config_reference(), (
        "run python -m rtp_core.config.reference > docs/config.md"
    )


def test_the_documentation_names_every_setting_and_flag():
    text = config_reference()
    for section, key in EVERY:
        rule = settings_of(SECTIONS[section])[key].rule
        assert f"| `{key}` |" in text
        assert rule.flag is None or f"`{rule.flag}`" in text
