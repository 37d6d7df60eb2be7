"""A third-party distribution from the outside: found, chosen by config, checked, refused."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))
from installing import EXAMPLES, ROOT, run_conformance, run_python

PROBE = """
import json, sys
from rtp_core.config.read import load_config
from rtp_core.plugins.discover import discover
from rtp_core.plugins.host import PluginHost
from rtp_core.plugins.resolve import resolve
from rtp_core.plugins.wants import wants

overrides = json.loads(sys.argv[1])
config = load_config(overrides=overrides)
manifests = discover()
resolution = resolve(wants(config, "LlamaForCausalLM", "cpu"), manifests, frozenset())
imported = [name for name in ("rtp_wfq", "rtp_spec_recycle") if name in sys.modules]
host = PluginHost(manifests, config.plugins)
host.load(resolution)
print(json.dumps({
    "plugins": [one.name for one in resolution.plugins if not one.builtin],
    "owners": {key: one.label for key, one in resolution.owners.items()},
    "imported_by_resolution": imported,
    "imported": sorted(n for n in sys.modules if n.startswith(("rtp_wfq", "rtp_spec_recycle"))),
    "torch": "torch" in sys.modules,
}))
"""


def probe(installed, overrides):
    done = run_python("-c", PROBE, json.dumps(overrides), path=[installed])
    assert done.returncode == 0, done.stderr[-2000:]
    return json.loads(done.stdout)


def test_a_name_in_the_configuration_is_enough(installed):
    report = probe(
        installed, {"scheduling": {"policy": "wfq"}, "speculation": {"methods": ["recycle"]}}
    )
    assert report["plugins"] == ["wfq", "spec_recycle"]
    assert report["owners"]["scheduler:wfq"] == "wfq 0.3.0"
    assert report["owners"]["speculator:recycle"] == "spec_recycle 0.2.0"
    assert report["imported_by_resolution"] == []
    assert report["torch"] is False


def test_what_is_not_named_is_not_imported(installed):
    report = probe(installed, {"speculation": {"methods": ["recycle"]}})
    assert report["plugins"] == ["spec_recycle"]
    assert not [name for name in report["imported"] if name.startswith("rtp_wfq")]


def test_options_reach_the_plugin_and_wrong_ones_are_refused(installed):
    wfq = {"scheduling": {"policy": "wfq"}}
    assert probe(installed, {**wfq, "plugins": {"wfq": {"weights": ["gold=3"]}}})["plugins"]
    wrong = {**wfq, "plugins": {"wfq": {"wieghts": ["gold=3"]}}}
    done = run_python("-c", PROBE, json.dumps(wrong), path=[installed])
    assert "plugins.wfq.wieghts" in done.stderr
    assert "did you mean 'weights'" in done.stderr


def test_explain_shows_both_as_on(installed, tiny_model):
    done = run_python(
        "-m", "rtp_core", "explain", tiny_model, "--json",
        "--set", "scheduling.policy=wfq", "--set", "speculation.methods=recycle",
        path=[installed],
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    features = {one["offer"]: one for one in json.loads(done.stdout)["features"]}
    assert features["wfq"]["on"]
    assert features["wfq"]["plugin"] == "wfq"
    assert features["recycle"]["on"]
    assert features["recycle"]["version"] == "0.2.0"


@pytest.mark.parametrize("name", ["wfq", "spec_recycle"])
def test_the_installed_plugin_passes_conformance(installed, name, tmp_path):
    done = run_conformance("--rtp-plugin", name, path=[installed], cwd=tmp_path)
    assert done.returncode == 0, done.stdout[-3000:]
    assert "failed" not in done.stdout


@pytest.mark.parametrize("name", EXAMPLES)
def test_its_own_tests_pass(installed, name, tmp_path):
    tests = shutil.copytree(ROOT / "examples" / name / "tests", tmp_path / "tests")
    done = run_python("-m", "pytest", "-q", tests, path=[installed], cwd=tmp_path)
    assert done.returncode == 0, done.stdout[-3000:]


@pytest.fixture
def broken(installed, tmp_path):
    """Edits a copy of what is installed."""

    def edit(file, old, new):
        site = shutil.copytree(installed, tmp_path / "site")
        text = (site / file).read_text()
        assert old in text
        (site / file).write_text(text.replace(old, new))
        return site

    return edit


def test_a_policy_that_forgets_is_told_what_it_forgot(broken, tmp_path):
    site = broken(
        "rtp_wfq/policy.py",
        "            yield sequence_id\n",
        "            yield sequence_id\n            self._waiting.clear()\n            return\n",
    )
    done = run_conformance("--rtp-plugin", "wfq", path=[site], cwd=tmp_path)
    assert done.returncode == 1
    assert "scheduler:wfq::every_waiting_id_comes_out_once" in done.stdout
    assert "expected: candidates() yields each waiting id exactly once" in done.stdout
    assert "remedy:   keep one entry for an id from add() to remove()" in done.stdout
    assert "Traceback" not in done.stdout


def test_a_speculator_that_mixes_tenants_is_caught(broken, tmp_path):
    site = broken("rtp_spec_recycle/recycler.py", "self._table(row.tenant)", 'self._table("")')
    text = (site / "rtp_spec_recycle/recycler.py").read_text()
    text = text.replace("self._table(reader.tenant)", 'self._table("")')
    (site / "rtp_spec_recycle/recycler.py").write_text(text)
    done = run_conformance("--rtp-plugin", "spec_recycle", path=[site], cwd=tmp_path)
    assert done.returncode == 1
    assert "FAILED rtp:spec_recycle::speculator:recycle::tenants_do_not_learn" in done.stdout
    assert "drafts would reveal other tenants' text" in done.stdout


def test_an_exception_in_a_plugin_names_its_place(broken, tmp_path):
    site = broken("rtp_wfq/policy.py", "        self._advance()\n", "        raise KeyError('x')\n")
    done = run_conformance("--rtp-plugin", "wfq", path=[site], cwd=tmp_path)
    assert "found:    KeyError: 'x'" in done.stdout
    assert "raised in candidates" in done.stdout
    assert "rtp_wfq/policy.py:" in done.stdout


def test_a_manifest_that_promises_too_much_is_caught(broken, tmp_path):
    site = broken("rtp_wfq/plugin.toml", '["scheduler:wfq"]', '["scheduler:wfq", "loader:wfq"]')
    done = run_conformance("--rtp-plugin", "wfq", path=[site], cwd=tmp_path)
    assert done.returncode == 1
    assert "FAILED rtp:wfq::plugin::offers_equal_the_manifest" in done.stdout
    assert "they offer scheduler:wfq" in done.stdout


def test_a_plugin_that_imports_torch_at_once_is_caught(broken, tmp_path):
    site = broken("rtp_wfq/plugin.py", "from dataclasses", "import torch\nfrom dataclasses")
    done = run_conformance("--rtp-plugin", "wfq", "-k", "importing_it", path=[site], cwd=tmp_path)
    assert done.returncode == 1
    assert "found:    it loads torch" in done.stdout


def test_an_unknown_plugin_is_a_usage_error_with_the_nearest_name(installed, tmp_path):
    done = run_conformance("--rtp-plugin", "wqf", path=[installed], cwd=tmp_path)
    assert done.returncode == 4
    assert "did you mean 'wfq'" in done.stderr
