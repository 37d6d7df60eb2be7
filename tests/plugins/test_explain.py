"""What is on and why, what is off and why not; and what is wanted in the first place."""

from __future__ import annotations

from rtp_core.config.read import load_config
from rtp_core.plugins.discover import builtins
from rtp_core.plugins.explain import explain, to_json
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
        for row in to_json(
            explain(
                settings, resolution, manifests, [("weights", "bfloat16", "the engine's words")]
            )
        )
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
    assert rows["weights", "bfloat16"]["reason"] == "the engine's words"
    assert rows["prefix_caching", None]["on"] is False
    assert rows["prefix_caching", None]["reason"] == "configured: kv.prefix_caching"
    rows = features(config())
    assert rows["prefix_caching", None]["reason"] == "default"
