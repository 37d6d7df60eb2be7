// Attention over paged keys of one instruction set; included after a simd_*.h.
#pragma once
#include <cmath>
#include <cstring>

#include "functions.h"
#include "operations.h"
#include "row_norm.h"

namespace {

constexpr int kTile = 64;   // keys between two corrections of the softmax
constexpr int kBlock = 64;  // dimensions kept in registers

RTP_INLINE float from_bf16(uint16_t value) {
  uint32_t bits = static_cast<uint32_t>(value) << 16;
  float result;
  std::memcpy(&result, &bits, 4);
  return result;
}

RTP_INLINE uint16_t to_bf16(float value) {
  uint32_t bits;
  std::memcpy(&bits, &value, 4);
  bits = value == value ? bits + 0x7fff + (bits >> 16 & 1) : 0x7fc00000u;
  return static_cast<uint16_t>(bits >> 16);
}

// One head of a query or key, normed if asked, rotated: halves of the first `rotary`
// dimensions turn against each other, the rest passes through.
RTP_TARGET void rotate_head(const AttentionCall& call, const uint16_t* x, const Norm& norm,
                            int token, uint16_t* out) {
  const AttentionPlan& plan = *call.plan;
  const int dim = call.shape->dim, half = plan.rotary / 2;
  const float *cos = plan.cos + static_cast<size_t>(token) * plan.rotary;
  const float *sin = plan.sin + static_cast<size_t>(token) * plan.rotary;
  alignas(64) float wide[kMostDim];
  for (int i = 0; i < dim; i += 16) store(wide + i, load_bf16(x + i));
  if (norm.weight != nullptr) {
    F squares = zero();
    for (int i = 0; i < dim; i += 16) squares = fma(load(wide + i), load(wide + i), squares);
    const float mean = sum(squares) / static_cast<float>(dim);
    const F inverse = splat(1.0f / std::sqrt(mean + call.eps));
    for (int i = 0; i < dim; i += 16) {
      const F weight = norm_weights(norm, i, call.shape->norm_offset);
      store(wide + i, mul(mul(load(wide + i), inverse), weight));
    }
  }
  alignas(64) float turned[kMostDim];
  for (int i = 0; i < half; i++) {
    turned[i] = wide[i] * cos[i] + wide[i + half] * sin[i];
    turned[i + half] = wide[i + half] * cos[i + half] + wide[i] * sin[i + half];
  }
  for (int i = plan.rotary; i < dim; i++) turned[i] = wide[i];
  for (int i = 0; i < dim; i += 16) store_bf16(out + i, load(turned + i));
}

RTP_TARGET void rotate(const AttentionCall& call, uint16_t* rotated, int begin, int end) {
  const AttentionShape& shape = *call.shape;
  const int heads = shape.heads, kv_heads = shape.kv_heads, dim = shape.dim;
  for (int token = begin; token < end; token++) {
    const uint16_t* x = call.qkv + static_cast<size_t>(token) * (heads + 2 * kv_heads) * dim;
    uint16_t* q = rotated + static_cast<size_t>(token) * heads * dim;
    for (int head = 0; head < heads; head++)
      rotate_head(call, x + head * dim, call.q_norm, token, q + head * dim);
    const int64_t slot = call.plan->slots[token];
    if (slot < 0) continue;
    for (int head = 0; head < kv_heads; head++) {
      const int64_t at = head * call.head_stride + slot * dim;
      rotate_head(call, x + (heads + head) * dim, call.k_norm, token, call.keys + at);
      std::memcpy(call.values + at, x + (heads + kv_heads + head) * dim, sizeof *x * dim);
    }
  }
}

// The queries of an item: which token and head, and the scaled values.
struct Queries {
  alignas(64) float values[kQueries * kMostDim];  // [count, dim]
  int64_t offset[kQueries];                       // token * heads + head
  int position[kQueries];                         // in its sequence
  int token[kQueries];                            // of the row
};

// Of a new token of a row; in a tree it follows its ancestors.
RTP_INLINE int position_of(const AttentionCall& call, const AttentionRow& row, int token) {
  const int past = row.num_keys - row.num_new;
  if (row.tree < 0) return past + token;
  return past - 1 + __builtin_popcountll(call.plan->trees[row.tree + token]);
}

RTP_TARGET void load_queries(const AttentionCall& call, const AttentionItem& item, bool values,
                             Queries* queries) {
  const AttentionShape& shape = *call.shape;
  const AttentionRow& row = call.plan->rows[item.row];
  const int group = shape.heads / shape.kv_heads;
  for (int i = 0; i < item.count; i++) {
    const int token = (item.first + i) / group, head = (item.first + i) % group;
    queries->token[i] = token;
    queries->position[i] = position_of(call, row, token);
    queries->offset[i] = static_cast<int64_t>(row.begin + token) * shape.heads +
                         item.kv_head * group + head;
    if (!values) continue;
    const uint16_t* q = call.queries + queries->offset[i] * shape.dim;
    for (int d = 0; d < shape.dim; d += 16)
      store(queries->values + i * shape.dim + d, mul(load_bf16(q + d), splat(shape.scale)));
  }
}

// Where the keys of a tile are in a plane. Keys outside the item, which no query sees, take
// the place of the nearest inside.
RTP_INLINE void find_keys(const AttentionCall& call, const AttentionItem& item, int tile,
                          int64_t* offsets) {
  const int size = call.shape->block_size, dim = call.shape->dim;
  const int32_t* table = call.plan->tables + call.plan->rows[item.row].table;
  for (int i = 0; i < kTile; i++) {
    int key = tile + i < item.key_begin ? item.key_begin : tile + i;
    key = key < item.key_end ? key : item.key_end - 1;
    offsets[i] = (static_cast<int64_t>(table[key / size]) * size + key % size) * dim;
  }
}

// Asks for the keys or values of 16 slots, which are wanted soon.
RTP_INLINE void prefetch_slots(const uint16_t* plane, const int64_t* offsets, int dim) {
  for (int key = 0; key < 16; key++)
    for (int at = 0; at < dim; at += 32) __builtin_prefetch(plane + offsets[key] + at);
}

// sums[query][key] += products of N * 16 dimensions from `from` on, lane by lane.
template <int N>
RTP_TARGET void add_products(const uint16_t* plane, const int64_t* offsets, int from, int dim,
                             const Queries& queries, int count, float* sums) {
  for (int key = 0; key < 16; key++) {
    const uint16_t* at = plane + offsets[key] + from;
    F parts[N];
#pragma GCC unroll 4
    for (int i = 0; i < N; i++) parts[i] = load_bf16(at + 16 * i);
    for (int query = 0; query < count; query++) {
      const float* q = queries.values + query * dim + from;
      float* place = sums + (query * 16 + key) * 16;
      F total = from == 0 ? zero() : load(place);
#pragma GCC unroll 4
      for (int i = 0; i < N; i++) total = fma(parts[i], load(q + 16 * i), total);
      store(place, total);
    }
  }
}

// out[query][dim] += weights[query] . values of the keys [begin, end) of a tile, for N * 16
// dimensions from `from` on and ROWS queries.
template <int N, int ROWS>
RTP_TARGET void add_values(const uint16_t* plane, const int64_t* offsets, int begin, int end,
                           int dim, const float* weights, float* out) {
  F total[ROWS][N];
#pragma GCC unroll 4
  for (int r = 0; r < ROWS; r++)
#pragma GCC unroll 4
    for (int i = 0; i < N; i++) total[r][i] = load(out + r * dim + 16 * i);
  for (int key = begin; key < end; key++) {
    const uint16_t* at = plane + offsets[key];
    F parts[N];
#pragma GCC unroll 4
    for (int i = 0; i < N; i++) parts[i] = load_bf16(at + 16 * i);
#pragma GCC unroll 4
    for (int r = 0; r < ROWS; r++) {
      const F weight = splat(weights[r * kTile + key]);
#pragma GCC unroll 4
      for (int i = 0; i < N; i++) total[r][i] = fma(parts[i], weight, total[r][i]);
    }
  }
#pragma GCC unroll 4
  for (int r = 0; r < ROWS; r++)
#pragma GCC unroll 4
    for (int i = 0; i < N; i++) store(out + r * dim + 16 * i, total[r][i]);
}

template <int N>
RTP_TARGET void add_values_of_rows(int rows, const uint16_t* plane, const int64_t* offsets,
                                   int begin, int end, int dim, const float* weights,
                                   float* out) {
  switch (rows) {
    case 1: return add_values<N, 1>(plane, offsets, begin, end, dim, weights, out);
    case 2: return add_values<N, 2>(plane, offsets, begin, end, dim, weights, out);
    case 3: return add_values<N, 3>(plane, offsets, begin, end, dim, weights, out);
    default: return add_values<N, 4>(plane, offsets, begin, end, dim, weights, out);
  }
}

// Scores that a query must not see become -inf: keys after it, keys its window has left
// behind, new tokens that are not its ancestors in a tree. In a tree, the window counts from
// ancestor to child.
RTP_INLINE void hide(const AttentionCall& call, const AttentionItem& item, int position,
                     int token, int key, float* scores) {
  const AttentionRow& row = call.plan->rows[item.row];
  const int past = row.num_keys - row.num_new;
  const int window = call.shape->window;
  const int lowest = window > 0 && position - window + 1 > item.key_begin
                         ? position - window + 1
                         : item.key_begin;
  const bool tree = row.tree >= 0 && key + 16 > past;
  if (!tree && key >= lowest && key + 15 <= position) return;
  for (int i = 0; i < 16; i++) {
    const int at = key + i;
    bool seen = at >= lowest && at < item.key_end && at <= position;
    if (tree && at >= past && at < item.key_end)
      seen = (call.plan->trees[row.tree + token] >> (at - past) & 1) &&
             (window == 0 || position - position_of(call, row, at - past) < window);
    if (!seen) scores[i] = -INFINITY;
  }
}

// scores [count, kTile] of the tile's keys, 16 at a time. Meanwhile the tile's values and the
// keys of the tile that follows in `offsets` are fetched.
RTP_TARGET void score_tile(const AttentionCall& call, const AttentionItem& item, int tile,
                           const int64_t* offsets, const Queries& queries, float* scores) {
  const AttentionShape& shape = *call.shape;
  const uint16_t* plane = call.keys + item.kv_head * call.head_stride;
  const uint16_t* values = call.values + item.kv_head * call.head_stride;
  alignas(64) float sums[kQueries * 256];
  for (int part = 0; part < kTile; part += 16) {
    const int key = tile + part;
    if (key + 16 <= item.key_begin || key >= item.key_end) {
      for (int query = 0; query < item.count; query++)
        store(scores + query * kTile + part, splat(-INFINITY));
      continue;
    }
    prefetch_slots(values, offsets + part, shape.dim);
    if (tile + kTile < item.key_end) prefetch_slots(plane, offsets + kTile + part, shape.dim);
    for (int from = 0; from < shape.dim; from += kBlock) {
      const int rest = shape.dim - from;
      const int64_t* at = offsets + part;
      if (rest >= 64) add_products<4>(plane, at, from, shape.dim, queries, item.count, sums);
      else if (rest == 48) add_products<3>(plane, at, from, shape.dim, queries, item.count, sums);
      else if (rest == 32) add_products<2>(plane, at, from, shape.dim, queries, item.count, sums);
      else add_products<1>(plane, at, from, shape.dim, queries, item.count, sums);
    }
    for (int query = 0; query < item.count; query++) {
      F score = sums_of_rows(sums + query * 256);
      if (shape.softcap > 0.0f) {
        const F cap = splat(shape.softcap);
        score = mul(cap, hyperbolic_tangent(div(score, cap)));
      }
      float* place = scores + query * kTile + part;
      store(place, score);
      hide(call, item, queries.position[query], queries.token[query], key, place);
    }
  }
}

// Turns a query's scores of a tile into weights against the largest score so far, and its
// sums with them.
RTP_TARGET void weigh(float* scores, float* peak, float* total, float* values, int dim) {
  F highest = load(scores);
  for (int i = 16; i < kTile; i += 16) highest = max(highest, load(scores + i));
  const float tile_peak = largest(highest);
  float now = tile_peak > *peak ? tile_peak : *peak;
  // Nothing seen yet: weights are zero then, or NaN, which must not get lost.
  if (now == -INFINITY) now = 0.0f;
  F tile_total = zero();
  for (int i = 0; i < kTile; i += 16) {
    F weight = exponential(sub(load(scores + i), splat(now)));
    store(scores + i, weight);
    tile_total = add(tile_total, weight);
  }
  if (tile_peak > *peak) {
    alignas(64) float factor[16];
    store(factor, exponential(splat(*peak - now)));
    *total *= factor[0];
    for (int i = 0; i < dim; i += 16) store(values + i, mul(load(values + i), splat(factor[0])));
    *peak = now;
  }
  *total += sum(tile_total);
}

RTP_TARGET void add_tile_values(const AttentionCall& call, const AttentionItem& item, int tile,
                                const int64_t* offsets, const float* weights, float* out) {
  const int dim = call.shape->dim;
  const int begin = item.key_begin > tile ? item.key_begin - tile : 0;
  const int end = item.key_end - tile < kTile ? item.key_end - tile : kTile;
  for (int from = 0; from < dim; from += kBlock) {
    const uint16_t* plane = call.values + item.kv_head * call.head_stride + from;
    const int rest = dim - from;
    for (int query = 0; query < item.count; query += kAttentionRows) {
      const int left = item.count - query;
      const int rows = left < kAttentionRows ? left : kAttentionRows;
      const float* w = weights + query * kTile;
      float* o = out + query * dim + from;
      if (rest >= 64) add_values_of_rows<4>(rows, plane, offsets, begin, end, dim, w, o);
      else if (rest == 48) add_values_of_rows<3>(rows, plane, offsets, begin, end, dim, w, o);
      else if (rest == 32) add_values_of_rows<2>(rows, plane, offsets, begin, end, dim, w, o);
      else add_values_of_rows<1>(rows, plane, offsets, begin, end, dim, w, o);
    }
  }
}

RTP_TARGET void attend(const AttentionCall& call, const AttentionItem& item, float* partial) {
  const int dim = call.shape->dim, count = item.count;
  float *peaks = partial, *totals = partial + count, *values = partial + 2 * count;
  Queries queries;
  load_queries(call, item, true, &queries);
  for (int query = 0; query < count; query++) peaks[query] = -INFINITY;
  std::memset(totals, 0, sizeof(float) * count * (dim + 1));
  alignas(64) float scores[kQueries * kTile];
  int64_t offsets[2 * kTile];  // of a tile and the next
  const int first = item.key_begin / kTile * kTile;
  find_keys(call, item, first, offsets + kTile);
  for (int tile = first; tile < item.key_end; tile += kTile) {
    std::memcpy(offsets, offsets + kTile, sizeof(int64_t) * kTile);
    find_keys(call, item, tile + kTile, offsets + kTile);
    score_tile(call, item, tile, offsets, queries, scores);
    for (int query = 0; query < count; query++)
      weigh(scores + query * kTile, peaks + query, totals + query, values + query * dim, dim);
    add_tile_values(call, item, tile, offsets, scores, values);
  }
}

// Sums of the splits, each with the weight its largest score has beside the largest of all.
RTP_TARGET void merge_query(const AttentionCall& call, const AttentionItem& item,
                            const float* partials, int query, int64_t offset) {
  const int dim = call.shape->dim, count = item.count;
  const int64_t size = partial_size(count, dim);
  float peak = -INFINITY;
  for (int split = 0; split < item.splits; split++) {
    const float one = partials[split * size + query];
    peak = one > peak ? one : peak;
  }
  float total = 0.0f;
  alignas(64) float values[kMostDim] = {};
  for (int split = 0; split < item.splits; split++) {
    const float* partial = partials + split * size;
    const float one = partial[query];
    if (one == -INFINITY && partial[count + query] == 0.0f) continue;
    alignas(64) float factor[16];
    store(factor, exponential(splat(one - peak)));
    total += partial[count + query] * factor[0];
    const float* part = partial + 2 * count + query * dim;
    for (int i = 0; i < dim; i += 16)
      store(values + i, add(load(values + i), mul(load(part + i), splat(factor[0]))));
  }
  // Without any visible key the result is zero.
  const F divisor = splat(total == 0.0f ? 1.0f : total);
  for (int i = 0; i < dim; i += 16)
    store_bf16(call.out + offset * dim + i, div(load(values + i), divisor));
  if (call.lse != nullptr) call.lse[offset] = peak + std::log(total);
}

RTP_TARGET void merge(const AttentionCall& call, const AttentionItem& item,
                      const float* partials) {
  Queries queries;
  load_queries(call, item, false, &queries);
  for (int query = 0; query < item.count; query++)
    merge_query(call, item, partials, query, queries.offset[query]);
}

}  // namespace
