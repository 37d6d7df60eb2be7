"""Every rule of plugin.toml has a precise reason when it is broken."""

from __future__ import annotations

import tomllib
from types import SimpleNamespace

import pytest

from rtp_core.plugins.manifest import Fits, Source, parse_manifest, read_manifest

SOURCE = Source("spec_eagle", "rtp_spec_eagle.plugin", "rtp-spec-eagle", "0.3")
GOOD = """
[plugin]
name = "spec_eagle"
api = "1.0"
provides = ["speculator:eagle"]
needs = ["device:cuda", "kv_store:dense"]
conflicts = ["other"]
summary = "Drafts."
[plugin.fits]
architectures = ["LlamaForCausalLM"]
hidden_sizes = [576]
"""


def parse(text):
    return parse_manifest(tomllib.loads(text), SOURCE)


def test_a_good_manifest_is_typed_data():
    manifest = parse(GOOD)
    assert manifest.broken is None
    assert manifest.provides == ("speculator:eagle",)
    assert manifest.needs == ("device:cuda", "kv_store:dense")
    assert manifest.conflicts == ("other",)
    assert manifest.api_version == (1, 0)
    assert manifest.fits == Fits(("LlamaForCausalLM",), (576,))
    assert (manifest.label, manifest.distribution) == ("spec_eagle 0.3", "rtp-spec-eagle")


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (('summary = "Drafts."', 'sumary = "x"'), "unknown key 'sumary' (did you mean 'summary'?)"),
        (("[plugin]", "[other]\n[plugin]"), "unknown table [other]"),
        (('api = "1.0"', ""), "api is missing"),
        (('api = "1.0"', 'api = "one"'), "api 'one' is not a version like \"1.0\""),
        (('api = "1.0"', "api = 1.0"), "api 1.0 is not a version"),
        (('"spec_eagle"', '"spec-eagle"'), "is not lower-case letters, digits and underscores"),
        (('"spec_eagle"', '"medusa"'), "differs from the entry point's, 'spec_eagle'"),
        (("speculator:eagle", "speculater:eagle"), "unknown role (did you mean 'speculator'?)"),
        (("speculator:eagle", "speculator:"), "is not role:name"),
        (('["speculator:eagle"]', '"speculator:eagle"'), "provides is not a list of strings"),
        (('["speculator:eagle"]', '["loader:a", "loader:a"]'), "provides names an offer twice"),
        (("device:cuda", "cuda"), "needs 'cuda' is not kind:name"),
        (('["other"]', "[3]"), "conflicts is not a list of strings"),
        (('summary = "Drafts."', "summary = 3"), "summary 3 is not a string"),
        (("[576]", '["576"]'), "fits.hidden_sizes is not a list of int"),
        (("hidden_sizes", "hiden_sizes"), "fits.hiden_sizes (did you mean 'hidden_sizes'?)"),
        (("[plugin.fits]\narchitectures", "fits"), "is not a table"),
    ],
)
def test_each_broken_rule_is_named(change, reason):
    broken = parse(GOOD.replace(*change)).broken
    assert broken is not None
    assert reason in broken


def test_a_broken_manifest_keeps_what_could_be_read():
    manifest = parse(GOOD.replace('summary = "Drafts."', "colour = 1"))
    assert manifest.broken
    assert manifest.provides == ("speculator:eagle",)


def test_several_broken_rules_are_named_together():
    broken = parse(GOOD.replace("summary", "sumary").replace("speculator", "spec")).broken
    assert broken is not None
    assert "sumary" in broken
    assert "unknown role" in broken


def test_a_file_that_is_not_toml_or_not_there_is_broken(tmp_path):
    file = tmp_path / "plugin.toml"
    assert "cannot be read" in (read_manifest(file, SOURCE).broken or "")
    file.write_text("[plugin\n")
    assert "is not TOML" in (read_manifest(file, SOURCE).broken or "")
    file.write_bytes(b"\xff\xfe")
    assert "is not TOML" in (read_manifest(file, SOURCE).broken or "")
    file.write_text("plugin = 3")
    assert "has no [plugin] table" in (read_manifest(file, SOURCE).broken or "")


def test_fits_names_what_does_not_fit():
    spec = SimpleNamespace(
        architecture="LlamaForCausalLM", hidden_size=576, vocab_size=49152, fingerprint="a:b"
    )
    assert Fits().mismatch(spec) is None
    assert Fits(("LlamaForCausalLM",), (576,), (49152,)).mismatch(spec) is None
    assert Fits(hidden_sizes=(64, 128)).mismatch(spec) == (
        "made for hidden size 64, 128, the model has 576"
    )
    assert "architecture Qwen2" in (Fits(("Qwen2",)).mismatch(spec) or "")
