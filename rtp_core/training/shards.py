"""Many jobs, kept in files of some each: what is written stays written."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from rtp_core.training.texts import Text, read_texts, write_texts
from rtp_core.training.writing import Job, Writer, write_all

SHARD_JOBS = 512
Advance = Callable[[int], None]
"""Called with how many more jobs are done."""


@dataclass(slots=True)
class _Shard:
    path: Path
    missing: int
    texts: dict[int, Text] = field(default_factory=dict)

    def save(self) -> None:
        write_texts(self.path, [self.texts[number] for number in sorted(self.texts)])


@dataclass(frozen=True, slots=True)
class Shards:
    """The texts of one kind in `folder`, files of `SHARD_JOBS` jobs in their order."""

    folder: Path
    kind: str

    def write(
        self,
        engine: Writer,
        jobs: Sequence[Job],
        at_once: int,
        advance: Advance,
        until_s: float | None = None,
    ) -> None:
        """Have written what is not there yet.

        Files become whole one by one. Those that are not when `until_s` of the monotonic clock
        has come hold what had ended, and count as whole from then on.
        """
        shards: dict[int, _Shard] = {}
        todo: list[tuple[int, Job]] = []
        for first in range(0, len(jobs), SHARD_JOBS):
            part = jobs[first : first + SHARD_JOBS]
            path = self._path(first // SHARD_JOBS)
            if path.is_file():
                advance(len(part))
            else:
                shards[first // SHARD_JOBS] = _Shard(path, len(part))
                todo += enumerate(part, first)
        for place, text in write_all(engine, (job for _, job in todo), at_once, until_s):
            number = todo[place][0]
            shard = shards[number // SHARD_JOBS]
            shard.missing -= 1
            if text is not None:
                shard.texts[number] = text
            if not shard.missing:
                shard.save()
            advance(1)
        for shard in shards.values():
            if shard.missing and shard.texts:
                shard.save()

    def texts(self) -> Iterator[Text]:
        """All that are there, in the order of their jobs."""
        for path in sorted(self.folder.glob(f"{self.kind}-*.msgpack")):
            yield from read_texts(path)

    def _path(self, number: int) -> Path:
        return self.folder / f"{self.kind}-{number:05d}.msgpack"
