"""The trainers of the repository's plugins, offered by one distribution made for tests."""

from __future__ import annotations

import importlib
from pathlib import Path

import pytest

TINY = {
    "hidden_size": 48,
    "intermediate_size": 96,
    "num_hidden_layers": 3,
    "num_attention_heads": 6,
    "num_key_value_heads": 2,
    "head_dim": 16,
    "max_position_embeddings": 512,
    "bos_token_id": None,
    "eos_token_id": 257,
    "initializer_range": 0.3,
}
PLUGINS = Path(__file__).parents[2] / "plugins"
PLUGIN = """
from rtp_core.api import Offer, Role, hookimpl

def eagle(context, options):
    from rtp_spec_eagle.training.trainer import EagleTrainer
    return EagleTrainer()

def medusa(context, options):
    from rtp_spec_medusa.training.trainer import MedusaTrainer
    return MedusaTrainer()

@hookimpl
def rtp_draft_trainers():
    return tuple(
        Offer(Role.DRAFT_TRAINER, one.__name__ + "_test", one) for one in (eagle, medusa)
    )
"""
MANIFEST = """
[plugin]
name = "trainers_for_tests"
api = "1.2"
provides = ["draft_trainer:eagle_test", "draft_trainer:medusa_test"]
"""


@pytest.fixture
def plugins(monkeypatch):
    """The packages of both plugins can be imported, installed or not."""
    for name in ("rtp_spec_eagle", "rtp_spec_medusa"):
        monkeypatch.syspath_prepend(str(PLUGINS / name))


@pytest.fixture
def trainers(plugins, tmp_path, monkeypatch):
    """Methods eagle_test and medusa_test."""
    site = tmp_path / "site"
    package = site / "trainers_for_tests"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text("")
    (package / "plugin.py").write_text(PLUGIN)
    (package / "plugin.toml").write_text(MANIFEST)
    info = site / "trainers_for_tests-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(
        "Metadata-Version: 2.1\nName: trainers-for-tests\nVersion: 1.0\n"
    )
    (info / "entry_points.txt").write_text(
        "[rtp.plugins]\ntrainers_for_tests = trainers_for_tests.plugin\n"
    )
    monkeypatch.syspath_prepend(str(site))
    importlib.invalidate_caches()


@pytest.fixture(scope="session")
def learnable_hf_model():
    """A random Llama that writes 30 tokens, each mostly by the one before: easily learnt."""
    torch = pytest.importorskip("torch")
    transformers = pytest.importorskip("transformers")
    torch.manual_seed(7)
    config = transformers.LlamaConfig(vocab_size=259, **{**TINY, "tie_word_embeddings": False})
    model = transformers.LlamaForCausalLM(config).eval()
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if name.endswith(("o_proj.weight", "down_proj.weight")):
                weight.mul_(0.2)
        turn = torch.linalg.qr(torch.randn(48, 48)).Q
        often = torch.zeros(259, 1)
        often[60:90] = 1.0
        head = model.model.embed_tokens.weight @ turn
        model.lm_head.weight.copy_(head * (0.4 + 1.6 * often))
    return model


@pytest.fixture(scope="session")
def tiny_config(learnable_hf_model, save_model):
    """Of an engine whose arithmetic is exact."""
    from rtp_core.config.read import load_config

    path = str(save_model(learnable_hf_model))
    model = {"path": path, "dtype": "float32", "device": "cpu", "max_model_len": 256}
    return load_config(overrides={"model": model, "scheduling": {"max_num_seqs": 16}})


@pytest.fixture(scope="session")
def tiny_target(tiny_config):
    """The tiny model as training sees it."""
    from rtp_core.engine.prepare import prepare
    from rtp_core.training.target import load_target

    return load_target(prepare(tiny_config), lambda done, total: None)


@pytest.fixture(scope="session")
def tiny_texts(tiny_config):
    """Texts the engine wrote: prompts of ten letters, all temperatures."""
    import random

    from rtp_core.engine.assemble import build_engine
    from rtp_core.training.writing import Job, write_all

    rng = random.Random(0)
    jobs = [
        Job([rng.randrange(60, 90) for _ in range(10)], "chat", temperature, number, 40)
        for number in range(24)
        for temperature in (0.0, 0.8)
    ]
    engine = build_engine(tiny_config)
    found = dict(write_all(engine, jobs, 16))
    engine.close()
    return [found[number] for number in range(len(jobs))]


@pytest.fixture
def methods(plugins):
    """Both, by name."""
    from rtp_spec_eagle.training.trainer import EagleTrainer
    from rtp_spec_medusa.training.trainer import MedusaTrainer

    return {"eagle": EagleTrainer(), "medusa": MedusaTrainer()}


@pytest.fixture
def school(tiny_target, methods, tmp_path, monkeypatch):
    """Teaches both to draft for the tiny model; keywords are those of the settings.

    Small heads learn at larger rates.
    """
    from rtp_core.training.school import School
    from rtp_core.training.settings import TrainSettings
    from rtp_spec_eagle.training.head import Eagle3Head
    from rtp_spec_medusa.training.head import MedusaHead

    for head in (Eagle3Head, MedusaHead):
        monkeypatch.setattr(head, "learning_rate", 1e-2)

    def make(**settings):
        given = {"steps": 2, "step_tokens": 256, "draft_vocab": 259, **settings}
        origin = {"fingerprint": "f" * 32}
        return School(tiny_target, methods, TrainSettings(**given), tmp_path / "heads", origin)

    return make
