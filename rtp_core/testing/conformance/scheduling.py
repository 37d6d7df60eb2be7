"""What every SchedulingPolicy must keep, whatever order it prefers."""

from __future__ import annotations

import random
from collections.abc import Iterable
from functools import partial
from itertools import islice

from rtp_core.api import QueuedRequest, SchedulingPolicy
from rtp_core.testing.conformance.shape import has_members
from rtp_core.testing.conformance.verdict import Check, Make, quiet, require, show
from rtp_core.testing.contexts import build_context
from rtp_core.testing.fakes.services import ManualClock

ROUNDS = 1000
ROUND_S = 0.05


def every_waiting_id_comes_out_once(make: Make) -> None:
    """`candidates` lists exactly the ids that were added."""
    policy = _policy(make)
    added = _add_some(policy)
    found = _candidates(policy)
    require(
        sorted(found) == sorted(added),
        f"candidates() yields each waiting id exactly once: {show(sorted(added))}",
        f"it yielded {show(found)}",
        "keep one entry for an id from add() to remove()",
    )


def an_empty_queue_has_no_candidates(make: Make) -> None:
    """Nothing waits, nothing comes."""
    found = _candidates(_policy(make))
    require(not found, "no candidates before the first add()", show(found), "start empty")


def removed_ids_do_not_come_back(make: Make) -> None:
    """`remove` takes an id out, wherever in the order it stands."""
    policy = _policy(make)
    added = _add_some(policy)
    removed = set(added[::3])
    for sequence_id in removed:
        policy.remove(sequence_id)
    found = _candidates(policy)
    require(
        sorted(found) == sorted(set(added) - removed),
        f"after remove(), candidates() leaves out {show(sorted(removed))} and nothing else",
        f"it yielded {show(found)}",
        "drop the entry of exactly this id in remove()",
    )


def unknown_removes_are_ignored(make: Make) -> None:
    """The scheduler may remove what the policy never saw, or twice."""
    policy = _policy(make)
    expected = "remove() of an id that does not wait changes nothing"
    remedy = "look the id up and return when it is not there"
    quiet(partial(policy.remove, "never-added"), expected, remedy)
    added = _add_some(policy)
    for sequence_id in (added[0], added[0], "never-added"):
        quiet(partial(policy.remove, sequence_id), expected, remedy)
    found = _candidates(policy)
    require(
        sorted(found) == sorted(added[1:]),
        expected,
        f"candidates() yielded {show(found)} of {show(added[1:])}",
        remedy,
    )


def stopping_early_loses_nothing(make: Make) -> None:
    """The scheduler stops at the first id that does not fit; asking again starts anew."""
    policy = _policy(make)
    added = _add_some(policy)
    first = list(islice(iter(policy.candidates(10.0, _nothing_cached)), 2))
    again = _candidates(policy)
    require(
        sorted(again) == sorted(added) and again[:2] == first,
        "candidates() may be left unfinished; the next call yields all, in the same order",
        f"it began with {show(first)}, then yielded {show(again)}",
        "compute the order without taking ids out; only remove() takes one out",
    )


def a_preempted_sequence_waits_again(make: Make) -> None:
    """Added, admitted, granted tokens, added again with its first arrival time."""
    policy = _policy(make)
    added = _add_some(policy)
    chosen = _candidates(policy)[0]
    request = next(one for one in _requests() if one.sequence_id == chosen)
    policy.remove(chosen)
    policy.on_scheduled(chosen, request.num_tokens)
    policy.add(request)
    found = _candidates(policy)
    require(
        sorted(found) == sorted(added),
        f"{chosen!r}, preempted and added again, is a candidate again, once",
        f"candidates() yielded {show(found)}",
        "let add() accept an id that was admitted before",
    )


def equal_histories_give_equal_answers(make: Make) -> None:
    """Two policies that saw the same calls agree on every order and every victim."""
    first, second = (_history(_policy(make)) for _ in range(2))
    differs = next((place for place, pair in enumerate(zip(first, second, strict=True))
                    if pair[0] != pair[1]), None)  # fmt: skip
    require(
        differs is None,
        "the same calls give the same answers",
        f"answer {differs} of {len(first)} differs between two runs",
        "break ties by arrival time and id; use no randomness, no clock, no order of a set",
    )


def nobody_waits_forever(make: Make) -> None:
    """One old request against newcomers that are shorter and cached, at equal priority."""
    for tenant in ("other", "same"):
        rounds = _rounds_until_old_is_first(make, tenant)
        require(
            rounds is not None,
            f"a waiting request becomes first within {ROUNDS} rounds ({ROUNDS * ROUND_S:.0f} s), "
            "although a shorter, fully cached one arrives in each",
            f"it never was, against newcomers of the {tenant} tenant",
            "let waiting time outweigh every other preference in the end",
        )


def the_victim_is_running(make: Make) -> None:
    """`victim` names one of the sequences it was shown, also when there is one."""
    policy = _policy(make)
    running = list(_requests())
    for request in running:
        policy.add(request)
        policy.remove(request.sequence_id)
        policy.on_scheduled(request.sequence_id, request.num_tokens)
    for count in (len(running), 3, 1):
        shown = running[:count]
        victim = policy.victim(shown)
        require(
            victim in [one.sequence_id for one in shown],
            f"victim() returns the sequence_id of one of {show(x.sequence_id for x in shown)}",
            f"it returned {victim!r}",
            "choose among the argument, not among what the policy remembers",
        )


CHECKS: tuple[Check, ...] = (
    has_members(SchedulingPolicy),
    every_waiting_id_comes_out_once,
    an_empty_queue_has_no_candidates,
    removed_ids_do_not_come_back,
    unknown_removes_are_ignored,
    stopping_early_loses_nothing,
    a_preempted_sequence_waits_again,
    equal_histories_give_equal_answers,
    nobody_waits_forever,
    the_victim_is_running,
)


def _policy(make: Make) -> SchedulingPolicy:
    return make(build_context())


def _requests() -> Iterable[QueuedRequest]:
    """Twelve that differ in every field; two arrived together."""
    for number in range(12):
        yield QueuedRequest(
            f"r{(number * 5) % 12}",
            arrival_time_s=float(number // 2),
            priority=number % 3,
            tenant=f"t{number % 4}",
            num_tokens=8 + 40 * (number % 5),
            max_new_tokens=16,
        )


def _add_some(policy: SchedulingPolicy) -> list[str]:
    requests = list(_requests())
    for request in requests:
        policy.add(request)
    return [one.sequence_id for one in requests]


def _nothing_cached(sequence_id: str) -> int:
    del sequence_id
    return 0


def _candidates(policy: SchedulingPolicy) -> list[str]:
    return list(policy.candidates(10.0, _nothing_cached))


def _history(policy: SchedulingPolicy) -> list[object]:
    """A few hundred calls as a scheduler makes them, and every answer."""
    chance = random.Random(7)
    waiting: dict[str, QueuedRequest] = {}
    running: dict[str, QueuedRequest] = {}
    answers: list[object] = []
    for step in range(200):
        name = f"s{step}"
        waiting[name] = QueuedRequest(
            name, step * 0.1, step % 2, f"t{step % 3}", 4 + chance.randrange(60), 16
        )
        policy.add(waiting[name])
        order = list(policy.candidates(step * 0.1, _nothing_cached))
        answers.append(order)
        for chosen in order[: chance.randrange(3)]:
            policy.remove(chosen)
            running[chosen] = waiting.pop(chosen)
        for admitted in running:
            policy.on_scheduled(admitted, 1 + chance.randrange(8))
        if len(running) > 6:
            victim = policy.victim(list(running.values()))
            answers.append(victim)
            waiting[victim] = running.pop(victim)
            policy.add(waiting[victim])
        if len(running) > 4:
            ended = next(iter(running))
            del running[ended]
            policy.remove(ended)
    return answers


def _rounds_until_old_is_first(make: Make, tenant: str) -> int | None:
    clock = ManualClock()
    policy: SchedulingPolicy = make(build_context(clock=clock))
    policy.add(QueuedRequest("old", 0.0, 0, "same", 100, 16))
    for number in range(ROUNDS):
        clock.advance(ROUND_S)
        name = f"new{number}"
        policy.add(QueuedRequest(name, clock.now_s(), 0, tenant, 8, 1))
        order = policy.candidates(clock.now_s(), lambda one: 0 if one == "old" else 8)
        first = next(iter(order))
        if first == "old":
            return number
        policy.remove(first)
        policy.on_scheduled(first, 8)
        policy.remove(first)
    return None
