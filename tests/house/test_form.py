"""Size and form of the hand-written Python; limits in CONTRIBUTING.md."""

from __future__ import annotations

import ast
import statistics
import tokenize
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SOURCES = sorted(
    path
    for folder in (
        "rtp_core",
        "kernels/rtp_kernels",
        "kernels_cpu/rtp_kernels_cpu",
        "plugins",
        "examples",
    )
    for path in (ROOT / folder).rglob("*.py")
    if "tests" not in path.relative_to(ROOT).parts and ".venv" not in path.parts
)
MAX_FILE, MAX_FUNCTION, MAX_CLASS, MAX_IMPORTS, MEDIAN_FUNCTION = 400, 50, 200, 15, 9
BANNED_WORDS = ("utils", "manager", "helper", "common", "base")
_LAYOUT = {
    tokenize.COMMENT, tokenize.NL, tokenize.NEWLINE, tokenize.INDENT, tokenize.DEDENT,
    tokenize.ENCODING, tokenize.ENDMARKER,
}  # fmt: skip


def code_lines(path: Path) -> set[int]:
    """Line numbers that hold code: no blanks, comments or docstrings."""
    lines: set[int] = set()
    with path.open("rb") as file:
        for token in tokenize.tokenize(file.readline):
            if token.type not in _LAYOUT:
                lines.update(range(token.start[0], token.end[0] + 1))
    for node in ast.walk(ast.parse(path.read_text())):
        body = getattr(node, "body", None)
        if isinstance(body, list) and body and isinstance(body[0], ast.Expr):
            text = body[0].value
            if isinstance(text, ast.Constant) and isinstance(text.value, str):
                lines -= set(range(text.lineno, (text.end_lineno or text.lineno) + 1))
    return lines


def functions(tree: ast.AST) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef]:
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield node


def length(node: ast.AST, lines: set[int]) -> int:
    return len(lines & set(range(node.lineno, node.end_lineno + 1)))


def is_kernel(node: ast.FunctionDef | ast.AsyncFunctionDef) -> bool:
    return any("jit" in ast.unparse(decorator) for decorator in node.decorator_list)


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_file_functions_classes_and_imports_stay_small(path):
    lines = code_lines(path)
    tree = ast.parse(path.read_text())
    assert len(lines) <= MAX_FILE, f"{len(lines)} code lines"
    for node in functions(tree):
        if not is_kernel(node):
            assert length(node, lines) <= MAX_FUNCTION, f"{node.name}: {length(node, lines)} lines"
    for node in ast.walk(tree):
        if isinstance(node, ast.ClassDef):
            assert length(node, lines) <= MAX_CLASS, f"{node.name}: {length(node, lines)} lines"
    # A facade and the wiring page exist to import.
    if path.name not in ("__init__.py", "assemble.py"):
        modules = {
            node.module if isinstance(node, ast.ImportFrom) else alias.name
            for node in tree.body
            if isinstance(node, ast.Import | ast.ImportFrom)
            for alias in node.names
        } - {"__future__"}
        assert len(modules) <= MAX_IMPORTS, sorted(modules)
    assert not set(path.stem.split("_")) & set(BANNED_WORDS), "name the idea, not 'utils'"


def test_half_of_all_functions_fit_in_nine_lines():
    lengths = []
    for path in SOURCES:
        lines = code_lines(path)
        lengths += [length(node, lines) for node in functions(ast.parse(path.read_text()))]
    assert statistics.median(lengths) <= MEDIAN_FUNCTION


def test_public_functions_are_typed():
    missing = []
    for path in SOURCES:
        for node in functions(ast.parse(path.read_text())):
            arguments = [*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs]
            untyped = [a.arg for a in arguments if a.annotation is None]
            untyped = [name for name in untyped if name not in ("self", "cls")]
            private = node.name.startswith("_") or is_kernel(node)
            if not private and (untyped or node.returns is None):
                missing.append(f"{path.relative_to(ROOT)}:{node.lineno} {node.name}")
    assert missing == []
