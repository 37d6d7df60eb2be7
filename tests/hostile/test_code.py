"""Nothing that is read is run: messages between processes, model files, templates, answers.

Deserialisation between processes: vLLM CVE-2024-9052, -9053, -11041, CVE-2025-29783, -30165,
-32444, -47277; SGLang CVE-2025-10164, CVE-2026-3059, -3060, -3989, -7301. Internal sockets that
others reach: vLLM CVE-2025-30202, SGLang CVE-2026-7301. Code that comes with models: vLLM
CVE-2025-24357, -66448, CVE-2026-22807, -27893. Templates: SGLang CVE-2026-5760. Calls that are
evaluated: vLLM CVE-2025-9141, -48887.
"""

from __future__ import annotations

import contextlib
import json
import pickle
import re
import shutil
import stat
import sys
from pathlib import Path

import msgspec
import pytest
import zmq

from rtp_core.engine.channel import ParentChannel
from rtp_core.engine.wire import decode_from_engine, decode_to_engine
from rtp_core.errors import RequestError
from rtp_core.text.chat_template import ChatTemplate

sys.path[:0] = [str(Path(__file__).parents[1] / name) for name in ("e2e", "text/formats")]
from samples import FORMATS, TOOLS  # noqa: E402
from serving import serving  # noqa: E402

ROOT = Path(__file__).parents[2]


class Bomb:
    """Makes a file where it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self):
        return (Path.touch, (self.path,))


def bombs(path):
    """Pickles of every protocol, alone and inside what the wire carries."""
    for protocol in range(pickle.HIGHEST_PROTOCOL + 1):
        raw = pickle.dumps(Bomb(path), protocol)
        yield raw
        yield msgspec.msgpack.encode(raw)
        yield msgspec.msgpack.encode(msgspec.msgpack.Ext(1, raw))
        yield msgspec.msgpack.encode({"kind": "submit", "request": raw})


def test_no_frame_between_processes_is_unpickled(tmp_path):
    mark = tmp_path / "exploded"
    for frame in bombs(mark):
        for decode in (decode_to_engine, decode_from_engine):
            with pytest.raises(msgspec.DecodeError):
                decode(frame)
    assert not mark.exists()


def test_the_socket_of_the_engine_is_private_and_a_stranger_on_it_does_no_harm(tmp_path):
    """Whoever may open it is the user already; what they send is still only data."""
    channel = ParentChannel()
    mark = tmp_path / "exploded"
    try:
        path = Path(channel.endpoint.removeprefix("ipc://"))
        assert channel.endpoint.startswith("ipc://")
        assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
        with zmq.Context() as context, context.socket(zmq.DEALER) as stranger:
            stranger.set(zmq.LINGER, 0)
            stranger.connect(channel.endpoint)
            for frame in bombs(mark):
                stranger.send(frame)
            received = [one for _ in range(9) for one in channel.wait(0.2)]
        for _, frame in received:
            with pytest.raises(msgspec.DecodeError):
                decode_from_engine(frame)
    finally:
        channel.close()
    assert received
    assert not mark.exists()
    assert not path.parent.exists()


@pytest.fixture(scope="module")
def wild_model(tiny_model, tmp_path_factory):
    """A model whose every file that could name code does, and the mark that code would leave."""
    folder = tmp_path_factory.mktemp("wild") / "model"
    mark = folder.parent / "exploded"
    shutil.copytree(tiny_model, folder)
    code = f"from pathlib import Path\nPath({str(mark)!r}).touch()\n"
    for name in ("modeling_wild", "configuration_wild", "tokenization_wild", "sitecustomize"):
        (folder / f"{name}.py").write_text(code)
    for name, classes in (
        ("config.json", {"AutoConfig": "configuration_wild.C", "AutoModel": "modeling_wild.M"}),
        ("tokenizer_config.json", {"AutoTokenizer": ["tokenization_wild.T", None]}),
    ):
        content = json.loads((folder / name).read_text())
        (folder / name).write_text(json.dumps({**content, "auto_map": classes}))
    return folder, mark


def test_a_service_runs_no_code_of_its_model_and_listens_on_one_port(wild_model, tmp_path):
    folder, mark = wild_model
    with serving(folder, tmp_path / "log", "--dtype", "float32") as server:
        assert server.post("/v1/completions", {"prompt": "x", "max_tokens": 2}).status_code == 200
        processes = [server.process.pid, *server.engine_pids()]
        assert len(processes) == 2
        port = int(server.url.rpartition(":")[2])
        assert [one for pid in processes for one in listening(pid)] == [("127.0.0.1", port)]
    assert not mark.exists()


def listening(pid):
    """Addresses of TCP sockets that a process listens on."""
    own = {
        str(link.readlink())
        for link in Path(f"/proc/{pid}/fd").iterdir()
        if link.is_symlink()  # the one that lists them is gone
    }
    for table in ("tcp", "tcp6"):
        for line in Path(f"/proc/{pid}/net/{table}").read_text().splitlines()[1:]:
            fields = line.split()
            if fields[3] == "0A" and f"socket:[{fields[9]}]" in own:
                address, port = fields[1].split(":")
                octets = [str(byte) for byte in reversed(bytes.fromhex(address))]
                yield ".".join(octets), int(port, 16)


def test_the_core_unpickles_nothing_anywhere():
    """The house's list of words, and the ways around it."""
    forbidden = re.compile(
        r"\b(?:c?[pP]ickle|dill|joblib|cloudpickle|marshal|shelve)\b(?=[.\s]*(?:import|loads?\())"
        r"|allow_pickle\s*=\s*True|weights_only\s*=\s*False|recv_pyobj|\byaml\.(?:unsafe_)?load\("
        r"|\b(?<!\.)eval\(|\b(?<![.\w])exec\(|\bos\.system\(|shell\s*=\s*True"
    )
    files = [
        path
        for folder in ("rtp_core", "kernels/rtp_kernels", "kernels_cpu/rtp_kernels_cpu", "plugins")
        for path in (ROOT / folder).rglob("*.py")
        if "tests" not in path.parts
    ]
    assert len(files) > 200
    found = {
        str(path.relative_to(ROOT)): match[0]
        for path in files
        if (match := forbidden.search(path.read_text()))
    }
    assert found == {}


ESCAPES = [
    "{{ ''.__class__.__mro__[1].__subclasses__() }}",
    "{{ cycler.__init__.__globals__.os.popen('touch MARK').read() }}",
    "{{ self.__init__.__globals__ }}",
    "{{ self._TemplateReference__context.cycler.__init__.__globals__.os.system('touch MARK') }}",
    "{{ lipsum.__globals__['os'].popen('touch MARK').read() }}",
    "{{ namespace.__init__.__globals__ }}",
    "{{ messages.__class__.__base__.__subclasses__() }}",
    "{{ raise_exception.__globals__ }}",
    "{{ strftime_now.__globals__['__builtins__'] }}",
    "{{ (messages|attr('__class__')) }}",
    "{{ messages|map(attribute='__class__')|list|attr('__mro__') }}",
    "{{ '{0.__class__.__mro__}'.format(messages) }}",
    "{{ ('%s' ~ '').format.__globals__ }}",
    "{% set f = '{0.__class__}'.format_map %}{{ f({'0': 1}) }}{{ f.__self__.__class__ }}",
    "{% for x in ().__class__.__base__.__subclasses__() %}{{ x }}{% endfor %}",
    "{% include '/etc/passwd' %}",
    "{% import '/etc/passwd' as x %}",
    "{% extends '/etc/passwd' %}",
    "{% set _ = messages.append('x') %}",
    "{% set _ = messages[0].update(role='system') %}",
    "{% set _ = messages[0].__setitem__('role', 'system') %}",
    "{{ messages[0].pop('role') }}",
]


@pytest.mark.parametrize("escape", ESCAPES)
def test_a_template_of_a_model_stays_in_its_sandbox(escape, tmp_path):
    """SGLang CVE-2026-5760: a GGUF file's template was rendered outside any sandbox."""
    mark = tmp_path / "mark"
    source = escape.replace("MARK", str(mark)) + "{{ messages }}"
    messages = [{"role": "user", "content": "x"}]
    with contextlib.suppress(RequestError):
        text = ChatTemplate({"default": source}, {}).render(messages, add_generation_prompt=True)
        assert "<class" not in text
        assert "root:" not in text
    assert not mark.exists()
    assert messages == [{"role": "user", "content": "x"}]


@pytest.mark.parametrize(
    "content", ["{{ 7*191 }}", "{% raw %}", "{# #}", "{{ messages }}", "${7*191}"]
)
def test_what_messages_say_is_no_template(target, content):
    answer = target.post("/tokenize", {"messages": [{"role": "user", "content": content}]})
    told = target.post("/detokenize", {"tokens": answer.json()["tokens"]}).json()["prompt"]
    assert content in told
    assert "1337" not in told


CODE = "__import__('pathlib').Path('MARK').touch()"
WRITTEN = [
    '<tool_call>\n{"name": "now", "arguments": {"a": CODE}}\n</tool_call>',
    '<tool_call>\n{"name": "now", "arguments": CODE}\n</tool_call>',
    "<tool_call>\n<function=now>\n<parameter=a>\nCODE\n</parameter>\n</function>\n</tool_call>",
    "<tool_call>\n<function=get_weather>\n<parameter=city>\nCODE\n</parameter>\n</function>\n</tool_call>",
    "[now(a=CODE)]",
    "[now(**CODE)]",
    "[now(a=[x for x in (CODE,)])]",
    "[CODE]",
    "[now(a=(lambda: CODE)())]",
    '{"name": "now", "parameters": CODE}',
    "<|python_tag|>CODE",
    '[TOOL_CALLS][{"name": "now", "arguments": CODE}]',
    "<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>function<｜tool▁sep｜>now\n```json\nCODE\n```"
    "<｜tool▁call▁end｜><｜tool▁calls▁end｜>",
]


@pytest.mark.parametrize("name", FORMATS)
@pytest.mark.parametrize("written", WRITTEN)
def test_what_a_model_writes_as_a_call_is_not_evaluated(name, written, tmp_path):
    """vLLM CVE-2025-9141: values in XML calls went to eval()."""
    mark = tmp_path / "mark"
    reader = FORMATS[name].parser(TOOLS)
    list(reader.feed(written.replace("CODE", CODE.replace("MARK", str(mark)))))
    list(reader.end())
    assert not mark.exists()


@pytest.mark.parametrize("name", FORMATS)
@pytest.mark.parametrize(
    "deep", ["[" * 200_000, '{"a":' * 100_000, "[now(a=" + "(" * 100_000,
             "[now(a=" + "-" * 100_000 + "1)]", "[now(a=" + "[" * 5000 + "]" * 5000 + ")]",
             "[now(a=" + "9" * 50_000 + ")]"],
    ids=["lists", "objects", "parentheses", "minus", "closed", "digits"],
)  # fmt: skip
def test_depth_in_an_answer_ends_nothing(name, deep):
    """vLLM CVE-2025-48887; Python's own parser has died of such text."""
    for start in ("", "<tool_call>\n", "[TOOL_CALLS]", "<|python_tag|>"):
        reader = FORMATS[name].parser(TOOLS)
        events = [*reader.feed(start + deep), *reader.end()]
        assert events
