"""What every AttentionBackend must compute: `testing.attention_reference`, over paged blocks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import torch

from rtp_core.api import AttentionBackend, BoundAttention, KVFormatId, KVGroup, PlanRow, Scoring
from rtp_core.testing.attention_reference import ancestors, attend, attend_ready, causal
from rtp_core.testing.conformance.shape import has_members, require_members
from rtp_core.testing.conformance.verdict import Check, Make, require
from rtp_core.testing.contexts import build_context, small_spec
from rtp_core.testing.fakes.kv import PlaneStore

BLOCK = 16
NUM_BLOCKS = 40
TOLERANCE = {"float32": 2e-5, "bfloat16": 4e-2}
_SCORINGS = (
    Scoring(0.5),
    Scoring(1.0, softcap=2.0),
    Scoring(0.5, sinks=torch.tensor([0.0, 3.0, -1.0, 1.0])),
)


@dataclass(frozen=True, slots=True)
class Part:
    """One row of a step: `count` tokens of a sequence, the last of them a tree if `parents`."""

    name: str
    count: int
    parents: tuple[int, ...] | None = None
    writes_kv: bool = True
    num_drafts: int = 0


@dataclass(slots=True)
class _Tokens:
    """qkv by layer of every token with KV so far, and where its blocks lie."""

    blocks: list[int]
    qkv: list[torch.Tensor] = field(default_factory=list)
    length: int = 0


def formats_are_declared(make: Make) -> None:
    """The engine lets a store use only formats the backend reads."""
    backend: AttentionBackend = make(build_context())
    formats = backend.supported_formats
    require(
        isinstance(formats, frozenset)
        and len(formats) > 0
        and all(isinstance(one, KVFormatId) for one in formats),
        "supported_formats is a frozenset of KVFormatId, not empty",
        repr(formats),
        "return frozenset({KVFormatId.DENSE}) if plain blocks are all it reads",
    )


def what_it_binds_has_the_members_of_its_protocol(make: Make) -> None:
    """BoundAttention is complete."""
    require_members(Paged(make).bound, BoundAttention)


def a_prefill_attends_causally(make: Make) -> None:
    """One sequence from nothing, longer than two blocks, blocks scattered."""
    for dtype in TOLERANCE:
        Paged(make, dtype).step("a prefill of 37 tokens", Part("a", 37))


def chunks_equal_the_whole(make: Make) -> None:
    """A prompt in pieces that end inside, at and after block borders."""
    paged = Paged(make)
    for count in (1, 15, 16, 3, 20):
        paged.step(f"a chunk of {count} tokens", Part("a", count))


def rows_of_a_step_are_independent(make: Make) -> None:
    """Ragged rows: decoding, prefilling and verifying sequences in one step."""
    for dtype in TOLERANCE:
        paged = Paged(make, dtype)
        paged.step("three prefills", Part("a", 33), Part("b", 5), Part("c", 16))
        paged.step("a mixed step", Part("c", 1), Part("d", 21), Part("a", 4), Part("b", 1))
        paged.step("four decoding rows", *(Part(name, 1) for name in "abcd"))


def decoding_rows_of_any_length_agree(make: Make) -> None:
    """Backends often batch rows of one token; lengths from 1 to many blocks."""
    for dtype in TOLERANCE:
        paged = Paged(make, dtype)
        paged.step("prefills", *(Part(n, c) for n, c in (("a", 90), ("b", 1), ("c", 47))))
        for _ in range(3):
            paged.step("three decoding rows", *(Part(name, 1) for name in "abc"))
        paged.step("one decoding row", Part("a", 1))


def rejected_drafts_are_overwritten(make: Make) -> None:
    """After a verification, decoding goes on where the drafts were accepted up to."""
    paged = Paged(make)
    paged.step("a prefill", Part("a", 14))
    paged.step("a verification of 4 drafts", Part("a", 5, num_drafts=4))
    paged.truncate("a", 16)
    paged.step("a verification after 3 were rejected", Part("a", 5, num_drafts=4))
    paged.step("decoding after it", Part("a", 1))


def a_tree_sees_its_ancestors_only(make: Make) -> None:
    """Two branches below the last known token, positions by depth."""
    for dtype in TOLERANCE:
        paged = Paged(make, dtype)
        paged.step("prefills", Part("a", 13), Part("b", 20))
        paged.step(
            "a tree of 5 drafts beside a decoding row",
            Part("a", 6, parents=(-1, -1, 0, 1, 2), num_drafts=5),
            Part("b", 1),
        )


def a_row_without_slots_writes_nothing(make: Make) -> None:
    """A full prefix hit computes its last token again, whose KV is there already."""
    paged = Paged(make)
    paged.step("a prefill", Part("a", 18))
    paged.truncate("a", 17)
    paged.mark()
    before = paged.held()
    paged.step("a row with writes_kv=False", Part("a", 1, writes_kv=False), same_tokens=True)
    require(
        all(torch.equal(one, other) for one, other in zip(before, paged.held(), strict=True)),
        "a row with writes_kv=False leaves the KV memory as it was",
        "a block changed",
        "skip the write for this row; attend over what the blocks hold",
    )


def a_window_bounds_what_is_seen(make: Make) -> None:
    """Group 1 has a sliding window of 9 tokens: keys 0 … 8 behind the query are visible."""
    for dtype in TOLERANCE:
        paged = Paged(make, dtype, window=9)
        paged.step("a prefill of 30 tokens", Part("a", 30), Part("b", 7))
        paged.step("decoding", Part("a", 1), Part("b", 1))
        paged.step("a chunk of 20 tokens", Part("b", 20))


def first_keys_are_not_seen(make: Make) -> None:
    """Group 1 has no key for token 0: a drafter's layers, whose rows begin at token 1."""
    for dtype in TOLERANCE:
        paged = Paged(make, dtype, first_key=1)
        for name in "ab":
            paged.assume(name, 1)
        paged.step("prefills from token 1", Part("a", 36), Part("b", 7))
        paged.step("decoding", Part("a", 1), Part("b", 1))
        paged.step("a chunk beside a decoding row", Part("b", 20), Part("a", 1))


def ready_heads_attend_as_they_are(make: Make) -> None:
    """attend() of a prefill and a chunk after it, with each way of making scores."""
    for dtype, scoring in ((one, two) for one in TOLERANCE for two in _SCORINGS):
        spec = _spec(dtype, None)
        paged = Paged(make, dtype)
        shape = (21, spec.num_heads + 2 * spec.num_kv_heads, spec.head_dim)
        heads = torch.randn(shape, generator=torch.Generator().manual_seed(3)).to(_of(dtype))
        q, k, v = heads.split((spec.num_heads, spec.num_kv_heads, spec.num_kv_heads), dim=1)
        got = []
        for begin, end in ((0, 13), (13, 21)):
            row = PlanRow("a", [1] * (end - begin), begin, 0, True, ([4, 9],))
            plan = paged.bound.plan([row])
            positions = paged.bound.positions(plan).tolist()
            require(
                positions == list(range(begin, end)),
                f"positions() of a row from {begin} are {begin} … {end - 1}",
                str(positions),
                "answer what the step would rotate by",
            )
            at = slice(begin, end)
            got.append(paged.bound.attend(q[at], k[at], v[at], 0, plan, scoring))
        wanted = attend_ready((q, k, v), causal(21, 21), scoring)
        worst = float((torch.cat(got).double() - wanted).abs().max())
        require(
            worst <= TOLERANCE[dtype],
            f"attend() with {scoring} equals the reference within {TOLERANCE[dtype]} ({dtype})",
            f"it is off by {worst:.3g}",
            "neither normalise nor rotate; honour scale, softcap and sinks",
        )


CHECKS: tuple[Check, ...] = (
    has_members(AttentionBackend),
    formats_are_declared,
    what_it_binds_has_the_members_of_its_protocol,
    a_prefill_attends_causally,
    chunks_equal_the_whole,
    rows_of_a_step_are_independent,
    decoding_rows_of_any_length_agree,
    rejected_drafts_are_overwritten,
    a_tree_sees_its_ancestors_only,
    a_row_without_slots_writes_nothing,
    a_window_bounds_what_is_seen,
    first_keys_are_not_seen,
    ready_heads_attend_as_they_are,
)


class Paged:
    """A bound backend beside the reference; every step compares the two, layer by layer."""

    def __init__(
        self, make: Make, dtype: str = "float32", window: int | None = None, first_key: int = 0
    ) -> None:
        self._spec = _spec(dtype, window, first_key)
        self._windows = {0: None, 1: window}
        self._first_keys = {0: 0, 1: first_key}
        self._dtype = _of(dtype)
        self._memory = PlaneStore().open(
            self._spec.kv_groups, [NUM_BLOCKS] * len(self._spec.kv_groups), BLOCK, "cpu"
        )
        backend: AttentionBackend = make(build_context(dtype=dtype, model=self._spec))
        self.bound = backend.bind(self._spec, self._memory, BLOCK)
        self._tokens: dict[str, _Tokens] = {}
        self._generator = torch.Generator().manual_seed(11)
        # every third block, downwards: no two neighbours belong together
        self._free = [number for start in (2, 1, 0) for number in range(start, NUM_BLOCKS, 3)]

    def step(self, what: str, *parts: Part, same_tokens: bool = False) -> None:
        """Run both over new random tokens and compare. `same_tokens` repeats the old ones."""
        rows = [self._row(part) for part in parts]
        new = [[self._new(part, layer, same_tokens) for part in parts] for layer in (0, 1)]
        plan = self.bound.plan(rows)
        for layer in (0, 1):
            got = self.bound.run(torch.cat(new[layer]).clone(), layer, plan)
            wanted = torch.cat(
                [self._reference(part, layer, one) for part, one in zip(parts, new[layer],
                                                                        strict=True)]
            )  # fmt: skip
            self._compare(what, layer, got, wanted)
        for number, part in enumerate(parts):
            self._keep(part, [new[layer][number] for layer in (0, 1)])

    def assume(self, name: str, length: int) -> None:
        """A sequence begins with tokens whose keys and values, all zero, are stored."""
        width = (self._spec.num_heads + 2 * self._spec.num_kv_heads) * self._spec.head_dim
        zeros = torch.zeros(length, width, dtype=self._dtype)
        self._tokens[name] = _Tokens([], [zeros, zeros], length)

    def truncate(self, name: str, length: int) -> None:
        """Forget the last tokens: they were drafts that did not hold."""
        self._tokens[name].length = length

    def mark(self) -> None:
        """Change what is stored by less than the tolerance: a second write would undo it."""
        for layer in (0, 1):
            for plane in self._memory.planes(layer):
                plane.mul_(1 + 2**-20)

    def held(self) -> list[torch.Tensor]:
        """Copies of all planes."""
        return [plane.clone() for layer in (0, 1) for plane in self._memory.planes(layer)]

    def _row(self, part: Part) -> PlanRow:
        state = self._tokens.setdefault(part.name, _Tokens([]))
        while len(state.blocks) * BLOCK < state.length + part.count:
            state.blocks.append(self._free.pop())
        tables = tuple(list(state.blocks) for _ in self._spec.kv_groups)
        return PlanRow(
            part.name,
            [1] * part.count,
            state.length,
            part.num_drafts,
            True,
            tables,
            tree_parents=part.parents,
            writes_kv=part.writes_kv,
        )

    def _new(self, part: Part, layer: int, same_tokens: bool) -> torch.Tensor:
        state = self._tokens[part.name]
        if same_tokens:
            return state.qkv[layer][state.length : state.length + part.count]
        width = (self._spec.num_heads + 2 * self._spec.num_kv_heads) * self._spec.head_dim
        return torch.randn(part.count, width, generator=self._generator).to(self._dtype)

    def _reference(self, part: Part, layer: int, new: torch.Tensor) -> torch.Tensor:
        state = self._tokens[part.name]
        past = state.qkv[layer][: state.length] if state.qkv else new[:0]
        total = state.length + part.count
        mask = causal(total, part.count, self._windows[layer])
        positions = list(range(total))
        if part.parents is not None:
            known = total - len(part.parents)
            below, depths = ancestors(part.parents, known)
            mask[-len(part.parents) :] = below
            positions[known:] = [known - 1 + depth for depth in depths]
        mask[:, : self._first_keys[layer]] = False
        return attend(torch.cat((past, new)), positions, mask, self._spec)

    def _compare(self, what: str, layer: int, got: torch.Tensor, wanted: torch.Tensor) -> None:
        dtype = self._spec.dtype
        require(
            got.shape == wanted.shape and got.dtype == self._dtype,
            f"run() answers {tuple(wanted.shape)} of {dtype} for {what}",
            f"{tuple(got.shape)} of {got.dtype}",
            "answer [tokens, heads * head_dim] in the dtype of qkv, rows in plan order",
        )
        worst = (got.double() - wanted).abs().amax(dim=1)
        row = int(worst.argmax())
        require(
            bool(torch.isfinite(got).all()) and float(worst[row]) <= TOLERANCE[dtype],
            f"layer {layer} of {what} equals the reference within {TOLERANCE[dtype]} ({dtype})",
            f"token {row} of {len(worst)} of the step is off by {float(worst[row]):.3g}",
            "compare with rtp_core.testing.attention_reference for this row",
        )

    def _keep(self, part: Part, new: Sequence[torch.Tensor]) -> None:
        state = self._tokens[part.name]
        past = [one[: state.length] for one in state.qkv] or [one[:0] for one in new]
        state.qkv = [torch.cat(pair) for pair in zip(past, new, strict=True)]
        state.length += part.count


def _of(dtype: str) -> torch.dtype:
    return getattr(torch, dtype)


def _spec(dtype: str, window: int | None, first_key: int = 0):  # noqa: ANN202
    spec = small_spec(dtype=dtype)
    planes = spec.kv_groups[0].planes
    if window is None and not first_key:
        return spec
    other = KVGroup("window", (1,), planes, window, first_key)
    groups = (KVGroup("main", (0,), planes), other)
    return replace(spec, kv_groups=groups)
