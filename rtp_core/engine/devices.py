"""Which device a model runs on, and what must be there for it."""

from __future__ import annotations

import shutil
import threading
from contextlib import suppress

from rtp_core.errors import ConfigError

OLDEST = (8, 0)
"""Compute capability with bfloat16 matrix instructions."""
COMPILERS = ("cc", "gcc", "clang")


def pick_device(setting: str) -> str:
    """``cpu`` or ``cuda`` for ``model.device``. Raises ConfigError when cuda is not usable."""
    if setting == "cpu":
        return setting
    problem = _problem()
    if problem is None:
        return "cuda"
    if setting == "auto":
        return "cpu"
    raise ConfigError("model.device", f"cuda is not usable: {problem[0]}", remedy=problem[1])


def open_early(device: str) -> None:
    """Begin what the first use of a device takes, in a thread of its own.

    An error is left to that use.
    """
    if device == "cpu":
        return

    def use() -> None:
        import torch

        from rtp_kernels.gpu.early import read_triton

        with suppress(RuntimeError):
            torch.empty(1, device=device)
        with suppress(ImportError):
            read_triton()

    threading.Thread(target=use, name="rtp-device", daemon=True).start()


def unusable_gpu() -> str | None:
    """Why a model would not run on a GPU; None if it would."""
    problem = _problem()
    return None if problem is None else problem[0]


def _problem() -> tuple[str, str] | None:
    """Why no GPU can serve, and the remedy."""
    import torch

    if not torch.cuda.is_available():
        built = "no GPU was found" if torch.version.cuda else "this torch is built without CUDA"
        return built, "install a CUDA build of torch and a driver, or use model.device = cpu"
    found = torch.cuda.get_device_capability()
    if found < OLDEST:
        have, need = (".".join(map(str, one)) for one in (found, OLDEST))
        return (
            f"{torch.cuda.get_device_name()} has compute capability {have}, {need} is needed",
            "use a newer GPU (Ampere, Ada, Hopper), or model.device = cpu",
        )
    if not any(map(shutil.which, COMPILERS)):
        return (
            "Triton needs a C compiler to launch kernels, and none was found",
            "apt-get install gcc, or use model.device = cpu",
        )
    return None
