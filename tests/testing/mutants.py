"""Parts that break their contract in one way each, keyed by the check that must notice."""

from __future__ import annotations

import random
from concurrent.futures import Future
from dataclasses import replace
from types import SimpleNamespace

from rtp_core.api import (
    Draft,
    KVFormatId,
    LoadStats,
    MediaItem,
    SpeculatorNeeds,
    TierBlock,
)
from rtp_core.testing import fakes


def variant(parent, **members):
    """A subclass of `parent` with other members."""
    return type(f"Bad{parent.__name__}", (parent,), members)


def resolved(value):
    future = Future()
    future.set_result(value)
    return future


# ---- scheduler


class Destructive(fakes.QueuePolicy):
    def candidates(self, now_s, cached):
        for one in list(super().candidates(now_s, cached)):
            self.remove(one)
            yield one


class Once(fakes.QueuePolicy):
    def __init__(self):
        super().__init__()
        self.seen = set()

    def add(self, request):
        if request.sequence_id not in self.seen:
            super().add(request)
        self.seen.add(request.sequence_id)


class Shortest(fakes.QueuePolicy):
    def candidates(self, now_s, cached):
        return sorted(self._waiting, key=lambda one: (self._waiting[one].num_tokens, one))


class Rolling(fakes.QueuePolicy):
    def candidates(self, now_s, cached):
        return random.sample(sorted(self._waiting), len(self._waiting))


class Stubborn(fakes.QueuePolicy):
    def __init__(self):
        super().__init__()
        self.last = "nobody"

    def add(self, request):
        super().add(request)
        self.last = request.sequence_id

    def victim(self, running):
        return self.last


def _keep(self, sequence_id):
    if sequence_id not in self._waiting:
        return


SCHEDULER = {
    "has_the_members_of_its_protocol": variant(fakes.QueuePolicy, victim=lambda self: ""),
    "every_waiting_id_comes_out_once": variant(
        fakes.QueuePolicy, candidates=lambda self, now, cached: list(self._waiting) * 2
    ),
    "an_empty_queue_has_no_candidates": variant(
        fakes.QueuePolicy, candidates=lambda self, now, cached: ["nobody"]
    ),
    "removed_ids_do_not_come_back": variant(fakes.QueuePolicy, remove=_keep),
    "unknown_removes_are_ignored": variant(
        fakes.QueuePolicy, remove=lambda self, one: self._waiting.pop(one)
    ),
    "stopping_early_loses_nothing": Destructive,
    "a_preempted_sequence_waits_again": Once,
    "equal_histories_give_equal_answers": Rolling,
    "nobody_waits_forever": Shortest,
    "the_victim_is_running": Stubborn,
}


# ---- speculator

SCRIPT = fakes.ScriptedSpeculator


def answering(answer):
    return lambda: SCRIPT(answer=answer)


class Learner(SCRIPT):
    """Drafts what followed the last token when anybody drafted last."""

    def __init__(self, per_tenant=False, forget=True):
        super().__init__()
        self.after = {}
        self.forget = forget
        self.where = (lambda row: row.tenant) if per_tenant else (lambda row: "")

    def propose(self, rows):
        drafts = []
        for row in rows:
            tokens, table = row.token_ids, self.where(row)
            drafts.append(Draft(self.after.get((table, tokens[-1]), ())))
            if len(tokens) > 1:
                self.after[table, tokens[-2]] = (tokens[-1],)
        return drafts


class Hoarder(SCRIPT):
    """Keeps the tokens of every sequence for good."""

    def __init__(self):
        super().__init__()
        self.kept = {}

    def propose(self, rows):
        for row in rows:
            self.kept[row.sequence_id] = list(row.token_ids)
        return super().propose(rows)


class Stale(Hoarder):
    """Drafts from the tokens it first saw under an id."""

    def propose(self, rows):
        for row in rows:
            self.kept.setdefault(row.sequence_id, tuple(row.token_ids[:2]))
        return [Draft(self.kept[row.sequence_id]) for row in rows]


class TenantHoarder(SCRIPT):
    def __init__(self):
        super().__init__()
        self.kept = {}

    def propose(self, rows):
        for row in rows:
            self.kept.setdefault(row.tenant, [0] * 50)
        return super().propose(rows)


class Moody(SCRIPT):
    def propose(self, rows):
        return [Draft((random.randrange(64),)) for _ in rows]


class Growing(SCRIPT):
    def propose(self, rows):
        self.needs = SpeculatorNeeds(max_draft_tokens=self.needs.max_draft_tokens + 1)
        return super().propose(rows)


class Appending(SCRIPT):
    def propose(self, rows):
        for row in rows:
            row.token_ids.append(0)
        return super().propose(rows)


class Strict(SCRIPT):
    def release(self, sequence_id):
        raise KeyError(sequence_id)


def _last_only(self, rows, states):
    """The state of a row's last token stands for every block that the row touches."""
    fakes.NearestSpeculator.extend(self, rows, states)
    for row in rows:
        end = row.start + len(row.token_ids)
        for block in row.block_tables[0][row.start // 16 : -(-end // 16)]:
            self._parts.states[0][block] = self._last[row.sequence_id]


SPECULATOR = {
    "has_the_members_of_its_protocol": lambda: SimpleNamespace(needs=None),
    "needs_are_constant": Growing,
    "each_row_gets_one_draft": variant(SCRIPT, propose=lambda self, rows: [Draft()]),
    "drafts_stand_in_the_order_of_their_rows": variant(
        SCRIPT, propose=lambda self, rows: [Draft((r.token_ids[-1],)) for r in reversed(rows)]
    ),
    "drafts_fit": answering(lambda row: Draft((1,) * 9)),
    "drafted_ids_are_tokens": answering(lambda row: Draft((64,))),
    "trees_have_parents_before_children": answering(lambda row: Draft((1, 2), (-1, 0))),
    "rows_are_not_changed": Appending,
    "strangers_are_ignored": Strict,
    "short_contexts_are_served": answering(lambda row: Draft((row.token_ids[-2],))),
    "equal_histories_give_equal_drafts": Moody,
    "tenants_do_not_learn_from_each_other": Learner,
    "a_released_id_starts_anew": Stale,
    "released_sequences_leave_no_memory": Hoarder,
    "many_tenants_leave_little_memory": TenantHoarder,
    "blocks_depend_on_their_tokens_only": variant(fakes.NearestSpeculator, extend=_last_only),
}


# ---- KV store


def store(space=None, **members):
    """A PlaneStore whose memory has other members, or whose spaces are made by `space`."""
    memory = variant(fakes.PlaneMemory, **members)

    def opened(self, groups, num_blocks, block_size, device):
        made = memory(groups, num_blocks, block_size, device)
        if space is not None:
            made._spaces = [space(count) for count in num_blocks]
        return made

    return variant(fakes.PlaneStore, open=opened)


class Generous(fakes.ListSpace):
    def allocate(self, format_id, near=None):
        return super().allocate(format_id, near) if self._free else 0


class Scattered(fakes.ListSpace):
    def allocate(self, format_id, near=None):
        return self._free.pop() if self._free else None


class Careless(fakes.ListSpace):
    def free(self, block):
        self._free.append(block)


def _swapped(self, layer):
    keys, values = self._planes[layer]
    return values, keys


def _cloned(self, layer):
    keys, values = self._planes[layer]
    return keys.clone(), values.clone()


def _backwards(self, copies):
    fakes.PlaneMemory.copy(self, list(copies)[::-1])


def _values_first(self, group, block):
    blob = fakes.PlaneMemory.export_block(self, group, block)
    return blob[len(blob) // 2 :] + blob[: len(blob) // 2]


def _next_block(self, group, block, blob):
    fakes.PlaneMemory.import_block(self, group, block - 2, blob)


def _unchecked(self, group, block, blob):
    whole = fakes.PlaneMemory.export_block(self, group, block)
    fakes.PlaneMemory.import_block(self, group, block, (blob + whole)[: len(whole)])


KV_STORE = {
    "has_the_members_of_its_protocol": variant(fakes.PlaneStore, open=None),
    "formats_begin_with_the_default": variant(fakes.PlaneStore, formats=()),
    "memory_has_the_members_of_its_protocol": store(copy=None),
    "memory_is_as_large_as_promised": variant(
        fakes.PlaneStore, block_bytes=lambda self, group, size: 1024
    ),
    "a_space_hands_out_each_block_once": store(Generous),
    "near_blocks_are_adjacent": store(Scattered),
    "freeing_twice_is_an_error": store(Careless),
    "planes_have_the_geometry_of_their_group": store(planes=_swapped),
    "planes_are_views": store(planes=_cloned),
    "copies_move_whole_blocks": store(copy=_backwards),
    "states_belong_to_blocks": store(copy=lambda self, copies: None),
    "blobs_are_canonical": store(export_block=_values_first),
    "blocks_survive_export_and_import": store(import_block=_next_block),
    "blobs_of_wrong_length_are_refused": store(import_block=_unchecked),
}


# ---- KV tier


def _optimistic(self, keys, quality):
    return len(keys)


def _filled(self, keys, blobs):
    return resolved(tuple(TierBlock(ok=True) for _ in keys))


def _zeroed(self, keys, blobs):
    held = fakes.DictTier.load(self, keys, blobs)
    for blob in blobs:
        blob[:] = bytes(len(blob))
    return held


def _all_or_nothing(self, keys, blobs):
    blocks = fakes.DictTier.load(self, keys, blobs).result()
    fine = all(block.ok for block in blocks)
    return resolved(tuple(TierBlock(ok=fine) for _ in blocks))


def _counts_any(self, keys, quality):
    return sum(key in self._held for key in keys)


def _pads(self, key, blob):
    if key not in self._held:
        return TierBlock(ok=False)
    blob[:] = (self._held[key] * 2)[: len(blob)]
    return TierBlock(ok=True)


def _picky(self, keys, quality):
    return fakes.DictTier.lookup(self, keys, quality) if quality == "exact" else 0


def _forgetful(self, keys, blobs):
    if self._held:
        self._held.clear()
        return resolved(len(keys))
    return fakes.DictTier.store(self, keys, blobs)


def _raises(self, keys, blobs):
    raise OSError("disk full")


KV_TIER = {
    "has_the_members_of_its_protocol": variant(fakes.DictTier, load=lambda self, keys: None),
    "unknown_keys_are_misses": variant(fakes.DictTier, lookup=_optimistic),
    "loading_unknown_keys_resolves_to_misses": variant(fakes.DictTier, load=_filled),
    "stored_blocks_come_back": variant(fakes.DictTier, load=_zeroed),
    "lookup_counts_leading_keys_only": variant(fakes.DictTier, lookup=_counts_any),
    "a_batch_may_hit_and_miss": variant(fakes.DictTier, load=_all_or_nothing),
    "a_buffer_of_wrong_size_is_a_miss": variant(fakes.DictTier, _fill=_pads),
    "stricter_quality_never_finds_more": variant(fakes.DictTier, lookup=_picky),
    "storing_again_is_harmless": variant(fakes.DictTier, store=_forgetful),
}
RAISING_TIER = variant(fakes.DictTier, store=_raises)


# ---- loader


def loading(edit):
    """A WholeFileLoader that calls `edit(plan, sink, progress)` to get its arguments."""

    def load(self, plan, sink, progress):
        return fakes.WholeFileLoader.load(self, *edit(plan, sink, progress))

    return variant(fakes.WholeFileLoader, load=load)


def _without_last(plan, sink, progress):
    return replace(plan, placements=plan.placements[:-1]), sink, progress


def _first_file(plan, sink, progress):
    first = next(iter(plan.file_bytes))
    return replace(plan, file_bytes={first: plan.file_bytes[first]}), sink, progress


class Shuffled:
    def __init__(self, sink):
        self._sink = sink
        self._kept = []

    def place(self, placement, data):
        self._sink.place(placement, data[::-1])


class Small:
    def __init__(self, sink):
        self._sink = sink

    def place(self, placement, data):
        self._sink.place(placement, data[: 4 * 2**20])


class Twice:
    def __init__(self, sink):
        self._sink = sink

    def place(self, placement, data):
        for _ in range(2):
            self._sink.place(placement, data)


def _silent(plan, sink, progress):
    return plan, sink, lambda count: None


def _unchecked_length(plan, sink, progress):
    return replace(plan, file_bytes=dict.fromkeys(plan.file_bytes, 0)), sink, progress


def _lenient(self, plan, sink, progress):
    try:
        return fakes.WholeFileLoader.load(self, plan, sink, progress)
    except Exception:
        return LoadStats("lenient", plan.num_bytes, 0.0)


LOADER = {
    "has_the_members_of_its_protocol": lambda: SimpleNamespace(load=lambda plan: None),
    "every_destination_is_filled_once": loading(_without_last),
    "files_may_be_several": loading(_first_file),
    "order_in_the_file_may_be_any": loading(lambda p, sink, t: (p, Shuffled(sink), t)),
    "tensors_may_be_large_or_tiny": loading(lambda p, sink, t: (p, Small(sink), t)),
    "unplanned_tensors_are_passed_over": loading(lambda p, sink, t: (p, Twice(sink), t)),
    "progress_adds_up": loading(_silent),
    "truncated_files_are_errors": loading(_unchecked_length),
    "missing_files_are_errors": variant(fakes.WholeFileLoader, load=_lenient),
    "errors_of_the_sink_stop_the_load": variant(fakes.WholeFileLoader, load=_lenient),
}


# ---- transport


def _hangs(self, peer, keys, blobs):
    raise ConnectionError(peer)


TRANSPORT = {
    "has_the_members_of_its_protocol": lambda: SimpleNamespace(push=None),
    "an_absent_peer_takes_nothing": variant(fakes.LoopbackTransport, push=_hangs),
    "an_absent_peer_has_nothing": variant(
        fakes.LoopbackTransport, pull=lambda self, peer, keys: resolved([])
    ),
    "nothing_to_move_is_no_error": variant(
        fakes.LoopbackTransport, push=lambda self, peer, keys, blobs: resolved(None)
    ),
}


# ---- encoder


def pair(planner=fakes.BytePlanner, encoder=fakes.ConstantEncoder):
    return lambda: (planner(), encoder(32))


def _batch_dependent(self, items, data):
    features = fakes.ConstantEncoder.encode(self, items, data)
    return [one * (place + 1) for place, one in enumerate(features)]


ENCODER = {
    "an_offer_builds_a_pair": fakes.BytePlanner,
    "digests_name_content": pair(
        variant(fakes.BytePlanner, plan=lambda self, data, kind: MediaItem("same", kind, 4))
    ),
    "unusable_media_is_the_clients_fault": pair(
        variant(fakes.BytePlanner, plan=lambda self, data, kind: MediaItem(str(data), kind, 4))
    ),
    "features_fit_the_plan": pair(encoder=variant(fakes.ConstantEncoder, encode=_batch_dependent)),
}


# ---- model


def family(**members):
    return variant(fakes.SuccessorFamily, **members)


def model(**members):
    def build(self, spec, parameters, parallel, kernels):
        return variant(fakes.SuccessorModel, **members)(spec.hidden_size, spec.vocab_size)

    return family(build=build)


def spec(edit):
    def read(self, config, dtype, fingerprint):
        return edit(fakes.SuccessorFamily.spec(self, config, dtype, fingerprint))

    return family(spec=read)


_counter = iter(range(10**6))


def _guess(self, config, dtype, fingerprint):
    whole = {"hidden_size": 8, "vocab_size": 8, "num_hidden_layers": 1, **config}
    return fakes.SuccessorFamily.spec(self, whole, dtype, fingerprint)


def _overlapping(self, spec):
    table = fakes.SuccessorFamily.weights(self, spec)
    return replace(table, rules=table.rules * 2)


class Stateful(fakes.SuccessorModel):
    calls = 0

    def logits(self, hidden):
        self.calls += 1
        return super().logits(hidden) * self.calls


MODEL = {
    "has_the_members_of_its_protocol": family(weights=None),
    "the_spec_describes_the_configuration": spec(lambda one: replace(one, num_kv_heads=0)),
    "equal_configurations_give_equal_specs": spec(
        lambda one: replace(one, max_model_len=next(_counter) + 1)
    ),
    "kv_groups_cover_every_layer_once": spec(lambda one: replace(one, kv_groups=())),
    "missing_keys_are_named": family(spec=_guess),
    "weights_cover_every_row_once": family(weights=_overlapping),
    "the_model_answers_in_shape": model(
        logits=lambda self, hidden: hidden.new_zeros(len(hidden), 3)
    ),
    "chunks_equal_the_whole": family(
        build=lambda self, spec, *_: Stateful(spec.hidden_size, spec.vocab_size)
    ),
    "states_are_captured_when_asked": model(
        forward=lambda self, ids, attention, plan, capture=(), wanted=None: (
            fakes.SuccessorModel.forward(self, ids, attention, plan, (), wanted)
        )
    ),
    "wanted_tokens_alone_are_given": model(
        forward=lambda self, ids, attention, plan, capture=(), wanted=None: (
            fakes.SuccessorModel.forward(
                self, ids, attention, plan, capture, None if wanted is None else wanted.sort()[0]
            )
        )
    ),
}


# ---- attention


def attention(edit_rows=None, edit_spec=None, edit_scoring=None, **members):
    """The torch backend, told other rows or another model than it should see."""
    from rtp_core.execution.torch_attention import BoundTorchAttention, TorchAttention

    def plan(self, rows):
        return BoundTorchAttention.plan(self, [edit_rows(row) for row in rows])

    def attend(self, q, k, v, layer, plan, scoring):
        return BoundTorchAttention.attend(self, q, k, v, layer, plan, edit_scoring(scoring))

    own = ({"plan": plan} if edit_rows else {}) | ({"attend": attend} if edit_scoring else {})
    bound = variant(BoundTorchAttention, **own)

    def bind(self, spec, memory, block_size):
        return bound(edit_spec(spec) if edit_spec else spec, memory, block_size, "cpu")

    kind = variant(TorchAttention, **{"bind": bind, **members})
    return lambda: kind("cpu")


def _blind(spec):
    groups = tuple(replace(group, sliding_window=None, first_key=0) for group in spec.kv_groups)
    return replace(spec, kv_groups=groups)


ATTENTION = {
    "has_the_members_of_its_protocol": attention(bind=None),
    "formats_are_declared": attention(supported_formats=[KVFormatId.DENSE]),
    "what_it_binds_has_the_members_of_its_protocol": attention(
        bind=lambda self, spec, memory, size: SimpleNamespace(plan=None)
    ),
    "a_prefill_attends_causally": attention(
        edit_spec=lambda spec: replace(spec, rope=replace(spec.rope, theta=500.0))
    ),
    "chunks_equal_the_whole": attention(lambda row: row._replace(start=0)),
    "rows_of_a_step_are_independent": attention(
        lambda row: row._replace(block_tables=([2, 1, 0],) * len(row.block_tables))
    ),
    "decoding_rows_of_any_length_agree": attention(
        lambda row: row._replace(start=row.start - (row.start > 0 and len(row.token_ids) == 1))
    ),
    "rejected_drafts_are_overwritten": attention(
        lambda row: row._replace(writes_kv=row.num_drafts == 0)
    ),
    "a_tree_sees_its_ancestors_only": attention(lambda row: row._replace(tree_parents=None)),
    "a_row_without_slots_writes_nothing": attention(lambda row: row._replace(writes_kv=True)),
    "a_window_bounds_what_is_seen": attention(edit_spec=_blind),
    "first_keys_are_not_seen": attention(edit_spec=_blind),
    "ready_heads_attend_as_they_are": attention(
        edit_scoring=lambda scoring: scoring._replace(sinks=None)
    ),
}
