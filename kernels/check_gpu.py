"""Every check of the kernels, one after the other, on the GPU of this machine.

    python kernels/check_gpu.py [--only linear,sampling] [--limit 300] [--json FILE]

Each runs in a process of its own, so that a fault of the device ends one check and not the others.
A table at the end; exit status 1 if any failed.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

CHECKS = Path(__file__).parent / "checks"


@dataclass(frozen=True)
class Outcome:
    """How a check ended: ``passed``, or in words what it did instead; what it wrote as JSON."""

    name: str
    words: str
    seconds: float
    found: Any

    @property
    def passed(self) -> bool:
        return self.words == "passed"


def checks_in(folder: Path) -> list[Path]:
    """Files that can be run; the others are parts of them."""
    return [file for file in sorted(folder.glob("*.py")) if '"__main__"' in file.read_text()]


def run(check: Path, limit_s: float) -> Outcome:
    """One check to its end, or to the limit. What it prints is shown as it comes."""
    print(f"== {check.stem}", flush=True)
    began = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        target = Path(folder) / "found.json"
        command = [sys.executable, str(check), "--json", str(target)]
        try:
            status = subprocess.run(command, check=False, timeout=limit_s).returncode
            words = "passed" if status == 0 else f"exit status {status}"
        except subprocess.TimeoutExpired:
            words = f"stopped after {limit_s:g} s"
        return Outcome(check.stem, words, time.perf_counter() - began, _read(target))


def table(outcomes: Sequence[Outcome]) -> str:
    """One line a check."""
    width = max((len(one.name) for one in outcomes), default=0)
    lines = [f"{one.name:<{width}}  {one.seconds:7.1f} s  {one.words}" for one in outcomes]
    return "\n".join(lines)


def _read(file: Path) -> Any:
    """None where a check ended before it wrote, or while it did."""
    try:
        return json.loads(file.read_text())
    except (OSError, ValueError):
        return None


def main(argv: Sequence[str] | None = None, folder: Path = CHECKS) -> int:
    checks = checks_in(folder)
    names = [check.stem for check in checks]
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--only", default=",".join(names), help=f"of {','.join(names)}")
    parser.add_argument("--limit", type=float, default=300, help="seconds a check may take")
    parser.add_argument("--json", type=Path, help="where all results go")
    options = parser.parse_args(argv)
    wanted = options.only.split(",")
    unknown = set(wanted) - set(names)
    if unknown:
        parser.error(f"--only: {', '.join(sorted(unknown))} is none of {', '.join(names)}")
    outcomes = [run(check, options.limit) for check in checks if check.stem in wanted]
    print(table(outcomes), flush=True)
    if options.json:
        found = {one.name: {**vars(one), "passed": one.passed} for one in outcomes}
        options.json.write_text(json.dumps(found, indent=1) + "\n")
    return int(not all(one.passed for one in outcomes))


if __name__ == "__main__":
    sys.exit(main())
