"""Tasks about code and text, from the sources of Python's standard library.

`code` asks for something new about a function; `edit` for most of the prompt once more, which
is what drafting gains most on.
"""

from __future__ import annotations

import ast
import inspect
import random
import re
import sysconfig
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

_CODE = (
    "Explain what this Python function does.\n\n```python\n{code}\n```",
    "Write a unit test for this Python function.\n\n```python\n{code}\n```",
    "What does the function `{name}` below return?\n\n```python\n{code}\n```",
    "Continue this Python code:\n\n```python\n{head}\n```",
)
_FROM_DOCSTRING = (
    "Write a Python function named `{name}`. It should do this: {doc}",
    "Write a short Python program that uses a function `{name}({arguments})`: {doc}",
)
_EDIT_CODE = (
    "Rename the function `{name}` to `{new}` and print the whole code again.\n\n"
    "```python\n{code}\n```",
    "Add comments to this code and print all of it.\n\n```python\n{code}\n```",
    "Add a docstring to the function and repeat the full code.\n\n```python\n{code}\n```",
    "Add type hints to this function. Return only the code.\n\n```python\n{code}\n```",
)
_CORRECT = "Correct the spelling and grammar of this text and write it out again.\n\n{text}"
_EDIT_TEXT = (
    _CORRECT,
    "Summarize the following text.\n\n{text}",
    "Rewrite this text in simpler words.\n\n{text}",
    "Turn this text into a bulleted list.\n\n{text}",
    "Make this text more formal.\n\n{text}",
    'Repeat the text below, replacing "the" with "that".\n\n{text}',
    "What is the key point of this text? Quote it.\n\n{text}",
)
_VERBS = ("compute", "handle", "process", "my", "new", "run")
_SKIPPED = re.compile(
    r"/(test|tests|idlelib|site-packages|dist-packages|lib2to3|turtledemo|encodings|__pycache__"
    r"|ensurepip|pydoc_data)/"
)
_HELD_OUT_ONE_IN = 12
_CODE_LINES, _CODE_CHARS = range(4, 23), range(120, 801)
_TEXT_CHARS = range(140, 701)
_KINDS = 2
"""Tasks made of each function and paragraph."""


@dataclass(frozen=True, slots=True)
class CodePrompts:
    """By source, ``code`` or ``edit``. No module is in both."""

    train: dict[str, list[str]]
    held_out: dict[str, list[str]]


def code_prompts(rng: random.Random) -> CodePrompts:
    """From the library of the Python that runs; another version has other prompts."""
    root = Path(sysconfig.get_path("stdlib"))
    found = CodePrompts({"code": [], "edit": []}, {"code": [], "edit": []})
    for path in sorted(root.rglob("*.py")):
        module = path.relative_to(root).as_posix()
        if _SKIPPED.search(f"/{module}"):
            continue
        held_out = sum(module.encode()) % _HELD_OUT_ONE_IN == 0
        part = found.held_out if held_out else found.train
        for source, prompt in _of_module(path, rng):
            part[source].append(prompt)
    return found


def _of_module(path: Path, rng: random.Random) -> Iterator[tuple[str, str]]:
    try:
        source = path.read_text("utf-8")
        tree = ast.parse(source)
    except (OSError, SyntaxError, ValueError):
        return
    lines = source.splitlines()
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.ClassDef | ast.Module):
            for text in _paragraphs(ast.get_docstring(node) or ""):
                yield from _about_text(text, rng)
        if isinstance(node, ast.FunctionDef):
            yield from _about_function(node, lines, rng)


def _paragraphs(docstring: str) -> Iterator[str]:
    """Running text, in one line each."""
    for part in docstring.split("\n\n"):
        text = " ".join(part.split())
        letters = sum(one.isalpha() or one == " " for one in text)
        if len(text) in _TEXT_CHARS and ">>>" not in text and letters > 0.85 * len(text):
            yield text


def _about_text(text: str, rng: random.Random) -> Iterator[tuple[str, str]]:
    for task in rng.sample(_EDIT_TEXT, _KINDS + 1):
        yield "edit", task.format(text=_with_typos(text, rng) if task is _CORRECT else text)


def _about_function(
    node: ast.FunctionDef, lines: list[str], rng: random.Random
) -> Iterator[tuple[str, str]]:
    end = node.end_lineno or node.lineno
    code = inspect.cleandoc("\n" + "\n".join(lines[node.lineno - 1 : end]))
    usual = not node.name.startswith(("test", "__"))
    if not usual or end - node.lineno not in _CODE_LINES or len(code) not in _CODE_CHARS:
        return
    body = code.splitlines()
    doc = " ".join((ast.get_docstring(node) or "").split("\n\n")[0].split())
    fields = {
        "name": node.name,
        "code": code,
        "doc": doc,
        "head": "\n".join(body[: max(2, len(body) // 2)]),
        "new": f"{rng.choice(_VERBS)}_{_snake_case(node.name).strip('_')}",
        "arguments": ", ".join(one.arg for one in node.args.args),
    }
    tasks = _CODE + (_FROM_DOCSTRING if len(doc) > 30 else ())
    for task in rng.sample(tasks, _KINDS):
        yield "code", task.format(**fields)
    for task in rng.sample(_EDIT_CODE, _KINDS):
        yield "edit", task.format(**fields)


def _with_typos(text: str, rng: random.Random) -> str:
    """Two letters swapped in every seventh word, where it is long enough."""
    words = text.split(" ")
    for at in range(0, len(words), 7):
        word = words[at]
        if len(word) > 4 and word.isalpha():
            place = rng.randrange(1, len(word) - 2)
            words[at] = word[:place] + word[place + 1] + word[place] + word[place + 2 :]
    return " ".join(words)


def _snake_case(name: str) -> str:
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", name).lower()
