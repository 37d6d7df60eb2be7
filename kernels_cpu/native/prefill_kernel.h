// Attention of one row and KV head in matrix products; included after simd_avx512.h by a file
// that defines `score_group`, `add_group_values`, `enter` and `leave`.
//
// Scores are computed transposed, [keys, queries], from keys as they lie in memory: softmax
// then runs down columns, and its weights are in the layout of the next product, which gives
// [dim, queries]. Key blocks are aligned at key 0, so a query has the same bits however many
// are new. (Online softmax: Milakov & Gimelshein 2018; Dao et al. 2022.)
#pragma once
#include <cmath>
#include <cstring>

#include "functions.h"
#include "prefill.h"

namespace {

constexpr int kColumns = kQueryBlock / 16;
constexpr float kLog2E = 1.44269504f;

// Queries, scores and sums of an item.
struct Block {
  alignas(64) uint32_t queries[kColumns][kMostDim / 2][16];  // pairs of dimensions
  alignas(64) float scores[kKeyBlock][kQueryBlock];
  alignas(64) uint32_t weights[kKeyBlock / 2][kColumns][16];  // pairs of keys
  alignas(64) float sums[kMostDim][kQueryBlock];
  alignas(64) int32_t position[kQueryBlock];
  alignas(64) float peak[kQueryBlock], total[kQueryBlock];
  int64_t offset[kQueryBlock];  // token * heads + head
  int count, earliest, latest;
};

// [keys 32, queries 32] from `scores`, of keys [32, width].
RTP_INLINE void score_group(const uint16_t* keys, int width, const Block& block,
                            float (*scores)[kQueryBlock]);
// sums [dim, queries] += values [groups, dim, 32] by weights; from zero if `first`.
RTP_INLINE void add_group_values(const uint16_t* values, int dim, int groups, bool first,
                                 Block* block);
RTP_INLINE void enter();
RTP_TARGET void leave();

// 16 x 16 lanes of 32 bits.
RTP_INLINE void transpose(__m512i* r) {
  __m512i t[16];
#pragma GCC unroll 8
  for (int i = 0; i < 16; i += 2) {
    t[i] = _mm512_unpacklo_epi32(r[i], r[i + 1]);
    t[i + 1] = _mm512_unpackhi_epi32(r[i], r[i + 1]);
  }
#pragma GCC unroll 4
  for (int i = 0; i < 16; i += 4) {
    r[i] = _mm512_unpacklo_epi64(t[i], t[i + 2]);
    r[i + 1] = _mm512_unpackhi_epi64(t[i], t[i + 2]);
    r[i + 2] = _mm512_unpacklo_epi64(t[i + 1], t[i + 3]);
    r[i + 3] = _mm512_unpackhi_epi64(t[i + 1], t[i + 3]);
  }
#pragma GCC unroll 4
  for (int i = 0; i < 4; i++) {
    t[i] = _mm512_shuffle_i32x4(r[i], r[i + 4], 0x88);
    t[i + 4] = _mm512_shuffle_i32x4(r[i], r[i + 4], 0xdd);
    t[i + 8] = _mm512_shuffle_i32x4(r[i + 8], r[i + 12], 0x88);
    t[i + 12] = _mm512_shuffle_i32x4(r[i + 8], r[i + 12], 0xdd);
  }
#pragma GCC unroll 4
  for (int i = 0; i < 4; i++) {
    r[i] = _mm512_shuffle_i32x4(t[i], t[i + 8], 0x88);
    r[i + 4] = _mm512_shuffle_i32x4(t[i + 4], t[i + 12], 0x88);
    r[i + 8] = _mm512_shuffle_i32x4(t[i], t[i + 8], 0xdd);
    r[i + 12] = _mm512_shuffle_i32x4(t[i + 4], t[i + 12], 0xdd);
  }
}

RTP_INLINE __m512i sixteen_words(const uint16_t* p) {
  return _mm512_cvtepu16_epi32(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(p)));
}

// 32 keys: copied, and their values transposed.
RTP_INLINE void pack_group(const AttentionCall& call, const PackedKeys& packed, int group) {
  const AttentionShape& shape = *call.shape;
  const AttentionRow& row = call.plan->rows[packed.row];
  const int dim = shape.dim, width = key_width(shape), size = shape.block_size;
  const int32_t* table = call.plan->tables + row.table;
  alignas(64) static const uint16_t none[kMostDim] = {};
  const uint16_t* values[kKeyGroup];
  for (int i = 0; i < kKeyGroup; i++) {
    const int key = packed.begin + group * kKeyGroup + i;
    uint16_t* copy = packed.keys + static_cast<size_t>(group * kKeyGroup + i) * width;
    const uint16_t* from = values[i] = none;
    if (key < row.num_keys) {
      const int64_t slot = static_cast<int64_t>(table[key / size]) * size + key % size;
      const int64_t at = packed.kv_head * call.head_stride + slot * dim;
      from = call.keys + at;
      values[i] = call.values + at;
    }
    std::memcpy(copy, from, sizeof *copy * dim);
    std::memset(copy + dim, 0, sizeof *copy * (width - dim));
  }
  uint16_t* turned = packed.values + static_cast<size_t>(group) * dim * kKeyGroup;
  for (int d = 0; d < dim; d += 16) {
    __m512i pairs[16];
#pragma GCC unroll 16
    for (int i = 0; i < 16; i++) {
      const __m512i odd = _mm512_slli_epi32(sixteen_words(values[2 * i + 1] + d), 16);
      pairs[i] = _mm512_or_si512(sixteen_words(values[2 * i] + d), odd);
    }
    transpose(pairs);
#pragma GCC unroll 16
    for (int i = 0; i < 16; i++) _mm512_storeu_si512(turned + (d + i) * kKeyGroup, pairs[i]);
  }
}

RTP_TARGET void pack(const AttentionCall& call, const PackedKeys& packed, int begin, int end) {
  for (int group = begin; group < end; group++) pack_group(call, packed, group);
}

// Positions, places and values of the queries; missing ones repeat the last.
RTP_INLINE void take_queries(const AttentionCall& call, const PackedKeys& packed, int first,
                             Block* block) {
  const AttentionShape& shape = *call.shape;
  const AttentionRow& row = call.plan->rows[packed.row];
  const int group = shape.heads / shape.kv_heads, dim = shape.dim;
  const int left = row.num_new * group - first, past = row.num_keys - row.num_new;
  block->count = left < kQueryBlock ? left : kQueryBlock;
  for (int i = 0; i < kQueryBlock; i++) {
    const int query = first + (i < block->count ? i : block->count - 1);
    block->position[i] = past + query / group;
    block->offset[i] = static_cast<int64_t>(row.begin + query / group) * shape.heads +
                       packed.kv_head * group + query % group;
    block->peak[i] = -INFINITY;
    block->total[i] = 0.0f;
  }
  block->earliest = block->position[0];
  block->latest = block->position[kQueryBlock - 1];
  for (int column = 0; column < kColumns; column++)
    for (int d = 0; d < key_width(shape); d += 32) {
      const __mmask32 there = dim - d < 32 ? 0xffff : 0xffffffff;
      __m512i lanes[16];
#pragma GCC unroll 16
      for (int i = 0; i < 16; i++)
        lanes[i] = _mm512_maskz_loadu_epi16(
            there, call.queries + block->offset[16 * column + i] * dim + d);
      transpose(lanes);
#pragma GCC unroll 16
      for (int i = 0; i < 16; i++) _mm512_store_si512(block->queries[column][d / 2 + i], lanes[i]);
    }
}

// Keys from `key` on that a query must not see get -inf.
RTP_INLINE void hide_keys(int key, int keys, int window, Block* block) {
  for (int column = 0; column < kColumns; column++) {
    const __m512i last = _mm512_load_si512(block->position + 16 * column);
    const __m512i before =
        window > 0 ? _mm512_sub_epi32(last, _mm512_set1_epi32(window)) : _mm512_set1_epi32(-1);
    for (int i = 0; i < keys; i++) {
      const __m512i at = _mm512_set1_epi32(key + i);
      const __mmask16 seen =
          _mm512_cmple_epi32_mask(at, last) & _mm512_cmpgt_epi32_mask(at, before);
      float* scores = block->scores[i] + 16 * column;
      store(scores, _mm512_mask_mov_ps(splat(-INFINITY), seen, load(scores)));
    }
  }
}

RTP_INLINE void cap_scores(float scale, float cap, int keys, Block* block) {
  for (int i = 0; i < keys; i++)
    for (int at = 0; at < kQueryBlock; at += 16) {
      const F share = div(mul(load(block->scores[i] + at), splat(scale)), splat(cap));
      store(block->scores[i] + at, mul(splat(cap), hyperbolic_tangent(share)));
    }
}

// 2^x, 0 below -126; relative error 3e-6, exact at 0. NaN stays.
RTP_INLINE F power_of_two(F x) {
  const F whole = round(x), rest = sub(x, whole);
  F series = splat(1.3333558e-3f);
  series = fma(series, rest, splat(9.6181291e-3f));
  series = fma(series, rest, splat(5.5504109e-2f));
  series = fma(series, rest, splat(2.4022651e-1f));
  series = fma(series, rest, splat(6.9314718e-1f));
  series = fma(series, rest, splat(1.0f));
  const __mmask16 shows = _mm512_cmp_ps_mask(x, splat(-126.0f), _CMP_NLT_UQ);
  return _mm512_maskz_scalef_ps(shows, series, whole);
}

// Two rows of weights as pairs of bf16, rounded to nearest.
RTP_INLINE __m512i as_pairs(F even, F odd) {
  const __m512i half = _mm512_set1_epi32(0x8000);
  const __m512i low = _mm512_add_epi32(_mm512_castps_si512(even), half);
  const __m512i high = _mm512_add_epi32(_mm512_castps_si512(odd), half);
  return _mm512_mask_blend_epi16(0xaaaaaaaa, _mm512_srli_epi32(low, 16), high);
}

// Scores of a block become weights 2^(scale * (score - peak)); earlier sums are corrected.
RTP_INLINE void weigh_block(float scale, int keys, int dim, Block* block) {
  const F factor = splat(scale);
  for (int column = 0; column < kColumns; column++) {
    float* peak = block->peak + 16 * column;
    float* total = block->total + 16 * column;
    const F before = load(peak);
    F highest[4] = {before, before, before, before};
    for (int i = 0; i < keys; i += 4)
#pragma GCC unroll 4
      for (int j = 0; j < 4; j++)
        highest[j] = max(highest[j], load(block->scores[i + j] + 16 * column));
    const F now = max(max(highest[0], highest[1]), max(highest[2], highest[3]));
    store(peak, now);
    // Nothing seen yet: weights are zero, or NaN, which must not get lost.
    const __mmask16 blind = _mm512_cmp_ps_mask(now, splat(-INFINITY), _CMP_EQ_OQ);
    const F base = mul(_mm512_mask_mov_ps(now, blind, zero()), factor);
    F even = zero(), odd = zero();
    for (int i = 0; i < keys; i += 2) {
      const F one = power_of_two(
          _mm512_fmsub_ps(load(block->scores[i] + 16 * column), factor, base));
      const F two = power_of_two(
          _mm512_fmsub_ps(load(block->scores[i + 1] + 16 * column), factor, base));
      even = add(even, one);
      odd = add(odd, two);
      _mm512_store_si512(block->weights[i / 2][column], as_pairs(one, two));
    }
    const F kept = power_of_two(_mm512_fmsub_ps(before, factor, base));
    store(total, fma(load(total), kept, add(even, odd)));
    if (_mm512_cmp_ps_mask(kept, splat(1.0f), _CMP_NEQ_UQ) == 0) continue;
    for (int d = 0; d < dim; d++)
      store(block->sums[d] + 16 * column, mul(load(block->sums[d] + 16 * column), kept));
  }
}

RTP_INLINE void put_results(const AttentionCall& call, float scale, const Block& block) {
  const int dim = call.shape->dim;
  for (int column = 0; column < kColumns && 16 * column < block.count; column++) {
    const int left = block.count - 16 * column, some = left < 16 ? left : 16;
    const int64_t* offset = block.offset + 16 * column;
    const F share = div(splat(1.0f), load(block.total + 16 * column));
    for (int d = 0; d < dim; d += 16) {
      __m512i lanes[16];
#pragma GCC unroll 16
      for (int i = 0; i < 16; i++)
        lanes[i] = _mm512_castps_si512(mul(load(block.sums[d + i] + 16 * column), share));
      transpose(lanes);
      for (int i = 0; i < some; i++)
        store_bf16(call.out + offset[i] * dim + d, _mm512_castsi512_ps(lanes[i]));
    }
    if (call.lse == nullptr) continue;
    for (int i = 0; i < some; i++)
      call.lse[offset[i]] =
          block.peak[16 * column + i] * scale + std::log(block.total[16 * column + i]);
  }
}

RTP_TARGET void attend(const AttentionCall& call, const PackedKeys& packed, int first) {
  const AttentionShape& shape = *call.shape;
  const int dim = shape.dim, width = key_width(shape), window = shape.window;
  const float scale = shape.softcap > 0.0f ? 1.0f : shape.scale;
  Block block;
  take_queries(call, packed, first, &block);
  enter();
  const int oldest = window > 0 ? block.earliest - window + 1 : 0;
  const int begin = oldest > packed.begin ? oldest / kKeyBlock * kKeyBlock : packed.begin;
  for (int key = begin; key <= block.latest; key += kKeyBlock) {
    const int left = (block.latest - key) / kKeyGroup * kKeyGroup + kKeyGroup;
    const int keys = left < kKeyBlock ? left : kKeyBlock;
    const size_t at = key - packed.begin;
    for (int i = 0; i < keys; i += kKeyGroup)
      score_group(packed.keys + (at + i) * width, width, block, block.scores + i);
    if (shape.softcap > 0.0f) cap_scores(shape.scale, shape.softcap, keys, &block);
    if (key + keys - 1 > block.earliest || (window > 0 && key <= block.latest - window))
      hide_keys(key, keys, window, &block);
    weigh_block(scale * kLog2E, keys, key == begin ? 0 : dim, &block);
    add_group_values(packed.values + at * dim, dim, keys / kKeyGroup, key == begin, &block);
  }
  put_results(call, scale, block);
}

}  // namespace
