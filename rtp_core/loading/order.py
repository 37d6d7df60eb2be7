"""Placements in the order their bytes lie in the files."""

from __future__ import annotations

from rtp_core.api import Placement, WeightPlan


def by_file(plan: WeightPlan) -> dict[str, list[Placement]]:
    """File -> placements by offset, files by name."""
    files: dict[str, list[Placement]] = {file: [] for file in sorted(plan.file_bytes)}
    for placement in plan.placements:
        files[placement.tensor.file].append(placement)
    for placements in files.values():
        placements.sort(key=lambda one: one.tensor.offset)
    return files
