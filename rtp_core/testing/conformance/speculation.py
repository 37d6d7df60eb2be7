"""What every Speculator must keep. The core verifies drafts, so none of this is about luck."""

from __future__ import annotations

import gc
import sys
import types
from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

from rtp_core.api import Commit, Draft, DraftRow, Speculator, SpeculatorNeeds, StateSpeculator
from rtp_core.testing.conformance.shape import has_members
from rtp_core.testing.conformance.verdict import (
    Check,
    Make,
    quiet,
    require,
    show,
)
from rtp_core.testing.contexts import build_context, small_spec

if TYPE_CHECKING:
    import torch

    from rtp_core.testing.conformance.fed_drafter import FedDrafter

VOCABULARY = 64
MAX_DRAFT = 4
BLOCK = 16
TOLERANCE = 1e-3
"""float32 numbers of about one, computed in other company."""
SLACK_BYTES = 8 * 1024
_CYCLE = (5, 9, 2, 7, 33, 12)
_SECRET = tuple((place * 17 + 3) % 61 for place in range(58))
"""A text without repetition: whoever drafts it has read it elsewhere."""


def needs_are_constant(make: Make) -> None:
    """Memory is sized from `needs` once; they may not change later."""
    speculator: Speculator = make(build_context())
    before = speculator.needs
    require(
        isinstance(before, SpeculatorNeeds) and 0 < before.max_draft_tokens <= MAX_DRAFT,
        f"needs is a SpeculatorNeeds with max_draft_tokens in 1 … {MAX_DRAFT}, the limit given",
        repr(before),
        "build SpeculatorNeeds in the constructor, bounded by context.limits.max_draft_tokens",
    )
    _generate(_fed(speculator), "a", "", 6)
    require(
        speculator.needs == before,
        f"needs stays {before}",
        f"it became {speculator.needs}",
        "build needs once, in the constructor",
    )


def each_row_gets_one_draft(make: Make) -> None:
    """As many drafts as rows, each a Draft or its equal as a tuple."""
    speculator = _playable(make)
    for count in (0, 1, 2, 5):
        rows = [_row(f"s{number}", _tokens(number, 20)) for number in range(count)]
        drafts = speculator.propose(rows)
        require(
            len(drafts) == count and all(len(draft) == 2 for draft in drafts),
            f"propose() of {count} rows returns {count} drafts (token_ids, parents)",
            f"it returned {show(drafts)}",
            "return Draft() for a row without an idea",
        )


def drafts_stand_in_the_order_of_their_rows(make: Make) -> None:
    """Rows of unrelated tenants get together what each gets alone."""
    together, alone = _playable(make), _playable(make)
    rows = [
        _row(f"s{number}", _tokens(number, 24), tenant=f"tenant-{number}") for number in range(4)
    ]
    batched = [_plain(draft) for draft in together.propose(rows)]
    singly = [_plain(alone.propose([row])[0]) for row in rows]
    require(
        batched == singly,
        f"draft i belongs to row i: {singly}",
        f"in one batch it drafted {batched}",
        "keep the order of the rows, and keep tenants apart",
    )


def drafts_fit(make: Make) -> None:
    """No draft is longer than the row allows, or than `needs` declared."""
    speculator = _playable(make)
    for most in (1, 2, MAX_DRAFT):
        _generate(speculator, f"warm-{most}", "", 12)
        (draft,) = speculator.propose([_row(f"s{most}", _tokens(0, 40), most=most)])
        bound = min(most, speculator.needs.max_draft_tokens)
        require(
            len(draft[0]) <= bound,
            f"at most {bound} tokens for max_tokens={most}, needs.max_draft_tokens="
            f"{speculator.needs.max_draft_tokens}",
            f"{len(draft[0])} tokens: {show(draft[0])}",
            "cut the draft to min(row.max_tokens, needs.max_draft_tokens)",
        )


def drafted_ids_are_tokens(make: Make) -> None:
    """Plain integers inside the model's vocabulary."""
    for draft in _drafts_of_a_run(make):
        wrong = [one for one in draft[0] if type(one) is not int or not 0 <= one < VOCABULARY]
        require(
            not wrong,
            f"drafted ids are of type int, in 0 … {VOCABULARY - 1}",
            f"{show(wrong)} of type {type(wrong[0]).__name__ if wrong else ''}",
            "convert tensors with .tolist(), and draft only ids of context.model.vocab_size",
        )


def trees_have_parents_before_children(make: Make) -> None:
    """`parents` fits the declared topology, and each parent precedes its child."""
    speculator = _playable(make)
    topology = speculator.needs.topology
    for draft in _generate(speculator, "a", "", 24):
        tokens, parents = draft
        if topology == "chain":
            require(
                parents is None,
                'parents is None while needs.topology is "chain"',
                f"parents={parents}",
                'declare topology="tree", or return Draft(token_ids)',
            )
            continue
        fits = parents is None or (
            len(parents) == len(tokens)
            and all(-1 <= parent < child for child, parent in enumerate(parents))
        )
        require(
            fits,
            "one parent a drafted token, -1 for the last known token, else an earlier index",
            f"{len(tokens)} tokens, parents={parents}",
            "emit nodes parents first, and give their indices within this draft",
        )


def rows_are_not_changed(make: Make) -> None:
    """`token_ids` is the scheduler's own list."""
    speculator = _playable(make)
    tokens = _tokens(0, 24)
    before = list(tokens)
    speculator.propose([_row("a", tokens)])
    speculator.observe([Commit("a", (1, 2), 1, 1)])
    require(
        tokens == before,
        "row.token_ids is left as it was",
        f"it became {show(tokens, 32)}",
        "copy before you append",
    )


def strangers_are_ignored(make: Make) -> None:
    """`release` and `observe` of sequences that never drafted change nothing and raise nothing."""
    speculator = _playable(make)
    unknown = [Commit("never-seen", (1, 2, 3), 0, 0)]
    remedy = "look the sequence up and pass over what is not there"
    for what, call in (
        ("release() of an unknown id", partial(speculator.release, "never-seen")),
        ("observe() of an unknown id", partial(speculator.observe, unknown)),
        ("observe() of no commits", partial(speculator.observe, [])),
    ):
        quiet(call, f"{what} is ignored", remedy)
    _generate(speculator, "a", "", 6)
    speculator.release("a")
    quiet(partial(speculator.release, "a"), "a second release() is ignored", remedy)


def short_contexts_are_served(make: Make) -> None:
    """A row may hold one token."""
    speculator = _playable(make)
    for length in (1, 2, 3):
        row = _row(f"s{length}", _tokens(0, length))
        drafts = quiet(
            partial(speculator.propose, [row]),
            f"propose() of a row of {length} tokens returns",
            "return Draft() when the context is too short",
        )
        require(
            len(drafts) == 1,
            f"a row of {length} tokens gets a draft, perhaps an empty one",
            f"{len(drafts)} drafts",
            "return Draft() when the context is too short",
        )


def equal_histories_give_equal_drafts(make: Make) -> None:
    """Two drafters that saw the same calls propose the same tokens."""
    first, second = (
        [_plain(draft) for draft in _generate(_playable(make), "a", "t", 30)] for _ in range(2)
    )
    require(
        first == second,
        "the same calls give the same drafts, so that a run can be repeated",
        _first_difference(first, second),
        "seed randomness from the row, and order ties by token id",
    )


def tenants_do_not_learn_from_each_other(make: Make) -> None:
    """What one tenant drafts is the same whether or not another one had the same text."""
    quiet, busy = _playable(make), _playable(make)
    for number in range(6):
        _generate(busy, f"other-{number}", "other", 10, _SECRET)
    expected = [_plain(draft) for draft in _generate(quiet, "mine", "mine", 10, _SECRET)]
    got = [_plain(draft) for draft in _generate(busy, "mine", "mine", 10, _SECRET)]
    require(
        expected == got,
        "a tenant's drafts depend on that tenant's tokens only",
        _first_difference(expected, got),
        "key every shared table by row.tenant: drafts would reveal other tenants' text",
    )


def a_released_id_starts_anew(make: Make) -> None:
    """An id that comes back (preempted, or used again) carries nothing over."""
    fresh, used = _playable(make), _playable(make)
    _generate(used, "a", "before", 30)
    used.release("a")
    expected = [_plain(draft) for draft in _generate(fresh, "a", "after", 20, _tokens(3, 120))]
    got = [_plain(draft) for draft in _generate(used, "a", "after", 20, _tokens(3, 120))]
    require(
        expected == got,
        "after release() an id is a new sequence",
        _first_difference(expected, got),
        "drop all state of the sequence in release()",
    )


def released_sequences_leave_no_memory(make: Make) -> None:
    """State does not grow with the number of sequences that came and went."""
    _require_bounded(make, lambda number: f"t{number % 2}", 200, "sequence")


def many_tenants_leave_little_memory(make: Make) -> None:
    """What is kept for a tenant is bounded in number."""
    _require_bounded(make, lambda number: f"t{number}", 512, "tenant")


def blocks_depend_on_their_tokens_only(make: Make) -> None:
    """Full blocks are shared: fed at once, in chunks, behind a hit, they hold the same."""
    fed, tokens = _own_blocks(make), _tokens(0, 3 * BLOCK + 5)
    if fed is None:
        return
    fed.feed("at once", tokens)
    fed.feed("in chunks", tokens, 7)
    for length in range(2, len(tokens)):
        fed.propose([_row("drafted for", tokens[:length])])
    fed.feed("drafted for", tokens)
    fed.share("behind a hit", "at once", 1)
    fed.feed("behind a hit", tokens)
    wanted = _stored(fed, "at once", 3)
    for name in ("in chunks", "drafted for", "behind a hit"):
        for one, other in zip(wanted, _stored(fed, name, 3), strict=True):
            worst = float((one - other).abs().max()) if one.numel() else 0.0
            require(
                worst <= TOLERANCE,
                f"a sequence fed {name} fills its blocks as one fed at once",
                f"they differ by {worst:.3g}",
                "store rows of true states before extend() returns, each in the slot of the last "
                "token it depends on; what a block's first row needs goes into block_state",
            )


CHECKS: tuple[Check, ...] = (
    has_members(Speculator),
    needs_are_constant,
    each_row_gets_one_draft,
    drafts_stand_in_the_order_of_their_rows,
    drafts_fit,
    drafted_ids_are_tokens,
    trees_have_parents_before_children,
    rows_are_not_changed,
    strangers_are_ignored,
    short_contexts_are_served,
    equal_histories_give_equal_drafts,
    tenants_do_not_learn_from_each_other,
    a_released_id_starts_anew,
    released_sequences_leave_no_memory,
    many_tenants_leave_little_memory,
    blocks_depend_on_their_tokens_only,
)


def _playable(make: Make) -> Speculator:
    """A drafter; one that reads states is fed some before each proposal."""
    return _fed(make(build_context()))


def _fed(speculator: Speculator) -> Speculator:
    if not speculator.needs.states:
        return speculator
    from rtp_core.testing.conformance.fed_drafter import FedDrafter

    require(
        isinstance(speculator, StateSpeculator),
        "a speculator whose needs name states or KV groups has bind() and extend()",
        f"{type(speculator).__name__} lacks one",
        "implement api.StateSpeculator too",
    )
    return FedDrafter(speculator, build_context(), small_spec())


def _own_blocks(make: Make) -> FedDrafter | None:
    """A drafter that keeps something in blocks of its own, if it is one."""
    from rtp_core.testing.conformance.fed_drafter import FedDrafter

    fed = _playable(make)
    return fed if isinstance(fed, FedDrafter) and fed.groups else None


def _stored(fed: FedDrafter, name: str, num_blocks: int) -> list[torch.Tensor]:
    """What the first blocks hold, slots that have no key left out."""
    held: list[torch.Tensor] = []
    for number, group in enumerate(fed.groups):
        blocks = fed.tables[name][:num_blocks]
        slots = [block * fed.size + place for block in blocks for place in range(fed.size)]
        for layer in group.layers:
            held += [plane[:, slots[group.first_key :]] for plane in fed.memory.planes(layer)]
        held.append(fed.memory.states(number)[blocks])
    return held


def _tokens(shift: int, length: int) -> list[int]:
    """A sequence that repeats itself, so that most drafters have an idea."""
    return [(_CYCLE[place % len(_CYCLE)] + 7 * shift) % VOCABULARY for place in range(length)]


def _row(name: str, tokens: list[int], most: int = MAX_DRAFT, tenant: str = "") -> DraftRow:
    return DraftRow(name, tokens, most, tenant)


def _plain(draft: Draft) -> tuple[tuple[int, ...], tuple[int, ...] | None]:
    tokens, parents = draft
    return tuple(tokens), None if parents is None else tuple(parents)


def _generate(
    speculator: Speculator,
    name: str,
    tenant: str,
    steps: int,
    truth: Sequence[int] | None = None,
) -> list[Draft]:
    """Decode `steps` tokens of `truth` the way the engine does; all drafts. Nothing is released."""
    if truth is None:
        truth = _tokens(0, 8 + steps * (MAX_DRAFT + 1))
    length = 8
    drafts: list[Draft] = []
    for _ in range(steps):
        tokens = list(truth[:length])
        (draft,) = speculator.propose([_row(name, tokens, tenant=tenant)])
        drafts.append(draft)
        chain = draft[0] if draft[1] is None else ()
        accepted = _accepted(chain, truth[length:])
        committed = tuple(truth[length : length + accepted + 1])
        speculator.observe([Commit(name, committed, len(chain), accepted)])
        length += len(committed)
    return drafts


def _accepted(draft: Sequence[int], truth: Sequence[int]) -> int:
    pairs = zip(draft, truth, strict=False)
    return next((at for at, (one, other) in enumerate(pairs) if one != other), len(draft))


def _drafts_of_a_run(make: Make) -> list[Draft]:
    speculator = _playable(make)
    drafts = _generate(speculator, "a", "", 30)
    return drafts + _generate(speculator, "b", "", 30, _tokens(5, 160))


def _first_difference(expected: Sequence[Any], got: Sequence[Any]) -> str:
    for step, (one, other) in enumerate(zip(expected, got, strict=True)):
        if one != other:
            return f"at step {step} the draft was {other[0]} instead of {one[0]}"
    return "no difference"


def _require_bounded(make: Make, tenant: Callable[[int], str], count: int, what: str) -> None:
    speculator = _playable(make)
    sizes: list[int] = []
    for begin in (0, count):
        for number in range(begin, begin + count):
            _generate(speculator, f"s{number}", tenant(number), 2)
            speculator.release(f"s{number}")
        sizes.append(_reachable_bytes(speculator))
    grown = sizes[1] - sizes[0]
    require(
        grown <= SLACK_BYTES + sizes[0] // 10,
        f"after {count} and after {2 * count} released {what}s the drafter is about as large",
        f"it grew from {sizes[0]} to {sizes[1]} bytes, {grown / count:.0f} a {what}",
        f"drop the state of a sequence in release(), and cap what is kept for each {what}",
    )


def _reachable_bytes(root: object) -> int:
    """Bytes of everything reachable from `root`, but for classes, functions and modules."""
    ignored = (type, types.ModuleType, types.FunctionType, types.BuiltinFunctionType)
    seen: set[int] = set()
    waiting = [root]
    total = 0
    while waiting:
        one = waiting.pop()
        if id(one) in seen or isinstance(one, ignored):
            continue
        seen.add(id(one))
        total += sys.getsizeof(one, 0)
        waiting.extend(gc.get_referents(one))
    return total
