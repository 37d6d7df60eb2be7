"""What becomes of a step that a device did not finish: its rows fail, or the process must end."""

from __future__ import annotations

from collections.abc import Callable

import torch

from rtp_core.errors import CapacityError, DeviceLostError

_FULL = ("out of memory", "ALLOC_FAILED")
"""How libraries below torch say that memory ran out."""


def lost_device(device: str) -> str | None:
    """What the device reports to every call from now on; None if it works.

    Waits for all that is queued. An error that is reported once is not one that stays: a
    kernel that could not be launched harms nobody else, an illegal access ends the context.
    """
    if device == "cpu":
        return None
    reason = None
    for _ in range(2):
        try:
            torch.cuda.synchronize()
        except RuntimeError as error:
            reason = str(error).strip().partition("\n")[0]
        else:
            return None
    return reason


def free_memory(device: str) -> None:
    """Give back what the allocator keeps for later."""
    if device != "cpu":
        torch.cuda.empty_cache()


def explained(
    error: Exception, lost: Callable[[], str | None], free: Callable[[], None]
) -> Exception:
    """What to raise for a step's `error`.

    DeviceLostError when no further step can succeed, CapacityError when memory ran out (what is
    kept idle is given back), else the error itself.
    """
    reason = lost()
    if reason is not None:
        return DeviceLostError(
            f"the GPU cannot be used by this process any more: {reason}",
            remedy="start the engine again; if it comes back, see the driver's log (dmesg, Xid)",
        )
    if isinstance(error, torch.OutOfMemoryError) or any(word in str(error) for word in _FULL):
        free()
        return CapacityError(
            "the GPU ran out of memory in this step",
            remedy="lower --max-num-batched-tokens or --gpu-memory-utilization, or take other "
            "programs off the GPU",
        )
    return error
