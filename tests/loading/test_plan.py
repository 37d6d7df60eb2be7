"""From table and checkpoint to a plan: what does not fit is named before any allocation."""

from __future__ import annotations

import logging
import sys
from pathlib import Path

import pytest
import torch

sys.path.insert(0, str(Path(__file__).parent))
from model_files import CONFIG, table, tensors, write_model

from rtp_core.api import ParameterSpec, WeightRule, WeightTable
from rtp_core.errors import WeightLoadError
from rtp_core.loading.checkpoint import open_checkpoint
from rtp_core.loading.plan import plan_weights

HEAD = "lm_head.weight"
UNTIED = {"tie_word_embeddings": False}


def plan(folder, source, config=None, **keywords):
    return plan_weights(
        table(config), open_checkpoint(write_model(folder, source, config, **keywords))
    )


def refuse(folder, source, message, config=None):
    with pytest.raises(WeightLoadError, match=message) as caught:
        plan(folder, source, config)
    return str(caught.value)


def test_every_tensor_has_its_place(tmp_path):
    source = tensors()
    made = plan(tmp_path, source, shards=2)
    assert {one.tensor.name for one in made.placements} == set(source)
    assert made.num_bytes == sum(tensor.nbytes for tensor in source.values())
    assert all(Path(file).stat().st_size == size for file, size in made.file_bytes.items())
    assert len(made.file_bytes) == 2


def test_missing_tensors_are_listed(tmp_path):
    source = tensors()
    del source["model.norm.weight"], source["model.layers.1.mlp.up_proj.weight"]
    text = refuse(tmp_path, source, "missing: ")
    assert "model.norm.weight" in text
    assert "model.layers.1.mlp.up_proj.weight" in text
    assert "belongs to another model" in text


def test_a_list_of_names_stops_at_ten(tmp_path):
    source = tensors()
    text = refuse(tmp_path, {"other": torch.zeros(1)}, f"and {len(source) - 10} more")
    assert text.count("model.") == 10


def test_unexpected_tensors_are_listed(tmp_path):
    refuse(tmp_path, {**tensors(), "adapter": torch.zeros(1)}, "unexpected: adapter$")


def test_layers_beyond_the_configuration_are_unexpected(tmp_path):
    refuse(tmp_path, tensors({"num_hidden_layers": 3}), r"unexpected: model\.layers\.2")


def test_cached_rotary_frequencies_are_ignored(tmp_path):
    extra = {"model.layers.0.self_attn.rotary_emb.inv_freq": torch.zeros(8)}
    made = plan(tmp_path, {**tensors(), **extra})
    assert not any("inv_freq" in one.tensor.name for one in made.placements)


def test_a_head_beside_the_tied_flag_is_left_aside_and_logged(tmp_path, caplog):
    caplog.set_level(logging.INFO, "rtp.loading")
    made = plan(tmp_path, {**tensors(), HEAD: torch.zeros(128, 64)})
    assert all(one.tensor.name != HEAD for one in made.placements)
    assert "tied_head" in caplog.text
    assert HEAD in caplog.text


def test_a_head_is_used_when_the_flag_says_so(tmp_path):
    made = plan(tmp_path, tensors(UNTIED), UNTIED)
    assert [one.rule.destination for one in made.placements if one.tensor.name == HEAD] == ["head"]


def test_a_missing_head_without_the_flag_is_an_error(tmp_path):
    refuse(tmp_path, tensors(), f"missing: {HEAD}.*set tie_word_embeddings", UNTIED)


@pytest.mark.parametrize(
    "shape", [(63,), (65,), (64, 1), (1, 64), ()], ids=["short", "long", "wide", "flat", "scalar"]
)
def test_a_wrong_shape_names_both(tmp_path, shape):
    source = {**tensors(), "model.norm.weight": torch.zeros(shape)}
    text = refuse(tmp_path, source, r"model\.norm\.weight: shape ")
    assert f"shape {list(shape)}, the configuration says [64]" in text


def test_a_transposed_matrix_is_refused(tmp_path):
    source = tensors()
    name = "model.layers.0.mlp.up_proj.weight"
    source[name] = source[name].T.contiguous()
    refuse(tmp_path, source, r"shape \[64, 96\], the configuration says \[96, 64\]")


@pytest.mark.parametrize("dtype", [torch.int8, torch.int64, torch.bool, torch.float8_e4m3fn])
def test_a_dtype_that_cannot_be_loaded_is_refused_early(tmp_path, dtype):
    source = {**tensors(), "model.norm.weight": torch.zeros(64).to(dtype)}
    refuse(tmp_path, source, r"model\.norm\.weight: dtype \w+ cannot be loaded")


class TestTables:
    """A model's table must cover every row once; plugins write tables too."""

    parameter = ParameterSpec("norm", (64,), "float32")

    def refuse(self, tmp_path, rules, message, parameters=None):
        checkpoint = open_checkpoint(write_model(tmp_path, tensors()))
        made = WeightTable(parameters or (self.parameter,), tuple(rules))
        with pytest.raises(WeightLoadError, match=message):
            plan_weights(made, checkpoint)

    def test_rows_left_out(self, tmp_path):
        rule = WeightRule("model.norm.weight", "norm", 0, 32)
        self.refuse(tmp_path, [rule], "norm: 32 of 64 rows are filled")

    def test_no_rule_at_all(self, tmp_path):
        self.refuse(tmp_path, [], "norm: 0 of 64 rows are filled")

    @pytest.mark.parametrize("offset", [31, 33])
    def test_rows_twice_or_with_a_gap(self, tmp_path, offset):
        rules = [WeightRule("a", "norm", 0, 32), WeightRule("b", "norm", offset, 32)]
        self.refuse(tmp_path, rules, "b: rows around 32 are not filled once")

    def test_an_unknown_destination(self, tmp_path):
        rules = [WeightRule("model.norm.weight", "nrom", 0, 64)]
        self.refuse(tmp_path, rules, "no parameter 'nrom'")


def test_the_configuration_stands_for_the_tests():
    assert {parameter.name for parameter in table().parameters} >= {"embed", "layers.1.down"}
    assert CONFIG["tie_word_embeddings"]
