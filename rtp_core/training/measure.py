"""What published heads are worth, noted beside them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rtp_core.api import DraftMethod
from rtp_core.loading.json_object import read_object
from rtp_core.training.evaluate import evaluate
from rtp_core.training.publish import METRICS, ORIGIN, read_head, write_config, write_metrics
from rtp_core.training.target import Target
from rtp_core.training.texts import Text

_TOLD_DEPTHS = ("1", "3", "5")


def measure(
    target: Target, methods: Mapping[str, DraftMethod], out: Path, texts: Sequence[Text]
) -> dict[str, dict[str, Any]]:
    """By method what `evaluate` finds of the files in its folder of `out`.

    All of it goes to metrics.json, tokens a step to config.json.
    """
    heads, configs = {}, {}
    for name, method in methods.items():
        config, tensors = read_head(out / name)
        head = method.load_head(target.view, config, tensors)
        heads[name] = head, tuple(method.capture_layers(target.spec))
        configs[name] = config
    found = evaluate(target, heads, texts)
    for name, config in configs.items():
        before = read_object(out / name / METRICS)
        write_metrics(out / name, {**before, "held_out": found[name]})
        config[ORIGIN]["tokens_per_step"] = main_numbers(found[name])
        write_config(out / name, config)
    return found


def main_numbers(found: Mapping[str, Any]) -> dict[str, dict[str, dict[str, float]]]:
    """Tokens a step by mode, source and depth, of a few depths."""
    return {
        mode: {
            source: {
                depth: speed
                for depth, speed in one["tokens_per_step"].items()
                if depth in _TOLD_DEPTHS
            }
            for source, one in by_source.items()
        }
        for mode, by_source in found.items()
    }
