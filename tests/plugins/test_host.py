"""What the host refuses, and that every refusal names plugin, version and remedy."""

from __future__ import annotations

import sys

import pytest

from rtp_core.api import Role
from rtp_core.errors import ConfigError, PluginError, ResolutionError
from rtp_core.plugins.discover import discover
from rtp_core.plugins.host import PluginHost
from rtp_core.plugins.resolve import Want, resolve

HEAD = "from rtp_core.api import Offer, Role, hookimpl\n"
EAGLE = Want("speculator:eagle", "speculation.methods[0]", "configured: speculation.methods")


def load(*wants, options=None):
    manifests = discover()
    host = PluginHost(manifests, options or {})
    host.load(resolve(wants or (EAGLE,), manifests, frozenset({"device:cpu"})))
    return host


def refusal(**more):
    with pytest.raises(PluginError) as caught:
        load(**more)
    assert (caught.value.plugin, caught.value.version) == ("spec_eagle", "1.0")
    assert str(caught.value).startswith("plugin spec_eagle 1.0: ")
    assert caught.value.remedy
    return caught.value


def test_a_plugin_is_loaded_and_its_offer_builds(site, context):
    site.install("spec_eagle", version="0.4")
    host = load()
    assert type(host.build(Role.SPECULATOR, "eagle", context)).__name__ == "Drafter"
    assert host.owner("speculator:eagle") == ("spec_eagle", "0.4")
    assert "spec_eagle" in [one.name for one in host.manifests]


def test_two_hosts_in_one_process_are_independent(site, context):
    site.install("spec_eagle")
    one, two = load(), load()
    one.build(Role.SPECULATOR, "eagle", context)
    one.seal()
    assert two.build(Role.SPECULATOR, "eagle", context)


def test_a_resolution_may_be_loaded_in_parts(site, context):
    site.install("spec_eagle")
    manifests = discover()
    host = PluginHost(manifests, {})
    for key in ("speculator:eagle", "speculator:eagle", "kv_store:dense"):
        host.load(resolve((Want(key, "f", "r"),), manifests, frozenset()))
    assert host.build(Role.KV_STORE, "dense", context)


def test_only_resolved_plugins_are_imported(site):
    site.install("spec_eagle")
    site.install("spec_other", "raise RuntimeError('imported')", provides=["speculator:other"])
    load()
    assert "fake_spec_eagle.plugin" in sys.modules
    assert "fake_spec_other" not in sys.modules


def test_a_failing_import_is_attributed_and_chained(site):
    site.install("spec_eagle", "import module_that_is_not_there")
    error = refusal()
    assert "importing it failed: ModuleNotFoundError: No module named" in str(error)
    assert "reinstall rtp-spec-eagle" in str(error)
    assert isinstance(error.__cause__, ModuleNotFoundError)


def test_a_failing_hook_is_attributed_and_chained(site):
    site.install("spec_eagle", HEAD + "@hookimpl\ndef rtp_speculators(): return 1 / 0\n")
    error = refusal()
    assert "rtp_speculators failed: ZeroDivisionError" in str(error)
    assert isinstance(error.__cause__, ZeroDivisionError)


@pytest.mark.parametrize(
    ("body", "message", "remedy"),
    [
        (
            "@hookimpl\ndef rtp_speculator(): return ()",
            "rtp_speculator is no hook",
            "did you mean 'rtp_speculators'?",
        ),
        (
            "@hookimpl(specname='rtp_speculater')\ndef mine(): return ()",
            "rtp_speculater is no hook",
            "did you mean 'rtp_speculators'?",
        ),
        (
            "def rtp_speculators(): return ()",
            "rtp_speculators is not marked as a hook",
            "decorate it with @rtp_core.hookimpl",
        ),
        (
            "@hookimpl(hookwrapper=True)\ndef rtp_speculators(): yield",
            "rtp_speculators wraps other implementations",
            "return offers: hooks are not wrapped",
        ),
        (
            "@hookimpl(wrapper=True)\ndef rtp_speculators(): return (yield)",
            "rtp_speculators wraps other implementations",
            "return offers: hooks are not wrapped",
        ),
        (
            "@hookimpl(tryfirst=True)\ndef rtp_speculators(): return ()",
            "rtp_speculators asks for an order",
            "leave out tryfirst and trylast",
        ),
        (
            "@hookimpl\ndef rtp_speculators(more=()): return more",
            "rtp_speculators takes more",
            "hooks take no argument",
        ),
        (
            "@hookimpl\ndef rtp_speculators(config): return ()",
            "rtp_speculators takes config",
            "hooks take no argument",
        ),
        (
            "@hookimpl\ndef rtp_speculators(): return [Offer(Role.SPECULATOR, 'eagle', print)]",
            "rtp_speculators returned [Offer(",
            "return a tuple of Offer",
        ),
        (
            "@hookimpl\ndef rtp_speculators(): return None",
            "rtp_speculators returned None",
            "return a tuple of Offer",
        ),
        (
            "@hookimpl\ndef rtp_speculators(): return ('eagle',)",
            "rtp_speculators returned ('eagle',)",
            "return a tuple of Offer",
        ),
        (
            "@hookimpl\ndef rtp_speculators(): return (Offer('speculator', 'eagle', print),)",
            "rtp_speculators offers 'eagle' in the role 'speculator'",
            "it may offer Role: speculator",
        ),
        (
            "@hookimpl\ndef rtp_kv_stores(): return (Offer(Role.SPECULATOR, 'eagle', print),)",
            "rtp_kv_stores offers 'eagle' in the role",
            "it may offer Role: kv_format, kv_store, kv_tier",
        ),
        (
            "@hookimpl\ndef rtp_speculators(): return (Offer(Role.SPECULATOR, 'eagle', None),)",
            "speculator:eagle has no factory",
            "give it a callable (context, options)",
        ),
        (
            "@hookimpl\ndef rtp_speculators():\n"
            "    return (Offer(Role.SPECULATOR, 'eagle', print),) * 2",
            "rtp_speculators offers speculator:eagle twice",
            "report it to the plugin's authors",
        ),
        (
            "",
            "plugin.toml provides speculator:eagle, but no hook offers it",
            "make plugin.toml and the hooks agree",
        ),
        (
            "@hookimpl\ndef rtp_speculators(): return tuple("
            "Offer(Role.SPECULATOR, n, print) for n in ('eagle', 'hawk'))",
            "hooks offer speculator:hawk, which plugin.toml does not provide",
            "make plugin.toml and the hooks agree",
        ),
    ],
)
def test_a_broken_contract_is_refused(site, body, message, remedy):
    site.install("spec_eagle", HEAD + body)
    error = refusal()
    assert message in error.message
    assert remedy in str(error.remedy)


def test_an_optional_hook_of_a_later_api_is_accepted(site, context):
    body = site_body() + "\n@hookimpl(optionalhook=True)\ndef rtp_later(): return ()\n"
    site.install("spec_eagle", body)
    assert load().build(Role.SPECULATOR, "eagle", context)


def site_body():
    return HEAD + (
        "class Drafter:\n"
        "    needs = None\n"
        "    propose = observe = release = print\n"
        "@hookimpl\n"
        "def rtp_speculators():\n"
        "    return (Offer(Role.SPECULATOR, 'eagle', lambda context, options: Drafter()),)\n"
    )


def building(site, factory):
    site.install(
        "spec_eagle",
        HEAD + factory + "\n@hookimpl\ndef rtp_speculators():\n"
        "    return (Offer(Role.SPECULATOR, 'eagle', build),)\n",
    )
    return load()


def test_a_failing_factory_is_attributed_and_chained(site, context):
    host = building(site, "def build(context, options): return {}['weights']")
    with pytest.raises(PluginError, match="building speculator:eagle failed") as e:
        host.build(Role.SPECULATOR, "eagle", context)
    assert isinstance(e.value.__cause__, KeyError)
    assert e.value.remedy


def test_an_error_the_factory_raises_on_purpose_passes(site, context):
    host = building(
        site,
        "from rtp_core.errors import ConfigError\n"
        "def build(context, options): raise ConfigError('plugins.spec_eagle.k', 'too large')",
    )
    with pytest.raises(ConfigError, match="too large"):
        host.build(Role.SPECULATOR, "eagle", context)


@pytest.mark.parametrize(
    ("built", "lacking"),
    [("None", "needs, propose, observe, release"), ("str", "needs, propose, observe, release")],
)
def test_a_built_object_of_another_shape_is_refused(site, context, built, lacking):
    host = building(site, f"def build(context, options): return {built}")
    with pytest.raises(PluginError, match=f"speculator:eagle builds has no {lacking}"):
        host.build(Role.SPECULATOR, "eagle", context)


def test_an_offer_that_is_not_loaded_is_refused(site, context):
    site.install("spec_eagle")
    with pytest.raises(ResolutionError, match=r"speculator:eagel is not loaded \(did you mean"):
        load().build(Role.SPECULATOR, "eagel", context)


def test_a_sealed_host_neither_builds_nor_loads(site, context):
    site.install("spec_eagle")
    host = load()
    host.build(Role.SPECULATOR, "eagle", context)
    host.seal()
    with pytest.raises(PluginError, match=r"set-up is over: .*\(load and build before seal\(\)\)"):
        host.build(Role.SPECULATOR, "eagle", context)
    with pytest.raises(PluginError, match="set-up is over"):
        host.load(resolve((Want("kv_store:dense", "f", "r"),), host.manifests, frozenset()))


def test_something_selected_and_never_built_stops_the_start(site):
    site.install("spec_eagle")
    with pytest.raises(PluginError) as caught:
        load().seal()
    assert str(caught.value) == (
        "plugin spec_eagle 1.0: speculator:eagle, selected by speculation.methods[0], has no use "
        "in this engine (remove 'eagle' from speculation.methods[0])"
    )


def test_a_refused_plugin_is_refused_again_by_the_next_host(site):
    """A failed registration leaves nothing behind that a later host would take for loaded."""
    site.install("spec_eagle", site_body() + "@hookimpl\ndef rtp_speculatr(): return ()\n")
    for _ in range(2):
        assert "rtp_speculatr is no hook" in refusal().message


OPTIONS = HEAD + (
    "from dataclasses import dataclass\n"
    "from typing import Literal\n"
    "@dataclass(frozen=True)\n"
    "class Options:\n"
    "    depth: int = 3\n"
    "    share: float = 0.5\n"
    "    greedy: bool = False\n"
    "    mode: Literal['tree', 'chain'] = 'chain'\n"
    "    layers: tuple[int, ...] = ()\n"
    "    weights: str | None = None\n"
    "@hookimpl\n"
    "def rtp_plugin_options(): return Options\n"
)


KEEPING = """
def build(context, options):
    made = Drafter()
    made.options = options
    return made
"""


def options_of(site, context, table, body=OPTIONS):
    factory = "lambda context, options: Drafter()"
    site.install("spec_eagle", site_body().replace(factory, "build") + KEEPING + body)
    host = load(options={"spec_eagle": table})
    return host.build(Role.SPECULATOR, "eagle", context).options


def test_options_reach_the_factory_typed(site, context):
    table = {"depth": 5, "share": 1, "greedy": True, "mode": "tree", "layers": [2, 4]}
    options = options_of(site, context, table)
    assert (options.depth, options.share, options.greedy) == (5, 1.0, True)
    assert (options.mode, options.layers, options.weights) == ("tree", (2, 4), None)


def test_options_given_as_text_are_read_by_their_type(site, context):
    table = {"depth": "5", "greedy": "yes", "layers": "2,4", "weights": "none"}
    options = options_of(site, context, table)
    assert (options.depth, options.greedy) == (5, True)
    assert (options.layers, options.weights) == ((2, 4), None)


@pytest.mark.parametrize(
    ("table", "message"),
    [
        (
            {"dept": 5},
            "plugins.spec_eagle.dept: plugin spec_eagle 1.0 has no such option "
            "(did you mean 'depth'?)",
        ),
        ({"depth": "deep"}, "plugins.spec_eagle.depth: 'deep' is not allowed (give an integer)"),
        ({"depth": True}, "plugins.spec_eagle.depth: True is not allowed (give an integer)"),
        (
            {"mode": "bush"},
            "plugins.spec_eagle.mode: 'bush' is not allowed (give one of tree, chain)",
        ),
        (
            {"layers": ["x"]},
            "plugins.spec_eagle.layers: ['x'] is not allowed "
            "(give a list; each item is an integer)",
        ),
    ],
)
def test_a_wrong_option_names_its_key(site, context, table, message):
    with pytest.raises(ConfigError) as caught:
        options_of(site, context, table)
    assert str(caught.value) == message


def test_a_required_option_that_is_missing_is_named(site, context):
    body = OPTIONS.replace("depth: int = 3", "depth: int")
    with pytest.raises(
        ConfigError, match=r"plugins\.spec_eagle\.depth: plugin spec_eagle 1\.0 req"
    ):
        options_of(site, context, {}, body)


def test_bounds_of_the_plugin_itself_are_reported_as_settings(site, context):
    body = OPTIONS.replace(
        "@hookimpl",
        "    def __post_init__(self):\n"
        "        if self.depth > 4: raise ValueError('depth is at most 4')\n"
        "@hookimpl",
        1,
    )
    with pytest.raises(ConfigError, match=r"plugins\.spec_eagle: .* refuses .* depth is at most 4"):
        options_of(site, context, {"depth": 5}, body)


def test_a_plugin_without_options_takes_no_table(site):
    site.install("spec_eagle")
    with pytest.raises(ConfigError, match=r"plugins\.spec_eagle: .* takes no options \(remove k\)"):
        load(options={"spec_eagle": {"k": 1}})


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ("@hookimpl\ndef rtp_plugin_options(): return dict", "returned <class 'dict'>"),
        ("@hookimpl\ndef rtp_plugin_options(): return {'k': 1}", "returned {'k': 1}"),
        (
            "import dataclasses\n@dataclasses.dataclass\nclass O:\n    k: int = 1\n"
            "@hookimpl\ndef rtp_plugin_options(): return O",
            "O'>",
        ),
        (
            "import dataclasses\n@dataclasses.dataclass(frozen=True)\nclass O:\n    k: set = 1\n"
            "@hookimpl\ndef rtp_plugin_options(): return O",
            "is not a type that settings can have",
        ),
        (
            "import dataclasses\n@dataclasses.dataclass(frozen=True)\nclass O:\n    k: 'No' = 1\n"
            "@hookimpl\ndef rtp_plugin_options(): return O",
            "cannot be resolved",
        ),
    ],
)
def test_options_of_another_kind_are_the_plugins_fault(site, body, message):
    site.install("spec_eagle", site_body() + body)
    assert message in refusal(options={"spec_eagle": {"k": 1}}).message


def test_a_table_for_a_plugin_that_is_not_installed_is_refused(site):
    site.install("spec_eagle")
    with pytest.raises(ConfigError) as caught:
        PluginHost(discover(), {"spec_eagl": {}})
    assert str(caught.value) == (
        "plugins.spec_eagl: no plugin of this name is installed (did you mean 'spec_eagle'?)"
    )


def test_a_table_for_an_installed_plugin_that_is_not_selected_is_fine(site):
    site.install("spec_eagle")
    host = PluginHost(discover(), {"spec_eagle": {"whatever": 1}})
    host.load(resolve((Want("kv_store:dense", "f", "r"),), host.manifests, frozenset()))
    assert "fake_spec_eagle" not in sys.modules


def test_offers_of_plugins_loaded_one_after_another_may_not_overlap(site):
    for name in ("spec_eagle", "spec_twin"):
        site.install(name)
    manifests = [one for one in discover() if one.name == "spec_eagle"]
    host = PluginHost(discover(), {})
    host.load(resolve((EAGLE,), manifests, frozenset()))
    others = [one for one in discover() if one.name == "spec_twin"]
    with pytest.raises(PluginError, match=r"spec_twin 1\.0: .* offered by spec_eagle 1\.0 too"):
        host.load(resolve((EAGLE,), others, frozenset()))
