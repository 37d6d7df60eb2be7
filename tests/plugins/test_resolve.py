"""Every way in which wishes and plugins can disagree, each with its message."""

from __future__ import annotations

import pytest

from rtp_core.api import API_VERSION, Role
from rtp_core.errors import ResolutionError
from rtp_core.plugins.manifest import Manifest
from rtp_core.plugins.resolve import Want, resolve

CPU = frozenset({"device:cpu"})
EAGLE = Want("speculator:eagle", "speculation.methods[0]", "configured: speculation.methods")


def plugin(name, *provides, **keys):
    values = {
        "version": "1.0", "api": "1.0", "needs": (), "conflicts": (), "summary": "",
        "module": f"{name}.plugin", "distribution": f"rtp-{name}",
    }  # fmt: skip
    return Manifest(name=name, provides=provides, **{**values, **keys})


def refused(wants, manifests, capabilities=CPU):
    with pytest.raises(ResolutionError) as caught:
        resolve(wants, manifests, capabilities)
    return str(caught.value)


def test_only_the_wanted_plugin_is_chosen():
    eagle, other = plugin("eagle", "speculator:eagle"), plugin("other", "loader:fast")
    resolution = resolve((EAGLE,), (other, eagle), CPU)
    assert resolution.plugins == (eagle,)
    assert resolution.owners == {"speculator:eagle": eagle}


def test_needed_offers_come_first_and_transitively():
    first = plugin("first", "kv_store:paged")
    second = plugin("second", "attention:paged", needs=("kv_store:paged", "device:cpu"))
    third = plugin("third", "speculator:eagle", needs=("attention:paged",))
    resolution = resolve((EAGLE,), (third, second, first), CPU)
    assert [one.name for one in resolution.plugins] == ["first", "second", "third"]
    assert [(want.key, want.reason) for want in resolution.needed] == [
        ("kv_store:paged", "needed by second"),
        ("attention:paged", "needed by third"),
    ]


def test_plugins_may_need_each_other():
    one = plugin("one", "speculator:eagle", needs=("kv_store:paged",))
    two = plugin("two", "kv_store:paged", needs=("speculator:eagle",))
    assert {one.name for one in resolve((EAGLE,), (one, two), CPU).plugins} == {"one", "two"}


def test_a_known_offer_names_the_package_to_install():
    message = refused((EAGLE,), (plugin("core.speculation", "speculator:ngram"),))
    assert message == (
        "nothing provides speculator:eagle, wanted by speculation.methods[0] "
        "(pip install rtp-spec-eagle; installed: ngram)"
    )


@pytest.mark.parametrize(
    ("key", "package"),
    [
        ("speculator:medusa", "rtp-spec-medusa"),
        ("kv_store:adaptive", "rtp-kvquant"),
        ("encoder:vision", "rtp-vision"),
        ("role:prefill", "rtp-pd"),
        ("transport:tcp", "rtp-pd"),
        ("transport:carrier_pigeon", "rtp-pd"),
        ("router:kv_aware", "rtp-pd"),
    ],
)
def test_each_of_our_packages_is_hinted(key, package):
    assert f"pip install {package}; installed: none" in refused((Want(key, "f", "r"),), ())


def test_an_installed_package_is_not_hinted_again():
    pd = plugin("pd", "transport:tcp", distribution="rtp-pd")
    message = refused((Want("transport:tpc", "pd.transport", "r"),), (pd,))
    assert message.endswith("(did you mean 'tcp'?; installed: tcp)")


def test_an_unknown_offer_names_the_nearest():
    message = refused(
        (Want("speculator:ngrm", "speculation.methods[0]", "r"),),
        (plugin("core.speculation", "speculator:ngram"),),
    )
    assert message.endswith("(did you mean 'ngram'?; installed: ngram)")


def test_the_nearest_name_may_be_one_that_is_not_installed():
    message = refused((Want("speculator:eagel", "speculation.methods[0]", "r"),), ())
    assert message.endswith("(did you mean 'eagle'?; installed: none)")
    message = refused((Want("speculator:xyz", "speculation.methods[0]", "r"),), ())
    assert message.endswith("(installed: none)")


def test_two_plugins_offering_one_name_are_refused():
    message = refused(
        (EAGLE,),
        (plugin("a", "speculator:eagle"), plugin("b", "speculator:eagle", version="2.0")),
    )
    assert message == (
        "speculator:eagle, wanted by speculation.methods[0], is offered by a 1.0 and b 2.0 "
        "(uninstall all but one: pip uninstall rtp-a or rtp-b)"
    )


def test_a_builtin_is_not_the_one_to_uninstall():
    message = refused(
        (EAGLE,), (plugin("core.x", "speculator:eagle"), plugin("b", "speculator:eagle"))
    )
    assert message.endswith("pip uninstall rtp-b)")


def test_loaded_plugins_may_not_overlap_even_in_what_nobody_wants():
    other = Want("loader:fast", "loading.loader", "r")
    message = refused(
        (EAGLE, other),
        (plugin("a", "speculator:eagle", "routes:x"), plugin("b", "loader:fast", "routes:x")),
    )
    assert "routes:x, wanted by loading.loader, is offered by a 1.0 and b 1.0" in message


def test_a_healthy_plugin_wins_over_a_broken_one():
    healthy = plugin("a", "speculator:eagle")
    broken = plugin("b", "speculator:eagle", broken="plugin.toml: api is missing")
    assert resolve((EAGLE,), (broken, healthy), CPU).plugins == (healthy,)


@pytest.mark.parametrize("conflict", ["b", "loader:fast"])
def test_conflicts_by_plugin_or_offer_are_refused(conflict):
    wants = (EAGLE, Want("loader:fast", "loading.loader", "r"))
    one, two = plugin("a", "speculator:eagle", conflicts=(conflict,)), plugin("b", "loader:fast")
    assert refused(wants, (one, two)) == (
        "plugin a 1.0 (for speculation.methods[0]) conflicts with b 1.0 (for loading.loader): "
        f"it excludes {conflict} (ask for only one of the two in the configuration)"
    )
    assert resolve((EAGLE,), (one, two), CPU).plugins == (one,)


def test_a_missing_capability_is_refused():
    message = refused((EAGLE,), (plugin("a", "speculator:eagle", needs=("device:cuda",)),))
    assert message == (
        "plugin a 1.0, which offers speculator:eagle for speculation.methods[0], needs "
        "device:cuda; this machine has device:cpu "
        "(remove 'eagle' from speculation.methods[0])"
    )


def test_a_missing_needed_offer_names_who_needs_it():
    message = refused((EAGLE,), (plugin("a", "speculator:eagle", needs=("kv_store:adaptive",)),))
    assert message == (
        "nothing provides kv_store:adaptive, wanted by speculation.methods[0], needed by "
        "plugin a 1.0 (pip install rtp-kvquant; installed: none)"
    )


@pytest.mark.parametrize(
    ("api", "remedy"),
    [
        (f"{API_VERSION[0] + 1}.0", "pip install --upgrade rtp-core"),
        (f"{API_VERSION[0]}.{API_VERSION[1] + 1}", "pip install --upgrade rtp-core"),
        (f"{API_VERSION[0] - 1}.9", "pip install --upgrade rtp-a"),
    ],
)
def test_another_api_is_refused(api, remedy):
    message = refused((EAGLE,), (plugin("a", "speculator:eagle", api=api),))
    assert "plugin a 1.0, which offers speculator:eagle for speculation.methods[0]," in message
    assert f"was made for API {api}; this rtp-core has API" in message
    assert message.endswith(f"({remedy})")


def test_an_unselected_plugin_of_another_api_is_harmless():
    good, old = plugin("a", "speculator:eagle"), plugin("b", "loader:fast", api="9.0")
    assert resolve((EAGLE,), (old, good), CPU).plugins == (good,)


def test_a_broken_plugin_is_an_error_only_when_wanted():
    broken = plugin("a", "speculator:eagle", broken="plugin.toml: unknown key 'x'")
    assert resolve((), (broken,), CPU).plugins == ()
    assert refused((EAGLE,), (broken,)) == (
        "plugin a 1.0, which offers speculator:eagle for speculation.methods[0], cannot be "
        "used: plugin.toml: unknown key 'x' (repair or reinstall rtp-a)"
    )


def test_a_plugin_without_readable_manifest_is_mentioned_when_an_offer_is_missing():
    silent = plugin(
        "eagle", broken="package fake holds no plugin.toml", distribution="rtp-spec-eagle"
    )
    message = refused((EAGLE,), (silent,))
    assert "eagle 1.0 is broken: package fake holds no plugin.toml" in message
    assert "pip install" not in message


FALLBACK = Want("model:transformers", "model.path", "no native family for XForCausalLM")
NATIVE = Want("model:XForCausalLM", "model.path", "the architecture", otherwise=FALLBACK)
CORE = plugin("core.models", "model:transformers", "model:LlamaForCausalLM")


def test_a_want_without_an_offer_gives_way_to_what_stands_in_for_it():
    resolution = resolve((NATIVE,), (CORE,), CPU)
    assert resolution.wants == (FALLBACK,)
    assert resolution.names(Role.MODEL) == ("transformers",)


def test_an_installed_offer_is_preferred_to_what_stands_in_for_it():
    third_party = plugin("xmodels", "model:XForCausalLM")
    resolution = resolve((NATIVE,), (CORE, third_party), CPU)
    assert resolution.wants == (NATIVE,)
    assert resolution.plugins == (third_party,)


def test_a_broken_offer_is_reported_and_not_passed_over():
    broken = plugin("xmodels", "model:XForCausalLM", broken="plugin.toml: bad")
    assert "plugin.toml: bad" in refused((NATIVE,), (CORE, broken))


def test_without_offer_and_stand_in_the_stand_in_is_what_is_missing():
    message = refused((NATIVE,), ())
    assert message.startswith("nothing provides model:transformers, wanted by model.path")
