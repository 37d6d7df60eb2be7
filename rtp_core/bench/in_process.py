"""`rtp bench latency` and `throughput`: an engine in this process, and rivals in turn with it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch

from rtp_core.bench.offline import (
    Load,
    Run,
    check_fits,
    latency_results,
    run_batch,
    throughput_results,
)
from rtp_core.bench.prompts import Ask, random_prompts, token_ids
from rtp_core.bench.report import Report, Subject, device_words
from rtp_core.bench.rival import Rival, RivalRun, Skipped, against, as_results, open_rival
from rtp_core.bench.roofline import copy_rate, roofline, step_bytes
from rtp_core.config.schema import EngineConfig
from rtp_core.engine.assemble import build_engine
from rtp_core.engine.contract import Engine

Batch = list[tuple[int, ...]]


@dataclass(frozen=True, slots=True)
class Repeats:
    """How often: `warmup` batches are run and forgotten before `repeats` that count."""

    repeats: int
    warmup: int
    threads: int | None
    rivals: tuple[str, ...] = ()


def latency(config: EngineConfig, load: Load, how: Repeats, show: Callable[[str], None]) -> Report:
    """One batch of equal requests, again and again; Ctrl-C ends it early."""
    prepared = check_fits(config, load, together=True)
    rate = copy_rate(config)
    trial = _Trial(config, load, how, show)
    report = trial.report("latency", {})
    lengths = [load.output_len] * load.num_requests
    trial.take_turns(report, trial.random_batch, lengths)
    report.results = latency_results(trial.ours, load)
    if rate is not None:
        midway = load.input_len + load.output_len // 2
        read = step_bytes(prepared, load.num_requests, midway)
        report.results |= roofline(read, rate, report.results["decode_step_s"])
    report.results |= trial.rival_results()
    return report


def throughput(
    config: EngineConfig,
    load: Load,
    how: Repeats,
    dataset: Sequence[Ask] | None,
    show: Callable[[str], None],
) -> Report:
    """All requests at once; Ctrl-C ends it early."""
    check_fits(config, load, together=False)
    trial = _Trial(config, load, how, show)
    batches, lengths = trial.random_batch, [load.output_len] * load.num_requests
    if dataset is not None:
        fixed = token_ids(dataset, trial.engine.info.tokenizer_dir)
        batches, lengths = trial.forgetting(fixed), [ask.output_len for ask in dataset]
    report = trial.report("throughput", {"dataset": dataset is not None})
    trial.take_turns(report, batches, lengths)
    results = throughput_results(trial.ours, trial.prompts)
    report.results = {**results, **trial.rival_results()}
    return report


class _Trial:
    """An engine and its rivals. `ours`, `theirs` and `prompts` grow with every repeat."""

    def __init__(
        self, config: EngineConfig, load: Load, how: Repeats, show: Callable[[str], None]
    ) -> None:
        if how.threads is not None:
            torch.set_num_threads(how.threads)
        self.engine: Engine = build_engine(config)
        self._device = config.model.device
        self.ours: list[Run] = []
        self.prompts: list[Batch] = []
        self._load = load
        self._how = how
        self._rivals: dict[str, Rival | Skipped] = {}
        self._theirs: dict[str, list[RivalRun]] = {name: [] for name in how.rivals}
        for name in how.rivals:
            self._rivals[name] = self._open(name, config.model.path, show)

    def report(self, command: str, params: dict[str, Any]) -> Report:
        """An empty report of this trial."""
        info, how = self.engine.info, self._how
        known = {"repeats": how.repeats, "warmup": how.warmup, "dtype": info.dtype, **params}
        subject = Subject(info.name, device_words(self._device, torch.get_num_threads()))
        return Report(command, subject, {**asdict(self._load), **known})

    def random_batch(self, number: int) -> Batch:
        """Fresh prompts for each repeat."""
        load = self._load
        vocab_size = self.engine.info.vocab_size
        return random_prompts(load.num_requests, load.input_len, vocab_size, number)

    def forgetting(self, batch: Batch) -> Callable[[int], Batch]:
        """The same prompts each time, without what the prefix cache knows of them."""

        def again(number: int) -> Batch:
            del number
            self.engine.reset_prefix_cache()
            return batch

        return again

    def take_turns(
        self, report: Report, batches: Callable[[int], Batch], lengths: Sequence[int]
    ) -> None:
        """Warm up, then repeat; a KeyboardInterrupt is noted in `report`."""
        try:
            for number in range(self._how.warmup + self._how.repeats):
                self._turn(batches(number), lengths, kept=number >= self._how.warmup)
        except KeyboardInterrupt:
            report.interrupted = True

    def rival_results(self) -> dict[str, Any]:
        """``against``, if there are rivals."""
        return as_results(
            {
                name: against(rival, self.ours, self._theirs[name])
                for name, rival in self._rivals.items()
            }
        )

    def _turn(self, batch: Batch, lengths: Sequence[int], *, kept: bool) -> None:
        run = Run()
        if kept:
            self.ours.append(run)
            self.prompts.append(batch)
        run_batch(self.engine, batch, lengths, run)
        for name, rival in self._rivals.items():
            if not isinstance(rival, Skipped):
                found = rival.run(batch, self._load.output_len)
                if kept:
                    self._theirs[name].append(found)

    def _open(self, name: str, model: str, show: Callable[[str], None]) -> Rival | Skipped:
        rival = open_rival(
            name,
            model,
            self.engine.info.dtype,
            torch.get_num_threads(),
            self._load.num_requests,
        )
        if isinstance(rival, Skipped):
            show(f"skipped: {rival.reason}")
        return rival
