"""What is on and why, what is off and why not; and what is wanted in the first place."""

from __future__ import annotations

import json

import pytest

from rtp_core.config.read import load_config
from rtp_core.plugins.discover import builtins, discover
from rtp_core.plugins.explain import explain, to_json
from rtp_core.plugins.listing import list_plugins
from rtp_core.plugins.manifest import Manifest
from rtp_core.plugins.resolve import resolve
from rtp_core.plugins.wants import wants

CPU = frozenset({"device:cpu"})
LLAMA = "LlamaForCausalLM"


def config(**sections):
    return load_config(overrides=sections, environ={})


def features(settings, manifests=None):
    manifests = builtins() if manifests is None else manifests
    resolution = resolve(wants(settings, LLAMA, "cpu"), manifests, CPU)
    return {
        (row["role"], row["offer"]): row
        for row in to_json(explain(settings, resolution, manifests))
    }


def plugin(name, *provides, **keys):
    values = {
        "version": "2.0", "api": "1.0", "needs": (), "conflicts": (), "summary": "",
        "module": f"{name}.plugin", "distribution": f"rtp-{name}",
    }  # fmt: skip
    return Manifest(name=name, provides=provides, **{**values, **keys})


def test_defaults_want_one_offer_for_each_role_in_use():
    found = {want.key: (want.field, want.reason) for want in wants(config(), LLAMA, "cpu")}
    assert found == {
        "loader:auto": ("loading.loader", "default"),
        "attention:torch": ("model.attention", "auto: torch serves the device cpu"),
        f"model:{LLAMA}": ("model.path", "the model's architecture"),
        "scheduler:fcfs": ("scheduling.policy", "default"),
        "kv_store:dense": ("kv.store", "default"),
    }


def test_each_named_offer_is_wanted_by_its_place():
    settings = config(
        speculation={"methods": ["eagle", "ngram"]},
        kv={"tiers": ["host"]},
        modality={"encoders": ["vision"]},
        pd={"role": "prefill", "transport": "shm"},
        attention="flash",
    )
    found = {want.key: want.field for want in wants(settings, LLAMA, "cpu")}
    assert found["speculator:ngram"] == "speculation.methods[1]"
    assert found["kv_tier:host"] == "kv.tiers[0]"
    assert found["encoder:vision"] == "modality.encoders[0]"
    assert found["role:prefill"] == "pd.role"
    assert found["transport:shm"] == "pd.transport"
    assert found["attention:flash"] == "model.attention"


def test_what_is_on_names_offer_plugin_and_reason():
    rows = features(config(speculation={"methods": "ngram"}, scheduling={"policy": "priority"}))
    assert rows["speculator", "ngram"]["on"]
    assert rows["speculator", "ngram"]["plugin"] == "core.speculation"
    assert rows["speculator", "ngram"]["reason"] == "configured: speculation.methods"
    assert rows["scheduler", "priority"]["reason"] == "configured: scheduling.policy"
    assert rows["loader", "auto"]["reason"] == "default"
    assert rows["model", LLAMA]["plugin"] == "core.models"
    assert rows["model", LLAMA]["version"]


def test_the_core_explains_what_it_decides_itself():
    rows = features(config(dtype="float32", kv={"prefix_caching": False}))
    assert rows["weights", "float32"]["reason"] == "configured: model.dtype"
    assert rows["prefix_caching", None]["on"] is False
    assert rows["prefix_caching", None]["reason"] == "configured: kv.prefix_caching"
    rows = features(config())
    assert rows["weights", "bfloat16"]["reason"].startswith("auto: ")
    assert rows["prefix_caching", None]["reason"] == "default"


def test_the_precision_named_for_auto_is_the_one_the_engine_runs():
    from rtp_core.engine.prepare import run_dtype

    assert ("weights", run_dtype("auto")) in features(config())


@pytest.mark.parametrize(
    ("role", "reason"),
    [
        ("speculator", "speculation.methods is empty"),
        ("kv_tier", "kv.tiers is empty"),
        ("encoder", "modality.encoders is empty"),
        ("transport", "pd.role is both"),
        ("role", "pd.role is both"),
        ("kv_format", "the KV store keeps blocks in model.dtype"),
    ],
)
def test_a_role_nobody_fills_says_why(role, reason):
    row = features(config())[role, None]
    assert row["on"] is False
    assert row["reason"] == reason


def test_other_offers_are_off_because_not_selected_or_not_installed():
    rows = features(config(), (*builtins(), plugin("medusa", "speculator:medusa")))
    assert rows["speculator", "medusa"]["reason"] == "installed, not selected"
    assert rows["speculator", "medusa"]["plugin"] == "medusa"
    assert rows["speculator", "eagle"]["reason"] == "not installed (pip install rtp-spec-eagle)"
    assert rows["speculator", "eagle"]["plugin"] is None
    assert rows["kv_store", "adaptive"]["reason"] == "not installed (pip install rtp-kvquant)"
    assert rows["scheduler", "prefix"]["reason"] == "installed, not selected"


def test_broken_and_needed_plugins_are_explained():
    eagle = plugin("eagle", "speculator:eagle", needs=("kv_format:int8",))
    quant = plugin("quant", "kv_format:int8")
    bad = plugin("bad", broken="package bad holds no plugin.toml")
    rows = features(config(speculation={"methods": "eagle"}), (*builtins(), eagle, quant, bad))
    assert rows["kv_format", "int8"]["reason"] == "needed by eagle"
    assert rows["plugin", None]["reason"] == "broken: package bad holds no plugin.toml"
    assert rows["plugin", None]["plugin"] == "bad"


def test_rows_have_the_promised_keys_and_are_plain_data():
    rows = list(features(config()).values())
    assert json.loads(json.dumps(rows)) == rows
    assert all(set(row) == {"role", "offer", "plugin", "version", "on", "reason"} for row in rows)
    assert [row["on"] for row in rows] == sorted((row["on"] for row in rows), reverse=True)


def test_the_listing_says_what_is_selected_and_what_is_broken(site):
    site.install("spec_eagle", "raise RuntimeError('imported')")
    site.install("bad", manifest="[plugin]\nname = 'bad'\n")
    manifests = discover()
    rows = {row["name"]: row for row in list_plugins(manifests, None)}
    assert rows["core.kv"]["selected"] is None
    assert rows["bad"]["broken"] == "plugin.toml: api, provides is missing"
    resolution = resolve(wants(config(), LLAMA, "cpu"), manifests, CPU)
    rows = {row["name"]: row for row in list_plugins(manifests, resolution)}
    assert rows["core.kv"]["selected"] is True
    assert rows["spec_eagle"]["selected"] is False
    assert set(rows["spec_eagle"]) == {
        "name", "version", "api", "provides", "needs", "conflicts", "summary", "selected",
        "broken",
    }  # fmt: skip
    assert json.loads(json.dumps(list(rows.values()))) == list(rows.values())
