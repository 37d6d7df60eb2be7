"""Built-in parts keep the same contract as any plugin, and stay light."""

from __future__ import annotations

import json
import subprocess
import sys

from rtp_core.api import Role, hookspecs
from rtp_core.plugins.discover import builtins
from rtp_core.plugins.hooks import HOOKS, ROLES_OF
from rtp_core.plugins.host import PluginHost
from rtp_core.plugins.resolve import Want, resolve

PROBE = """
import json, sys
sys.path.insert(0, sys.argv[1])
from rtp_core.config.read import load_config
from rtp_core.plugins.discover import discover
from rtp_core.plugins.host import PluginHost
from rtp_core.plugins.listing import list_plugins
from rtp_core.plugins.resolve import resolve
from rtp_core.plugins.wants import wants
config = load_config(environ={})
manifests = discover()
host = PluginHost(manifests, config.plugins)
host.load(resolve(wants(config, "LlamaForCausalLM", "cpu"), manifests, frozenset()))
fakes = [name for name in sys.modules if name.startswith("fake_")]
heavy = sorted({"torch", "numpy", "transformers", "fastapi", "zmq"} & set(sys.modules))
unwanted = [name for name in sys.modules if name == "rtp_core.speculation.plugin"]
rows = {row["name"]: row["broken"] for row in list_plugins(manifests, None)}
print(json.dumps({"fakes": fakes, "heavy": heavy, "unwanted": unwanted, "rows": rows}))
"""


def test_set_up_imports_no_unselected_plugin_and_nothing_heavy(site):
    """A plugin that would fail at import, and one without manifest, change nothing."""
    site.install("explodes", "raise RuntimeError('imported')", provides=["speculator:boom"])
    bare = site.install("bare")
    (bare / "plugin.toml").unlink()
    done = subprocess.run(
        [sys.executable, "-c", PROBE, str(site.root)],
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    assert report["fakes"] == []
    assert report["heavy"] == []
    assert report["unwanted"] == []
    assert report["rows"]["explodes"] is None
    assert report["rows"]["bare"] == "package fake_bare holds no plugin.toml"


def test_every_builtin_offers_what_its_manifest_provides():
    manifests = builtins()
    offers = [Want(key, "test", "test") for one in manifests for key in one.provides]
    host = PluginHost(manifests, {})
    host.load(resolve(offers, manifests, frozenset()))
    for manifest in manifests:
        for key in manifest.provides:
            assert host.owner(key) == (manifest.name, manifest.version)


def test_every_hook_of_the_contract_is_asked_and_every_role_has_a_hook():
    specified = {
        name
        for name, value in vars(hookspecs).items()
        if getattr(value, f"{hookspecs.PROJECT}_spec", None) is not None
    }
    assert specified == set(HOOKS)
    offered = [role for roles in ROLES_OF.values() for role in roles]
    assert sorted(offered) == sorted(Role)


def test_no_hook_is_historic_or_stops_at_the_first_result():
    for hook in HOOKS:
        marks = getattr(hookspecs, hook).rtp_spec
        assert not marks["historic"]
        assert not marks["firstresult"]
