"""In which form a CPU holds the weights of linear layers."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass

from rtp_core.api import WeightPlan
from rtp_core.errors import ConfigError
from rtp_core.loading.codes import coded_parameters
from rtp_core.loading.converted.read import ConvertedPlan
from rtp_kernels.compiled import unavailable
from rtp_kernels.pack import why_not

log = logging.getLogger("rtp.engine")


@dataclass(frozen=True, slots=True)
class WeightForm:
    """`keep_codes` of the file; `bits` to round the others to; both beside the dense form."""

    name: str
    reason: str
    keep_codes: bool = False
    bits: int | None = None


def weight_form(setting: str, dtype: str, plan: WeightPlan, device: str = "cpu") -> WeightForm:
    """What `model.cpu_weights` means for this checkpoint; reads no weights.

    On another device weights are dense.

    Raises ConfigError when codes are asked for beside float32, or of a model that reads none.
    """
    if device != "cpu":
        return WeightForm(dtype, f"the device {device} reads dense weights")
    if isinstance(plan, ConvertedPlan):
        kept = f" + {_widths(plan.coded)}" if plan.coded else ""
        return WeightForm(f"{dtype}{kept}", "as the model was converted", bool(plan.coded))
    if setting in ("int4", "int8"):
        if dtype != "bfloat16":
            raise ConfigError(
                "model.cpu_weights",
                f"{setting} needs bfloat16 activations, model.dtype is {dtype}",
                remedy="use model.dtype = auto, or model.cpu_weights = auto",
            )
        if not any(parameter.linear for parameter in plan.parameters):
            raise ConfigError(
                "model.cpu_weights",
                f"{setting} is not available for this model: its layers read dense weights only",
                remedy="use model.cpu_weights = auto",
            )
        reason = "configured: model.cpu_weights; steps with few rows read the codes"
        return WeightForm(f"{dtype} + {setting}", reason, True, int(setting[3:]))
    if setting == "bf16" or dtype != "bfloat16":
        why = "configured: model.cpu_weights" if setting == "bf16" else f"model.dtype is {dtype}"
        return WeightForm(dtype, why)
    kept = coded_parameters(plan)
    if not kept:
        return WeightForm(dtype, "auto: the file holds no 4- or 8-bit groups to keep")
    reason = "auto: steps with few rows read the file's own codes, which are not rounded again"
    return WeightForm(f"{dtype} + {_widths(kept)}", reason, True)


def _widths(kept: Mapping[str, int]) -> str:
    return " and ".join(f"int{bits}" for bits in sorted(set(kept.values())))


def can_keep_codes(form: WeightForm) -> bool:
    """Whether this machine multiplies codes; tried once.

    Raises ConfigError when it does not and codes were asked for by name.
    """
    reason = why_not()
    if reason is None:
        return True
    if form.bits is not None:
        raise ConfigError("model.cpu_weights", reason, remedy="use model.cpu_weights = auto")
    log.warning("codes_not_kept reason=%r", reason)
    return False


def kernel_form(dtype: str, device: str) -> tuple[str, str]:
    """Which operations serve steps with few rows, and why, as `rtp explain` prints it."""
    if device != "cpu":
        if dtype == "float32":
            return "torch", "float32 takes the definition on every device"
        return "triton", f"{dtype} on the device {device}"
    reason = unavailable()
    if reason is not None:
        return "torch", f"{reason} (pip install rtp-kernels-cpu)"
    if dtype != "bfloat16":
        return "torch", f"compiled operations are for bfloat16, model.dtype is {dtype}"
    return "compiled", "rtp-kernels-cpu is installed and passed its self-test"
