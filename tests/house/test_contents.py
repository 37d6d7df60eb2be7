"""What is tracked and what is shipped."""

from __future__ import annotations

import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
CODE_CARRIERS = ("import pickle", "torch.load(", "import marshal", "trust_remote_code=True")
PACKAGE_DATA = (".toml", ".safetensors", ".html", ".js", ".css", ".svg", ".json", ".tmpl", ".typed")


def tracked() -> list[Path]:
    listing = subprocess.run(
        ["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    if listing.returncode:
        pytest.skip("not a git checkout")
    return [ROOT / name for name in listing.stdout.split("\0") if name]


def test_tracked_files_stay_under_30_mb():
    assert sum(path.stat().st_size for path in tracked() if path.is_file()) < 30 * 2**20


def test_no_serialised_code_can_run():
    """Only formats that cannot carry code are read: no pickle, no torch.load, no marshal."""
    for path in tracked():
        if path.suffix == ".py" and "tests" not in path.parts:
            text = path.read_text()
            for word in (
                "import pickle",
                "torch.load(",
                "import marshal",
                "trust_remote_code=True",
            ):
                assert word not in text, f"{path}: {word}"


def build(project: Path, out: Path) -> tuple[Path, Path]:
    command = [sys.executable, "-m", "build", "--no-isolation", "--outdir", str(out), str(project)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=240)
    assert done.returncode == 0, done.stderr[-2000:]
    return next(out.glob("*.whl")), next(out.glob("*.tar.gz"))


@pytest.mark.parametrize(
    ("project", "package"),
    [
        (".", "rtp_core"),
        ("kernels", "rtp_kernels"),
        *((f"plugins/{path.name}", path.name) for path in sorted((ROOT / "plugins").glob("rtp_*"))),
    ],
)
def test_wheel_and_sdist_hold_the_package_with_its_data_and_nothing_else(
    project, package, tmp_path
):
    wheel, sdist = build(ROOT / project, tmp_path)
    names = zipfile.ZipFile(wheel).namelist()
    assert {name.split("/")[0].split("-")[0] for name in names} == {package}
    wanted = {
        str(path.relative_to(ROOT / project))
        for path in (ROOT / project / package).rglob("*")
        if path.suffix in (".py", *PACKAGE_DATA) and "__pycache__" not in path.parts
    }
    assert wanted <= set(names)
    with tarfile.open(sdist) as archive:
        inside = {name.split("/")[1] for name in archive.getnames() if "/" in name}
    assert not inside & {"plugins", "tests", "examples", "docs", ".venv", ".ci"}
    if project == ".":
        assert "kernels" not in inside
