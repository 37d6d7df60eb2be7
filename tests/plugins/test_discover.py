"""Installed plugins are found and described without being imported."""

from __future__ import annotations

import importlib
import sys

import pytest

from rtp_core.plugins.discover import builtins, discover

EXPLODES = "raise RuntimeError('imported')"


def found(name):
    (manifest,) = [one for one in discover() if one.name == name]
    return manifest


def test_a_plain_install_is_read_without_import(site):
    site.install("spec_eagle", EXPLODES, version="0.7")
    manifest = found("spec_eagle")
    assert manifest.broken is None
    assert (manifest.version, manifest.distribution) == ("0.7", "rtp-spec-eagle")
    assert manifest.provides == ("speculator:eagle",)
    assert not [name for name in sys.modules if name.startswith("fake_spec_eagle")]


def test_an_editable_install_is_read_without_import(site, tmp_path, monkeypatch):
    """Only the dist-info is in the site folder; the package comes from elsewhere on the path."""
    source = tmp_path / "checkout"
    site.write_package(source / "fake_editable", EXPLODES, site.manifest("editable", None))
    site.register("editable", "fake_editable.plugin")
    monkeypatch.syspath_prepend(str(source))
    assert found("editable").broken is None
    assert "fake_editable" not in sys.modules


def test_an_editable_install_is_read_as_it_is_now(site):
    package = site.install("current")
    assert found("current").summary == ""
    text = (package / "plugin.toml").read_text()
    (package / "plugin.toml").write_text(text + 'summary = "New."\n')
    assert found("current").summary == "New."


def test_a_missing_manifest_is_broken(site):
    package = site.install("bare")
    (package / "plugin.toml").unlink()
    assert found("bare").broken == "package fake_bare holds no plugin.toml"


def test_a_namespace_package_is_refused(site):
    package = site.install("spaced")
    (package / "__init__.py").unlink()
    importlib.invalidate_caches()
    assert found("spaced").broken == ("fake_spaced is a namespace package; it needs an __init__.py")


def test_a_single_module_is_refused(site):
    (site.root / "fake_single.py").write_text("")
    site.register("single", "fake_single")
    assert "is a module, not a package" in (found("single").broken or "")


def test_a_package_that_is_gone_is_broken(site):
    site.register("gone", "fake_gone.plugin")
    assert found("gone").broken == "package fake_gone is not on the path"


@pytest.mark.parametrize("value", ["fake_x.plugin:main", "fake x"])
def test_an_entry_point_must_name_a_module(site, value):
    site.register("odd", value)
    assert "is not a module like rtp_x.plugin" in (found("odd").broken or "")


def test_two_plugins_of_one_name_are_both_broken(site):
    site.install("twin")
    site.register("twin", "fake_twin.plugin", distribution="rtp-other")
    twins = [one for one in discover() if one.name == "twin"]
    assert [one.distribution for one in twins] == ["rtp-other", "rtp-twin"]
    for twin in twins:
        assert twin.broken == (
            "rtp-other and rtp-twin install plugins of the same name; uninstall all but one"
        )


def test_no_plugin_can_take_a_builtin_name(site):
    site.install("core_kv", manifest='[plugin]\nname = "core.kv"\napi = "1.0"\nprovides = []\n')
    assert "differs from the entry point's" in (found("core_kv").broken or "")


def test_builtins_come_first_and_are_whole():
    names = [manifest.name for manifest in builtins()]
    assert {"core.loading", "core.kv", "core.scheduling", "core.speculation"} <= set(names)
    assert {"core.models", "core.execution"} <= set(names)
    assert [one.broken for one in builtins()] == [None] * len(names)
    assert [one.name for one in discover()][: len(names)] == names
