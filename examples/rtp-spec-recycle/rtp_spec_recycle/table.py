"""Which token followed which, with a little doubt."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass

Context = tuple[int, ...]
LONGEST = 3
"""Tokens of the longest context that is looked up."""
SURE = 3


@dataclass(slots=True)
class Successor:
    """`trust` rises when the token is seen again and falls when another one is."""

    token: int
    trust: int = 0


class Table:
    """Successors of the last one to three tokens; the least recently used are dropped."""

    def __init__(self, max_contexts: int) -> None:
        self._max_contexts = max_contexts
        self._successors: OrderedDict[Context, Successor] = OrderedDict()

    def learn(self, tail: Context, token: int) -> None:
        """`token` followed `tail`."""
        for length in range(1, len(tail) + 1):
            self._note(tail[-length:], token)

    def draft(self, tail: Context, most: int) -> tuple[int, ...]:
        """Walk from `tail` along the most specific successors, while there are any."""
        drafted: list[int] = []
        while len(drafted) < most:
            token = self._next(tail)
            if token is None:
                break
            drafted.append(token)
            tail = (*tail, token)[-LONGEST:]
        return tuple(drafted)

    def _next(self, tail: Context) -> int | None:
        """A single token of context is trusted only when it proved right more than once."""
        for length in range(len(tail), 0, -1):
            found = self._successors.get(tail[-length:])
            if found is not None and (length > 1 or found.trust > 1):
                return found.token
        return None

    def _note(self, context: Context, token: int) -> None:
        found = self._successors.get(context)
        if found is None:
            self._successors[context] = Successor(token)
            if len(self._successors) > self._max_contexts:
                self._successors.popitem(last=False)
            return
        self._successors.move_to_end(context)
        if found.token == token:
            found.trust = min(found.trust + 1, SURE)
        elif found.trust > 0:
            found.trust -= 1
        else:
            found.token = token
