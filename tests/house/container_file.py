"""A Containerfile as a list of stages, each a list of instructions."""

from __future__ import annotations

import json
import shlex
from dataclasses import dataclass, field


@dataclass
class Stage:
    """`image` and `name` of its FROM; `steps` are (instruction, rest) in order."""

    image: str
    name: str
    steps: list[tuple[str, str]] = field(default_factory=list)

    def all(self, instruction: str) -> list[str]:
        return [rest for word, rest in self.steps if word == instruction]

    def one(self, instruction: str) -> str:
        (rest,) = self.all(instruction)
        return rest

    def pairs(self, instruction: str) -> dict[str, str]:
        """KEY=VALUE of every ENV or LABEL."""
        words = [word for rest in self.all(instruction) for word in shlex.split(rest)]
        return dict(word.split("=", 1) for word in words)

    def words(self, instruction: str) -> list[str]:
        """The JSON form of ENTRYPOINT, CMD, HEALTHCHECK."""
        rest = self.one(instruction)
        return json.loads(rest[rest.index("[") :])


def read_stages(text: str) -> list[Stage]:
    stages: list[Stage] = []
    for line in _logical_lines(text):
        word, _, rest = line.partition(" ")
        if word == "FROM":
            image, *named = rest.split()
            stages.append(Stage(image, named[1] if named else ""))
        elif stages:
            stages[-1].steps.append((word, rest.strip()))
    return stages


def _logical_lines(text: str) -> list[str]:
    kept = [line for line in text.splitlines() if not line.lstrip().startswith("#")]
    whole = "\n".join(kept).replace("\\\n", " ")
    return [line.strip() for line in whole.splitlines() if line.strip()]
