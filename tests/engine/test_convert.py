"""`rtp convert`: the directory answers as the original, or says why it cannot."""

from __future__ import annotations

import errno
import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from rtp_core import LLM, SamplingParams
from rtp_core.cli.main import main as rtp
from rtp_core.config.schema import EngineConfig, LoadingConfig, ModelConfig
from rtp_core.engine import convert as convert_module
from rtp_core.engine.convert import convert
from rtp_core.engine.prepare import prepare
from rtp_core.errors import ConfigError, ModelError, WeightLoadError
from rtp_core.loading.checkpoint import open_checkpoint
from rtp_core.loading.codes import round_to_codes
from rtp_core.loading.converted import ranks
from rtp_core.loading.converted.check import check_files as check
from rtp_core.loading.converted.directory import Target
from rtp_core.loading.converted.form import RECORD, rank_file, rank_tensors, read_conversion
from rtp_core.loading.load import load_weights
from rtp_core.loading.mmap_loader import MmapLoader
from rtp_core.loading.sink import allocate
from rtp_core.testing.range_server import range_server
from rtp_kernels.linear_weight import LinearWeight

PROMPTS = ["abc", "a longer prompt, of some forty characters", "x"]
FILE = rank_file(0, 1)


def make(source, out, weights="auto", dtype="auto", **target):
    model = ModelConfig(path=str(source), cpu_weights=weights, dtype=dtype, device="cpu")
    return convert(EngineConfig(model), Target(Path(out), **target), lambda done, total: None)


def greedy(path, **settings):
    sampling = SamplingParams(max_tokens=16, temperature=0, ignore_eos=True)
    with LLM(model=str(path), device="cpu", **settings) as llm:
        return [one.outputs[0].token_ids for one in llm.generate(PROMPTS, sampling)]


def prepared(path, dtype="auto", weights="auto", loader="auto"):
    model = ModelConfig(path=str(path), dtype=dtype, cpu_weights=weights, device="cpu")
    return prepare(EngineConfig(model=model, loading=LoadingConfig(loader=loader)))


@pytest.fixture(scope="module")
def converted(tiny_model, tmp_path_factory):
    return make(tiny_model, tmp_path_factory.mktemp("converted") / "out")


@pytest.fixture
def copy(converted, tmp_path):
    """One that may be damaged."""
    return Path(shutil.copytree(converted, tmp_path / "copy"))


@pytest.mark.parametrize("loader", ["auto", "mmap", "file_order"])
@pytest.mark.parametrize("weights", ["bf16", "int8", "int4"])
def test_greedy_answers_equal_those_of_the_original(tiny_model, tmp_path, weights, loader):
    out = make(tiny_model, tmp_path / "out", weights)
    expected = greedy(tiny_model, cpu_weights=weights)
    assert greedy(out, loading={"loader": loader}) == expected


def test_float32_stays_exact(tiny_model, tmp_path):
    out = make(tiny_model, tmp_path / "out", dtype="float32")
    assert greedy(out, dtype="float32") == greedy(tiny_model, dtype="float32")


def test_codes_of_a_gguf_file_are_kept(demo_model, tmp_path):
    out = make(demo_model, tmp_path / "out")
    assert prepared(out).weights.name == prepared(demo_model).weights.name
    found, wanted = (
        load_weights(prepared(path).plan, MmapLoader(), "cpu", lambda _: None, keep_codes=True)[0]
        for path in (out, demo_model)
    )
    assert list(found) == list(wanted)
    coded = 0
    for name, one in found.items():
        other = wanted[name]
        assert type(one) is type(other), name
        if isinstance(one, LinearWeight) and one.codes is not None:
            coded += 1
            for part in ("q", "scale", "minimum"):
                assert torch.equal(getattr(one.codes, part), getattr(other.codes, part)), name
        else:
            assert torch.equal(getattr(one, "dense", one), getattr(other, "dense", other)), name
    assert coded > 100
    assert len(greedy(out)) == len(PROMPTS)
    assert out.joinpath("generation_config.json").is_file()


def test_text_files_come_along(converted, tiny_model):
    before, after = open_checkpoint(tiny_model), open_checkpoint(converted)
    assert after.config["architectures"] == before.config["architectures"]
    for name in ("tokenizer.json", "tokenizer_config.json"):
        assert (converted / name).read_bytes() == (tiny_model / name).read_bytes()
    assert read_conversion(converted).model == before.content_id


def test_weights_lie_in_the_map_and_start_at_whole_cache_lines(converted):
    plan = prepared(converted).plan
    loaded, stats = load_weights(plan, MmapLoader(), "cpu", lambda _: None)
    assert stats.bytes_read == plan.num_bytes
    lines = Path("/proc/self/maps").read_text().splitlines()
    mapped = {line.split()[0] for line in lines if FILE in line}
    spans = [tuple(int(end, 16) for end in one.split("-")) for one in mapped]
    for name, one in loaded.items():
        dense = one.dense if isinstance(one, LinearWeight) else one
        at = dense.data_ptr()
        inside = any(begin <= at < end for begin, end in spans)
        assert at % 64 == 0, name
        assert inside or dense.nbytes % 64, name


def test_writing_to_a_mapped_weight_does_not_change_the_file(converted):
    before = (converted / FILE).read_bytes()
    loaded, _ = load_weights(prepared(converted).plan, MmapLoader(), "cpu", lambda _: None)
    loaded["norm"].zero_()
    assert (converted / FILE).read_bytes() == before


def test_destinations_that_are_there_are_filled(converted):
    """As a GPU's are, which others look at while weights are read."""
    plan = prepared(converted).plan
    ready = allocate(plan, "cpu")
    loaded, _ = load_weights(plan, MmapLoader(), "cpu", lambda _: None, into=ready)
    expected, _ = load_weights(plan, MmapLoader(), "cpu", lambda _: None)
    for name, one in loaded.items():
        assert one.data_ptr() == ready[name].data_ptr()
        assert torch.equal(one, expected[name])


# -- targets ---------------------------------------------------------------------------------


def test_a_directory_with_files_is_refused_without_force(tiny_model, tmp_path):
    (tmp_path / "kept").write_text("mine")
    with pytest.raises(ConfigError, match=r"--out: .* is not empty.*--force"):
        make(tiny_model, tmp_path)


def test_force_replaces_a_converted_model_and_nothing_else(tiny_model, copy, tmp_path):
    before = read_conversion(copy)
    make(tiny_model, copy, "int8", force=True)
    assert read_conversion(copy).weights == "int8" != before.weights
    other = tmp_path / "other"
    other.mkdir()
    (other / "kept").write_text("mine")
    with pytest.raises(ConfigError, match="something else than a converted model"):
        make(tiny_model, other, force=True)
    assert (other / "kept").read_text() == "mine"


def test_the_model_itself_is_no_target(tiny_model):
    with pytest.raises(ConfigError, match="holds the model itself"):
        make(tiny_model, tiny_model, force=True)


def test_what_an_interrupted_run_left_is_replaced(tiny_model, tmp_path):
    left = tmp_path / ".out.partial"
    left.mkdir()
    (left / FILE).write_bytes(b"half a file")
    out = make(tiny_model, tmp_path / "out")
    assert check(out) == (out / FILE).stat().st_size
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out"]


@pytest.mark.parametrize("error", [OSError(errno.ENOSPC, "No space left"), KeyboardInterrupt()])
def test_a_failure_leaves_nothing_and_keeps_what_was_there(tiny_model, copy, monkeypatch, error):
    before = read_conversion(copy)

    def fail(*_):
        raise error

    monkeypatch.setattr(convert_module, "write_texts", fail)
    expected = KeyboardInterrupt if isinstance(error, KeyboardInterrupt) else ModelError
    with pytest.raises(expected) as caught:
        make(tiny_model, copy, "int8", force=True)
    if expected is ModelError:
        assert "its disk is full; nothing is left" in str(caught.value)
    assert read_conversion(copy) == before
    assert [path.name for path in copy.parent.iterdir()] == ["copy"]


def test_a_disk_without_room_is_known_before_writing(tiny_model, tmp_path, monkeypatch):
    monkeypatch.setattr(shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(1, 1, 1000))
    with pytest.raises(ModelError, match=r"needs \d+ bytes, its disk has 1000 free"):
        make(tiny_model, tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


def test_a_converted_model_is_not_converted_again(converted, tmp_path):
    with pytest.raises(ModelError, match="is converted already"):
        make(converted, tmp_path / "out")


def test_pickles_are_refused_with_the_safe_way(tiny_model, tmp_path):
    for name in ("config.json", "tokenizer.json"):
        shutil.copy(tiny_model / name, tmp_path)
    (tmp_path / "pytorch_model.bin").write_bytes(b"\x80\x02.")
    for path in (tmp_path, tmp_path / "pytorch_model.bin"):
        with pytest.raises(ModelError, match=r"can run code when read.*save_pretrained"):
            make(path, tmp_path / "out")


# -- mismatches ------------------------------------------------------------------------------


def test_another_precision_says_what_to_do(converted):
    with pytest.raises(WeightLoadError, match=r"converted for bfloat16, .*float32.*convert"):
        prepared(converted, dtype="float32")
    with pytest.raises(WeightLoadError, match=r"weights 'auto', .* asks for int8 .*convert"):
        prepared(converted, weights="int8")


def edit_record(folder, **changes):
    record = json.loads((folder / RECORD).read_text())
    (folder / RECORD).write_text(json.dumps({**record, **changes}))


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"version": 99}, "converted in version 99, this is version 1"),
        ({"model": "other"}, "its model is '.*', rtp_converted.json says 'other'"),
        ({"dtype": "float32"}, "its dtype is 'bfloat16'"),
        ({"tensor_parallel_size": 2}, "converted for 2 ranks, this engine is one"),
        ({"files": 3}, "is damaged"),
    ],
)
def test_a_record_that_does_not_fit_says_convert_again(copy, changes, words):
    edit_record(copy, **changes)
    with pytest.raises(ModelError, match=f"{words}.*rtp convert"):
        prepared(copy)


def test_a_configuration_of_another_model_is_noticed(copy):
    config = json.loads((copy / "config.json").read_text())
    (copy / "config.json").write_text(json.dumps({**config, "intermediate_size": 64}))
    with pytest.raises(WeightLoadError, match=r"gate_up: BF16 \[192, 48\], the model wants"):
        prepared(copy)


def test_check_finds_a_flipped_bit(copy):
    check(copy)
    data = bytearray((copy / FILE).read_bytes())
    data[-1] ^= 1
    (copy / FILE).write_bytes(data)
    with pytest.raises(WeightLoadError, match=f"{FILE}: its digest is"):
        check(copy)


def test_a_truncated_file_is_not_served(copy):
    (copy / FILE).write_bytes((copy / FILE).read_bytes()[:-64])
    with pytest.raises(WeightLoadError, match="truncated by 64 bytes"):
        prepared(copy)


# -- ranks -----------------------------------------------------------------------------------


def whole(tiny_model, weights):
    one = prepared(tiny_model, weights=weights)
    loaded, _ = load_weights(one.plan, MmapLoader(), "cpu", lambda _: None, keep_codes=True)
    return one, loaded


def test_ranks_together_hold_the_model(tiny_model, tmp_path):
    """Six heads in two ranks; the fused parts are divided each by itself."""
    out = make(tiny_model, tmp_path / "out", "bf16", tensor_parallel_size=2)
    one, loaded = whole(tiny_model, "bf16")
    conversion = read_conversion(out)
    with pytest.raises(ModelError, match="converted for 2 ranks"):
        open_checkpoint(out)
    spec = one.spec
    parts = [
        ranks.rank_parameters(one.family.weights(spec), spec, loaded, rank, 2) for rank in (0, 1)
    ]
    for rank in (0, 1):
        tensors = rank_tensors(out, conversion, rank)
        assert {name: info.shape for name, info in tensors.items()} == {
            name: tuple(part.shape) for name, part in parts[rank].items()
        }
    q, kv = 3 * 16, 16
    for rank, part in enumerate(parts):
        qkv, source = part["layers.0.qkv"], loaded["layers.0.qkv"]
        assert torch.equal(qkv[:q], source[rank * q : (rank + 1) * q])
        assert torch.equal(qkv[q : q + kv], source[2 * q + rank * kv :][:kv])
        assert torch.equal(qkv[q + kv :], source[2 * q + 2 * kv + rank * kv :][:kv])
    rejoined = torch.cat([part["layers.0.o"] for part in parts], 1)
    assert torch.equal(rejoined, loaded["layers.0.o"])
    gate = [part["layers.0.gate_up"].chunk(2)[0] for part in parts]
    assert torch.equal(torch.cat(gate), loaded["layers.0.gate_up"].chunk(2)[0])
    assert sum(len(part["embed"]) for part in parts) == 260  # 259 tokens and one of zeros
    assert not parts[1]["embed"][-1].any()


def test_a_product_split_by_columns_adds_up(tiny_model):
    one, loaded = whole(tiny_model, "bf16")
    table, spec = one.family.weights(one.spec), one.spec
    x = torch.randn(3, spec.num_heads * spec.head_dim)
    parts = [ranks.rank_parameters(table, spec, loaded, rank, 2)["layers.0.o"] for rank in (0, 1)]
    total = sum(piece @ part.float().T for piece, part in zip(x.chunk(2, 1), parts, strict=True))
    torch.testing.assert_close(total, x @ loaded["layers.0.o"].float().T)


def test_codes_are_divided_with_their_weight(tiny_model):
    one = prepared(tiny_model, weights="int8")
    loaded, _ = load_weights(one.plan, MmapLoader(), "cpu", lambda _: None, keep_codes=True)
    loaded = round_to_codes(loaded, one.plan, 8)
    table, spec = one.family.weights(one.spec), one.spec
    coded = [name for name, weight in loaded.items() if isinstance(weight, LinearWeight)]
    assert "layers.0.o" in coded
    only = tuple(one for one in table.parameters if one.name == "layers.0.o")
    for rank in range(3):
        parts = ranks.rank_parameters(replace(table, parameters=only), spec, loaded, rank, 3)
        codes = parts["layers.0.o"].codes
        assert torch.equal(codes.dense().bfloat16(), parts["layers.0.o"].dense)


def test_keys_and_values_are_repeated_when_ranks_outnumber_them(tiny_model):
    one, loaded = whole(tiny_model, "bf16")
    spec = one.spec
    table = one.family.weights(spec)
    source, q = loaded["layers.0.qkv"], 6 * 16
    for rank in range(6):
        part = ranks.rank_parameters(table, spec, loaded, rank, 6)["layers.0.qkv"]
        head = rank * 2 // 6
        assert torch.equal(part[16:32], source[q + head * 16 :][:16])
        assert torch.equal(part[32:], source[q + 32 + head * 16 :][:16])


@pytest.mark.parametrize(
    ("size", "words"),
    [(4, "num_attention_heads 6 is no multiple of 4"), (6, "not whole groups .*none")],
)
def test_a_split_that_does_not_divide_names_what(tiny_model, tmp_path, size, words):
    with pytest.raises(ConfigError, match=f"--tensor-parallel-size: .*{words}"):
        make(tiny_model, tmp_path / "out", "int8", tensor_parallel_size=size)


# -- the command -----------------------------------------------------------------------------


def test_the_command(tiny_model, tmp_path, capsys):
    out = tmp_path / "out"
    assert rtp(["convert", str(tiny_model), "--out", str(out), "--quantize", "int8"]) == 0
    assert capsys.readouterr().out == f"{out}\n"
    assert rtp(["convert", "--check", str(out)]) == 0
    assert "bytes as they were written" in capsys.readouterr().out
    assert rtp(["convert", str(tiny_model), "--out", str(out)]) == 1
    assert "is not empty" in capsys.readouterr().err


def test_a_model_in_an_object_store_is_converted_too(tiny_model, tmp_path):
    files = {f"m/{path.name}": path.read_bytes() for path in tiny_model.iterdir()}
    with range_server(files) as server:
        out = make(f"{server.url}/m", tmp_path / "out")
        served = greedy(f"{server.url}/m")
    assert greedy(out) == served == greedy(tiny_model)
