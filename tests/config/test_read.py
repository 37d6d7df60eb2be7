"""Sources and their precedence; mistakes are named with place and nearest name."""

from __future__ import annotations

from pathlib import Path

import pytest

from rtp_core.config.environment import cache_dir
from rtp_core.config.read import load_config
from rtp_core.config.rules import settings_of
from rtp_core.config.schema import SECTIONS
from rtp_core.errors import ConfigError


@pytest.fixture
def toml(tmp_path):
    def write(text):
        file = tmp_path / "rtp.toml"
        file.write_text(text)
        return file

    return write


def refused(**sources):
    with pytest.raises(ConfigError) as caught:
        load_config(**{"environ": {}, **sources})
    return str(caught.value)


def test_defaults_stand_when_nothing_is_given():
    config = load_config(environ={})
    assert config.model.path == "demo"
    assert config.kv.block_size is None
    assert config.plugins == {}


def test_each_source_wins_over_the_one_below(toml):
    file = toml("[kv]\nblock_size = 8\nmemory = 0.5\nwatermark = 0.1\n")
    environ = {"RTP_KV__BLOCK_SIZE": "16", "RTP_KV__MEMORY": "0.6"}
    config = load_config(file=file, environ=environ, overrides={"kv": {"block_size": 32}})
    assert (config.kv.block_size, config.kv.memory, config.kv.watermark) == (32, 0.6, 0.1)
    assert config.kv.prefix_caching is True


def test_a_value_that_is_overridden_must_still_be_valid(toml):
    file = toml("[kv]\nblock_size = 0\n")
    assert "kv.block_size: 0" in refused(file=file, overrides={"kv": {"block_size": 32}})


def test_the_environment_gives_every_type():
    config = load_config(
        environ={
            "RTP_SPECULATION__METHODS": "eagle,ngram",
            "RTP_MODEL__MAX_MODEL_LEN": "128",
            "RTP_SERVER__UI": "false",
            "RTP_KV__HASH_SECRET_FILE": "none",
            "RTP_SERVER__API_KEYS": "",
            "RTP_CACHE_DIR": "/elsewhere",
            "RTP_SERVER_PORT": "tcp://10.0.0.1:80",
            "PATH": "/bin",
        }
    )
    assert config.speculation.methods == ("eagle", "ngram")
    assert config.model.max_model_len == 128
    assert config.server.ui is False
    assert config.kv.hash_secret_file is None
    assert (config.server.api_keys, config.server.port) == ((), 8000)


def test_the_process_environment_is_read_by_default(monkeypatch):
    monkeypatch.setenv("RTP_KV__BLOCK_SIZE", "64")
    assert load_config().kv.block_size == 64


@pytest.mark.parametrize(
    ("environ", "message"),
    [
        (
            {"RTP_KV__BLOCKSIZE": "1"},
            "kv.blocksize: is no setting, given by RTP_KV__BLOCKSIZE (did you mean 'block_size'?)",
        ),
        (
            {"RTP_KVS__BLOCK_SIZE": "1"},
            "kvs: is no section, given by RTP_KVS__BLOCK_SIZE (did you mean 'kv'?)",
        ),
        (
            {"RTP_KV__MAX_NUM_SEQS": "1"},
            "kv.max_num_seqs: is no setting, given by RTP_KV__MAX_NUM_SEQS "
            "(did you mean 'scheduling.max_num_seqs'?)",
        ),
        (
            {"RTP_SERVER__PORT": "http"},
            "server.port: 'http' is not allowed, given by RTP_SERVER__PORT "
            "(give an integer, 0 to 65535)",
        ),
        (
            {"RTP_PLUGINS__EAGLE": "1"},
            "plugins.eagle: names no option, given by RTP_PLUGINS__EAGLE",
        ),
    ],
)
def test_a_wrong_variable_is_named(environ, message):
    assert message in refused(environ=environ)


def test_a_wrong_value_in_a_file_is_named_with_its_line(toml):
    file = toml("# settings\n[model]\npath = 'demo'\n\n[server]\nhost = 'x'\nport = 70000\n")
    assert refused(file=file) == (
        f"server.port: 70000 is not allowed, given by {file} line 7 (use 0 to 65535)"
    )


def test_the_line_is_that_of_the_right_section(toml):
    file = toml("[plugins.x]\nport = 1\n[plugins.y]\nport = 2\n['server'] # here\n'port' = 70000\n")
    assert f"given by {file} line 6 " in refused(file=file)


def test_an_unknown_name_in_a_file_is_named_with_its_line(toml):
    file = toml("[model]\npath = 'demo'\n[ kv ]\n  block-size = 16\n")
    assert refused(file=file) == (
        f"kv.block-size: is no setting, given by {file} line 4 (did you mean 'block_size'?)"
    )
    file = toml("[scheduler]\nmax_num_seqs = 4\n")
    assert refused(file=file) == (
        f"scheduler: is no section, given by {file} line 2 (did you mean 'scheduling'?)"
    )


@pytest.mark.parametrize(
    "text", ["\nkv = {block_size = 0}\n", "\nkv.block_size = 0\n", "[kv]\n'block_size'=0\n"]
)
def test_a_value_is_named_with_its_line_however_it_is_written(toml, text):
    file = toml(text)
    assert f"kv.block_size: 0 is not allowed, given by {file} line 2 (use" in refused(file=file)


def test_what_is_no_table_is_named_with_its_line(toml):
    file = toml("\nserver = 5\n")
    assert f"server: 5 stands where a section is expected, given by {file} line 2" in (
        refused(file=file)
    )
    file = toml("[plugins]\n\nx = 5\n")
    assert f"plugins.x: 5 stands where a plugin's table is expected, given by {file} line 3" in (
        refused(file=file)
    )


@pytest.mark.parametrize(
    ("section", "key", "meant"),
    [
        ("kv", "gpu_memory_utilization", "kv.memory"),
        ("kv", "gpu-memory-utilization", "kv.memory"),
        ("model", "api_key", "server.api_keys"),
        ("scheduling", "scheduling_policy", "scheduling.policy"),
        ("model", "served_model_name", "served_name"),
        ("server", "api_key", "api_keys"),
        ("kv", "enable_prefix_caching", "prefix_caching"),
        ("server", "max_num_seqs", "scheduling.max_num_seqs"),
    ],
)
def test_names_of_flags_and_of_other_sections_are_answered_with_the_setting(
    toml, section, key, meant
):
    file = toml(f"[{section}]\n{key} = 1\n")
    told = refused(file=file)
    assert f"line 2 (did you mean {meant!r}?)" in told


def _wrong(setting):
    """A value that no setting of this type and these bounds takes."""
    rule = setting.rule
    if rule.choices:
        return repr(rule.choices[-1] + "x")
    if rule.pattern:
        return "'/no good'"
    if rule.low is not None:
        return str(int(rule.low) - 1)
    return {"bool": "3", "str": "3"}.get(getattr(setting.annotation, "__name__", ""), "[[1]]")


ALL = [
    (section, setting)
    for section, kind in SECTIONS.items()
    for setting in settings_of(kind).values()
]


@pytest.mark.parametrize(("section", "setting"), ALL, ids=lambda one: getattr(one, "key", one))
def test_each_setting_answers_a_wrong_value_with_line_and_what_is_allowed(toml, section, setting):
    file = toml(f"# c\n[{section}]\n\n{setting.key} = {_wrong(setting)}\n")
    told = refused(file=file)
    assert told.startswith(f"{section}.{setting.key}: ")
    assert f"given by {file} line 4 (" in told
    if setting.rule.bounds and not setting.rule.otherwise:
        assert setting.rule.bounds in told
    if setting.rule.choices:
        assert f"did you mean {setting.rule.choices[-1]!r}?" in told


@pytest.mark.parametrize(("section", "setting"), ALL, ids=lambda one: getattr(one, "key", one))
def test_each_setting_is_the_nearest_to_its_misspelling(toml, section, setting):
    key = setting.key
    wrong = key[:-2] + key[-1] + key[-2] if key[-1] != key[-2] else key[:-1]
    file = toml(f"[{section}]\n{wrong} = 1\n")
    told = refused(file=file)
    if len(key) > 2:
        assert f"line 2 (did you mean {key!r}?)" in told
    else:
        assert key in told.partition("known: ")[2]


def test_each_source_of_a_value_is_remembered(toml):
    file = toml("[kv]\nblock_size = 8\nmemory = 0.5\n[plugins.x]\ny = 1\n")
    environ = {"RTP_KV__BLOCK_SIZE": "16"}
    config = load_config(file=file, environ=environ, overrides={"kv": {"watermark": 0.1}})
    assert config.origins == {
        "kv.block_size": "RTP_KV__BLOCK_SIZE",
        "kv.memory": f"{file} line 3",
        "plugins.x.y": f"{file} line 5",
    }
    assert config == load_config(
        environ={},
        overrides={
            "kv": {"block_size": 16, "memory": 0.5, "watermark": 0.1},
            "plugins": {"x": {"y": 1}},
        },
    )


def test_broken_toml_is_named_with_file_and_line(toml):
    file = toml("[kv]\nblock_size = \n")
    message = refused(file=file)
    assert message.startswith(f"{file}: is not TOML: ")
    assert "line 2" in message


def test_a_file_that_cannot_be_read_is_named(tmp_path):
    message = refused(file=tmp_path / "missing.toml")
    assert "missing.toml: cannot be read: No such file or directory (check the path)" in message
    (tmp_path / "latin.toml").write_bytes(b"[model]\npath = '\xff'\n")
    assert "is not TOML" in refused(file=tmp_path / "latin.toml")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("port = 80\n", "port: 80 stands where a section is expected, given by"),
        ("port = 80\n", "(write it below [server])"),
        ("kv = 3\n", "(write [kv] with keys below it)"),
        ("modle = 'x'\n", "(did you mean 'model'?)"),
        ("[plugins]\nspec_eagle = 3\n", "plugins.spec_eagle: 3 stands where a plugin's table"),
        ("[kv.store]\nname = 'dense'\n", "kv.store: {'name': 'dense'} is not allowed"),
        ("[model]\npath = 2024-01-01\n", "model.path: datetime.date(2024, 1, 1) is not allowed"),
    ],
)
def test_a_value_at_the_wrong_place_is_refused(toml, text, message):
    assert message in refused(file=toml(text))


def test_keyword_arguments_are_sections_or_keys_of_the_model():
    config = load_config(
        overrides={
            "model": "some/model",
            "dtype": "float32",
            "max_model_len": 64,
            "speculation": {"methods": ["ngram"]},
            "kv": {"store": "adaptive"},
            "plugins": {"core.speculation": {"ngram_max": 3}},
        },
        environ={},
    )
    assert (config.model.path, config.model.dtype) == ("some/model", "float32")
    assert (config.model.max_model_len, config.kv.store) == (64, "adaptive")
    assert config.speculation.methods == ("ngram",)
    assert config.plugins == {"core.speculation": {"ngram_max": 3}}


def test_the_model_may_be_a_path_or_its_section(tmp_path):
    assert load_config(overrides={"model": tmp_path}, environ={}).model.path == str(tmp_path)
    section = {"path": "x", "dtype": "float32"}
    assert load_config(overrides={"model": section}, environ={}).model.dtype == "float32"


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ({"dtpe": "float32"}, "dtpe: is no section and no key of [model] (did you mean 'dtype'?)"),
        (
            {"max_num_seqs": 4},
            "max_num_seqs: is a key of section scheduling (pass scheduling={'max_num_seqs': …})",
        ),
        ({"kv": {"stroe": "x"}}, "kv.stroe: is no setting (did you mean 'store'?)"),
        ({"kv": "dense"}, "kv: 'dense' stands where a section is expected"),
        ({"model": 3}, "model: 3 stands where a section is expected"),
        ({"dtype": None}, "model.dtype: None is not allowed"),
        ({"kv": {"block_size": "16"}}, "kv.block_size: '16' is not allowed (give an integer"),
    ],
)
def test_a_wrong_keyword_argument_is_named(overrides, message):
    assert message in refused(overrides=overrides)


def test_plugin_options_come_from_every_source(toml):
    file = toml(
        "[plugins.spec_eagle]\ndepth = 3\nwidth = 2\n"
        "[plugins.core.speculation]\nngram_min = 1\n"
        '[plugins."core.kv"]\nx = 1\n'
    )
    config = load_config(
        file=file,
        environ={
            "RTP_PLUGINS__SPEC_EAGLE__DEPTH": "4",
            "RTP_PLUGINS__CORE__SPECULATION__NGRAM_MAX": "5",
        },
        overrides={"plugins": {"spec_eagle": {"width": 9}}},
    )
    assert config.plugins == {
        "spec_eagle": {"depth": "4", "width": 9},
        "core.speculation": {"ngram_min": 1, "ngram_max": "5"},
        "core.kv": {"x": 1},
    }


@pytest.mark.parametrize(
    ("environ", "wanted"),
    [
        ({}, "/home/u/.cache/rtp"),
        ({"XDG_CACHE_HOME": "/xdg"}, "/xdg/rtp"),
        ({"XDG_CACHE_HOME": "relative"}, "/home/u/.cache/rtp"),
        ({"XDG_CACHE_HOME": "/xdg", "RTP_CACHE_DIR": "/own"}, "/own"),
        ({"RTP_CACHE_DIR": "~/own"}, "/home/u/own"),
        ({"RTP_CACHE_DIR": ""}, "/home/u/.cache/rtp"),
    ],
)
def test_the_cache_directory_follows_the_environment(monkeypatch, environ, wanted):
    for name in ("XDG_CACHE_HOME", "RTP_CACHE_DIR"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", "/home/u")
    for name, value in environ.items():
        monkeypatch.setenv(name, value)
    assert cache_dir() == Path(wanted)
