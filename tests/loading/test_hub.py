"""Models by id of a hub: the right files, whole, once, and honest errors; against a fake hub."""

from __future__ import annotations

import errno
import hashlib
import io
import json
import logging
import re

import httpx2
import pytest
from huggingface_hub import constants

from rtp_core.errors import ConfigError, ModelError, WeightLoadError
from rtp_core.loading.checkpoint import open_checkpoint
from rtp_core.loading.demo import resolve_model
from rtp_core.loading.hub import download, fetch
from rtp_core.loading.hub.cache import RepoCache
from rtp_core.loading.hub.files import HubFile, select
from rtp_core.loading.hub.name import HubName, parse_name
from rtp_core.loading.hub.patience import Patience
from rtp_core.loading.hub.sketch import sketched
from rtp_core.loading.hub.transfer import Transfer
from rtp_core.testing.checkpoints import LLAMA_CONFIG, random_tensor, write_safetensors
from rtp_core.testing.fake_hub import Fault, Hub, running_hub

REPO = "org/tiny"
NAME = HubName(REPO)
QUICK = Patience(pauses_s=(0.0, 0.0, 0.0), timeout_s=2.0)
BIG = 1_000_000


@pytest.fixture
def hub():
    with running_hub() as hub:
        yield hub


@pytest.fixture(autouse=True)
def client(hub, tmp_path, monkeypatch):
    """The library's settings, as its variables would set them."""
    monkeypatch.setattr(constants, "ENDPOINT", hub.url)
    monkeypatch.setattr(
        constants,
        "HUGGINGFACE_CO_URL_TEMPLATE",
        hub.url + "/{repo_id}/resolve/{revision}/{filename}",
    )
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(tmp_path / "token"))
    monkeypatch.delenv("HF_TOKEN", raising=False)
    monkeypatch.setattr(fetch, "PATIENCE", QUICK)


def safetensors(tmp_path, *names, seed=1, rows=8):
    path = tmp_path / f"made-{seed}.safetensors"
    write_safetensors(path, [random_tensor(name, "F32", (rows, 8), seed) for name in names])
    return path.read_bytes()


@pytest.fixture
def files(tmp_path):
    return {
        "config.json": json.dumps(dict(LLAMA_CONFIG)).encode(),
        "generation_config.json": b'{"temperature": 0.5}',
        "tokenizer.json": b"{}",
        "tokenizer_config.json": b"{}",
        "chat_template.jinja": b"{{ messages }}",
        "README.md": b"# words",
        "model.safetensors": safetensors(tmp_path, "a", "b", rows=BIG // 64),
        "pytorch_model.bin": b"pickle" * 100,
        "training_args.bin": b"pickle",
        "consolidated.safetensors": b"a second copy",
        "original/consolidated.00.pth": b"a third copy",
    }


def served(hub):
    """Paths of files whose bytes left the hub."""
    return {path for path, count in hub.bytes_served.items() if count}


class TestNames:
    @pytest.mark.parametrize(
        ("text", "name"),
        [
            ("org/name", HubName("org/name")),
            ("org/name@v1.0", HubName("org/name", "v1.0")),
            ("org/name@refs/pr/3", HubName("org/name", "refs/pr/3")),
            ("org/name:Q4_K_M", HubName("org/name", "main", "Q4_K_M")),
            ("org/na.me-2@dev:sub/m.gguf", HubName("org/na.me-2", "dev", "sub/m.gguf")),
        ],
    )
    def test_are_read_and_written_alike(self, text, name):
        assert parse_name(text) == name
        assert str(name) == text

    @pytest.mark.parametrize(
        "text",
        ["name", "a/b/c", "/abs/path", "../up", "./here/x", "a b/c", "org/", "org/na..me",
         "-org/name", "org/name-", "org/na--me", "org/name@", "org/name:", "", "org/name@a@b"],
    )  # fmt: skip
    def test_what_no_hub_accepts_is_no_name(self, text):
        assert parse_name(text) is None

    @pytest.mark.parametrize("revision", ["../../etc", "a//b", ".", "a/../b"])
    def test_a_revision_is_no_way_out_of_the_cache(self, revision):
        with pytest.raises(ConfigError, match="revision"):
            parse_name("org/name", revision)

    def test_two_revisions_are_refused(self):
        assert parse_name("org/name@v1", "v1") == HubName("org/name", "v1")
        with pytest.raises(ConfigError, match=r"'v2'.*'v1'|'v2', but"):
            parse_name("org/name@v1", "v2")

    def test_a_name_that_is_neither_says_both_readings(self, tmp_path):
        with pytest.raises(ModelError, match=r"not exist as a path.*no id of a hub"):
            resolve_model("no such thing", tmp_path)

    def test_a_revision_of_a_local_path_is_refused(self, tmp_path):
        with pytest.raises(ConfigError, match=r"model\.revision"):
            resolve_model(str(tmp_path), tmp_path, "main")


class TestChoice:
    def names(self, selection):
        return {file.path for file in selection.files}

    def select(self, text, *paths):
        return select(parse_name(text), [HubFile(path, 1) for path in paths])

    def test_pickles_copies_and_folders_are_left(self, files):
        assert self.names(self.select(REPO, *files)) == {
            "config.json", "generation_config.json", "tokenizer.json", "tokenizer_config.json",
            "chat_template.jinja", "model.safetensors",
        }  # fmt: skip

    @pytest.mark.parametrize(
        "path", ["../x.json", "/x.json", "a/../../x.safetensors", "..\\x.json"]
    )
    def test_a_listing_cannot_name_files_outside(self, path):
        assert path not in self.names(self.select(REPO, "model.safetensors", path))

    def test_one_gguf_needs_no_choice(self):
        assert self.select(REPO, "m.Q4_0.gguf", "mmproj-m.gguf").gguf.path == "m.Q4_0.gguf"

    @pytest.mark.parametrize(
        ("choice", "path"),
        [
            ("Q4_K_M", "m-Q4_K_M.gguf"),
            ("q4_k_m", "m-Q4_K_M.gguf"),
            ("Q4_K_S", "sub/m.Q4_K_S.gguf"),
            ("m-Q4_K_M.gguf", "m-Q4_K_M.gguf"),
            ("sub/m.Q4_K_S.gguf", "sub/m.Q4_K_S.gguf"),
        ],
    )
    def test_a_gguf_is_chosen_by_file_or_quantization(self, choice, path):
        paths = ("m-Q4_K_M.gguf", "sub/m.Q4_K_S.gguf", "m-Q4_0.gguf", "m-Q4_0_4_4.gguf")
        assert self.select(f"{REPO}:{choice}", *paths).gguf.path == path

    @pytest.mark.parametrize("choice", ["", ":Q4_K", ":Q9"])
    def test_an_ambiguous_choice_lists_the_files(self, choice):
        with pytest.raises(ModelError, match=r"a-Q4_0\.gguf.*b-Q4_K_M\.gguf"):
            self.select(REPO + choice, "a-Q4_0.gguf", "b-Q4_K_M.gguf")

    def test_a_choice_looks_for_gguf_even_beside_safetensors(self):
        chosen = self.select(f"{REPO}:m.gguf", "model.safetensors", "config.json", "m.gguf")
        assert self.names(chosen) == {"config.json", "m.gguf"}

    def test_split_gguf_says_so(self):
        with pytest.raises(ModelError, match="split into parts"):
            self.select(f"{REPO}:Q8_0", "m-Q8_0-00001-of-00002.gguf", "m-Q8_0-00002-of-00002.gguf")

    def test_only_pickles_is_refused(self):
        with pytest.raises(ModelError, match="neither"):
            self.select(REPO, "pytorch_model.bin", "config.json")


class TestDownload:
    def test_a_model_arrives_whole_and_only_once(self, hub, files, tmp_path):
        commit = hub.add(REPO, files)
        path = resolve_model(REPO, tmp_path)
        assert path.name == commit
        assert (path / "model.safetensors").read_bytes() == files["model.safetensors"]
        assert set(open_checkpoint(path).tensors) == {"a", "b"}
        assert not any(name.endswith((".bin", ".pth", ".md")) for name in served(hub))
        assert "consolidated.safetensors" not in served(hub)
        before = hub.bytes_served.copy()
        assert resolve_model(REPO, tmp_path) == path
        assert hub.bytes_served == before

    def test_a_path_that_exists_wins(self, hub, files, tmp_path, monkeypatch):
        hub.add(REPO, files)
        (tmp_path / "org" / "tiny").mkdir(parents=True)
        monkeypatch.chdir(tmp_path)
        assert str(resolve_model(REPO, tmp_path)) == REPO
        assert not hub.requests

    def test_shards_are_those_of_the_index(self, hub, files, tmp_path):
        one, two = safetensors(tmp_path, "a", seed=1), safetensors(tmp_path, "b", seed=2)
        weight_map = {
            "a": "model-00001-of-00002.safetensors",
            "b": "model-00002-of-00002.safetensors",
        }
        files |= dict(zip(weight_map.values(), (one, two), strict=True))
        files["model.safetensors.index.json"] = json.dumps({"weight_map": weight_map}).encode()
        hub.add(REPO, files)
        path = fetch.fetch_model(NAME, patience=QUICK)
        assert set(open_checkpoint(path).tensors) == {"a", "b"}
        assert "model.safetensors" not in served(hub)

    def test_an_index_that_names_a_missing_shard_is_refused_before_weights(self, hub, files):
        index = {"weight_map": {"a": "model-00001-of-00001.safetensors"}}
        files["model.safetensors.index.json"] = json.dumps(index).encode()
        hub.add(REPO, files)
        with pytest.raises(ModelError, match="lacks model-00001"):
            fetch.fetch_model(NAME, patience=QUICK)
        assert "model.safetensors" not in served(hub)

    def test_a_gguf_is_a_file_with_its_neighbours(self, hub, files):
        hub.add(
            REPO, {"generation_config.json": b"{}", "m-Q4_0.gguf": b"GGUF1", "x-Q8_0.gguf": b"G"}
        )
        path = fetch.fetch_model(parse_name(f"{REPO}:Q4_0"), patience=QUICK)
        assert path.read_bytes() == b"GGUF1"
        assert (path.parent / "generation_config.json").is_file()
        assert "x-Q8_0.gguf" not in served(hub)

    def test_include_gets_what_it_names_but_no_pickle(self, hub, files):
        hub.add(REPO, files)
        path = fetch.fetch_model(NAME, ("*.md", "*.bin"), QUICK)
        assert [one.name for one in path.iterdir()] == ["README.md"]
        with pytest.raises(ModelError, match=re.escape("'*.bin'")):
            fetch.fetch_model(NAME, ("*.bin",), QUICK)

    def test_a_new_commit_fetches_only_what_changed(self, hub, files):
        first = (
            fetch.fetch_model(parse_name(REPO), patience=QUICK) if hub.add(REPO, files) else None
        )
        weights = hub.bytes_served["model.safetensors"]
        hub.add(REPO, files | {"generation_config.json": b'{"top_p": 0.1}'})
        second = fetch.fetch_model(NAME, patience=QUICK)
        assert second != first
        assert (second / "generation_config.json").read_bytes() == b'{"top_p": 0.1}'
        assert hub.bytes_served["model.safetensors"] == weights

    def test_a_pinned_commit_that_is_cached_is_not_asked_for(self, hub, files):
        commit = hub.add(REPO, files)
        path = fetch.fetch_model(HubName(REPO, commit), patience=QUICK)
        asked = sum(hub.requests.values())
        assert fetch.fetch_model(HubName(REPO, commit), patience=QUICK) == path
        assert sum(hub.requests.values()) == asked

    def test_a_cached_gguf_does_not_stand_for_the_whole_repository(self, hub, files):
        commit = hub.add(REPO, files | {"m-Q4_0.gguf": b"GGUF"})
        chosen = fetch.fetch_model(HubName(REPO, commit, "Q4_0"), patience=QUICK)
        assert chosen.name == "m-Q4_0.gguf"
        assert fetch.fetch_model(HubName(REPO, commit), patience=QUICK) == chosen.parent
        assert "model.safetensors" in served(hub)

    def test_other_tools_find_the_model_in_their_cache(self, hub, files):
        from huggingface_hub import snapshot_download

        hub.add(REPO, files)
        path = fetch.fetch_model(NAME, patience=QUICK)
        assert snapshot_download(REPO, local_files_only=True) == str(path)


class TestFaults:
    @pytest.fixture(autouse=True)
    def published(self, hub, files):
        hub.add(REPO, files)

    def fetch(self):
        return fetch.fetch_model(NAME, patience=QUICK)

    def partial(self, files):
        sha256 = hashlib.sha256(files["model.safetensors"]).hexdigest()
        return RepoCache.of(REPO).blob(sha256).with_name(f"{sha256}.incomplete")

    def test_a_cut_connection_goes_on_where_it_stopped(self, hub, files):
        hub.fail("/cdn/", Fault(cut_after=300_000), Fault(cut_after=400_000))
        path = self.fetch()
        assert (path / "model.safetensors").read_bytes() == files["model.safetensors"]
        assert hub.bytes_served["model.safetensors"] == len(files["model.safetensors"])

    def test_so_does_the_next_process(self, hub, files):
        hub.fail("/cdn/", Fault(cut_after=300_000), *[Fault(status=503)] * 4)
        with pytest.raises(ModelError):
            self.fetch()
        kept = self.partial(files).stat().st_size
        assert kept == 300_000
        self.fetch()
        assert hub.bytes_served["model.safetensors"] == len(files["model.safetensors"])
        assert not self.partial(files).exists()

    def test_a_server_that_ignores_ranges_sends_it_all_again(self, hub, files):
        hub.fail("/cdn/", Fault(cut_after=300_000), Fault(whole=True))
        path = self.fetch()
        assert (path / "model.safetensors").read_bytes() == files["model.safetensors"]

    def test_wrong_bytes_are_named_and_removed(self, hub, files):
        hub.fail("/cdn/", Fault(corrupt=True))
        right = hashlib.sha256(files["model.safetensors"]).hexdigest()
        with pytest.raises(WeightLoadError, match=f"model.safetensors.*expected {right}") as caught:
            self.fetch()
        wrong = files["model.safetensors"]
        wrong = hashlib.sha256(bytes([wrong[0] ^ 1]) + wrong[1:]).hexdigest()
        assert wrong in str(caught.value)
        folder = RepoCache.of(REPO).folder
        assert not [one for one in (folder / "blobs").iterdir() if one.stat().st_size > 100_000]
        assert self.fetch()

    def test_a_damaged_partial_file_does_not_survive_either(self, files):
        partial = self.partial(files)
        partial.parent.mkdir(parents=True)
        partial.write_bytes(b"x" * 1000)
        with pytest.raises(WeightLoadError):
            self.fetch()
        assert self.fetch()

    def test_a_partial_file_that_is_too_long_is_no_obstacle(self, files):
        partial = self.partial(files)
        partial.parent.mkdir(parents=True)
        partial.write_bytes(b"x" * (len(files["model.safetensors"]) + 5))
        with pytest.raises(WeightLoadError, match="removed"):
            self.fetch()
        assert self.fetch()

    @pytest.mark.parametrize("part", ["/api/models/", "/cdn/", "resolve"])
    @pytest.mark.parametrize("status", [429, 500, 503])
    def test_what_passes_is_tried_again(self, hub, part, status):
        hub.fail(part, Fault(status=status), Fault(status=status))
        assert self.fetch()

    def test_the_pause_is_the_one_the_server_asks_for(self, hub):
        slept: list[float] = []
        patience = Patience((0.5,), 2.0, slept.append)
        hub.fail("/api/models/", Fault(status=429, retry_after=7))
        assert fetch.fetch_model(NAME, patience=patience)
        assert slept == [7.0]

    def test_a_limit_that_does_not_pass_is_an_error_with_the_remedy(self, hub):
        hub.fail("/api/models/", *[Fault(status=429)] * 4)
        with pytest.raises(ModelError, match=r"limits requests.*no copy is cached.*HF_TOKEN"):
            self.fetch()

    def test_silence_ends_after_the_timeout(self, hub):
        hub.fail("/cdn/", *[Fault(hang_s=30.0)] * 2)
        with pytest.raises(ModelError, match="Timeout"):
            fetch.fetch_model(NAME, patience=Patience((0.0,), 0.3))

    def test_a_hang_that_passes_is_survived(self, hub):
        hub.fail("/cdn/", Fault(hang_s=30.0))
        assert fetch.fetch_model(NAME, patience=Patience((0.0,), 0.3))

    def test_an_unknown_model_names_both_readings_and_the_remedy(self):
        with pytest.raises(ModelError, match=r"org/huge.*neither a local path.*404.*spelling"):
            fetch.fetch_model(HubName("org/huge"), patience=QUICK)

    def test_an_unknown_revision_is_named(self):
        with pytest.raises(ModelError, match=r"no revision 'v9'"):
            fetch.fetch_model(HubName(REPO, "v9"), patience=QUICK)

    def test_without_a_token_the_remedy_is_one(self, hub, monkeypatch):
        hub.token = "right"
        with pytest.raises(ModelError, match=r"org/tiny.*401.*HF_TOKEN"):
            self.fetch()
        monkeypatch.setenv("HF_TOKEN", "wrong")
        with pytest.raises(ModelError, match=r"org/tiny.*401.*HF_TOKEN"):
            self.fetch()
        monkeypatch.setenv("HF_TOKEN", "right")
        assert self.fetch()
        assert hub.leaked_tokens == 0
        assert hub.leaked_tokens == 0

    def test_a_gated_model_says_where_its_terms_are(self, hub):
        hub.token, hub.gated = "right", True
        with pytest.raises(ModelError, match=f"gated.*accept its terms at {hub.url}/{REPO}"):
            self.fetch()

    def test_a_refusal_is_not_hidden_by_a_cached_copy(self, hub):
        self.fetch()
        hub.token = "right"
        with pytest.raises(ModelError, match="401"):
            self.fetch()

    def test_too_little_room_is_said_before_the_first_byte(self, hub, monkeypatch):
        usage = type("Usage", (), {"free": 1000})
        monkeypatch.setattr(download.shutil, "disk_usage", lambda path: usage)
        with pytest.raises(ModelError, match=r"needs \d+ bytes more.*1000 free.*free some space"):
            self.fetch()
        assert "model.safetensors" not in served(hub)

    def test_a_disk_that_fills_up_keeps_what_there_is(self, hub, files, monkeypatch):
        def full(advance, count):
            if count > 10_000:
                raise OSError(errno.ENOSPC, "No space left on device")

        monkeypatch.setattr(Transfer, "advance", full)
        with pytest.raises(ModelError, match=r"is full.*goes on where it stopped"):
            self.fetch()
        assert 0 < self.partial(files).stat().st_size < len(files["model.safetensors"])


class TestOffline:
    @pytest.fixture
    def cached(self, hub, files):
        hub.add(REPO, files)
        return fetch.fetch_model(NAME, patience=QUICK)

    @pytest.fixture
    def offline(self, monkeypatch):
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)

    def test_the_cached_snapshot_serves(self, cached, offline, caplog):
        with caplog.at_level(logging.WARNING):
            assert fetch.fetch_model(NAME, patience=QUICK) == cached
        assert "hub_offline" in caplog.text

    def test_so_it_does_without_a_server(self, cached, monkeypatch, caplog):
        monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
        with caplog.at_level(logging.WARNING):
            assert fetch.fetch_model(NAME, patience=QUICK) == cached
        assert "hub_offline" in caplog.text

    def test_nothing_cached_is_an_error_with_the_remedy(self, offline):
        with pytest.raises(ModelError, match=r"no copy is cached.*HF_HUB_OFFLINE"):
            fetch.fetch_model(NAME, patience=QUICK)

    def test_half_a_copy_names_what_is_missing(self, cached, offline):
        (cached / "config.json").unlink()
        with pytest.raises(ModelError, match=r"lacks config\.json.*rtp model get org/tiny"):
            fetch.fetch_model(NAME, patience=QUICK)

    def test_a_link_to_nothing_is_missing(self, cached, offline):
        (cached / "model.safetensors").resolve().unlink()
        with pytest.raises(ModelError, match="does not do"):
            fetch.fetch_model(NAME, patience=QUICK)

    def test_another_revision_is_not_the_cached_one(self, cached, offline):
        with pytest.raises(ModelError, match="no copy is cached"):
            fetch.fetch_model(HubName(REPO, "v2"), patience=QUICK)


class TestSketch:
    def test_reads_headers_and_small_files_only(self, hub, files):
        hub.add(REPO, files)
        with sketched(NAME, QUICK) as (path, whole):
            assert not whole
            checkpoint = open_checkpoint(path)
            assert {one.shape for one in checkpoint.tensors.values()} == {(BIG // 64, 8)}
            assert checkpoint.config["hidden_size"] == LLAMA_CONFIG["hidden_size"]
        assert not path.exists()
        assert hub.bytes_served["model.safetensors"] <= 100_001

    def test_uses_a_whole_copy_without_asking(self, hub, files):
        hub.add(REPO, files)
        path = fetch.fetch_model(NAME, patience=QUICK)
        asked = sum(hub.requests.values())
        with sketched(NAME, QUICK) as (found, whole):
            assert (found, whole) == (path, True)
        assert sum(hub.requests.values()) == asked

    def test_a_gguf_that_is_not_cached_names_the_command(self, hub):
        hub.add(REPO, {"m.gguf": b"GGUF"})
        with pytest.raises(ModelError, match="rtp model get org/tiny"), sketched(NAME, QUICK):
            pass

    def test_an_unknown_model_is_refused_alike(self, hub):
        with pytest.raises(ModelError, match="neither a local path"), sketched(NAME, QUICK):
            pass


class TestTransfer:
    class Terminal(io.StringIO):
        def isatty(self):
            return True

    def test_a_terminal_sees_bytes_and_seconds(self):
        screen, now = self.Terminal(), iter([0.0, 1.0, 2.0, 2.0, 2.0, 2.0, 2.0])
        with Transfer("org/x", 4_000_000, screen, lambda: next(now)) as transfer:
            transfer.advance(1_000_000)
        assert "1.0 of 4.0 MB" in screen.getvalue()
        assert "2 s" in screen.getvalue()

    def test_a_pipe_gets_log_lines(self, caplog):
        pipe = io.StringIO()
        with caplog.at_level(logging.INFO), Transfer("org/x", 4, pipe) as transfer:
            transfer.advance(4)
        assert pipe.getvalue() == ""
        assert re.search(r"model_downloaded id=org/x bytes=4 seconds=", caplog.text)


def test_the_client_is_the_librarys_own():
    from huggingface_hub import get_session

    assert isinstance(get_session(), httpx2.Client)


def test_the_fake_hub_can_be_stopped():
    with running_hub(Hub()) as hub:
        url = hub.url
    with pytest.raises(httpx2.ConnectError):
        httpx2.get(url)
