// What the operations take, and the table of one instruction set's kernels.
#pragma once
#include <cstdint>

// Inputs are quantized and weights stored in groups of 32 along the input dimension; outputs
// are taken 16 at a time (a panel).
constexpr int kGroup = 32;
constexpr int kPanel = 16;

// A packed matrix [rows, columns]. Mirrored by `rtp_kernels_cpu/library.py`.
//
// Panels follow one another; in a panel, groups. A group has its codes (256 bytes for 4 bits,
// 512 for 8), 16 scales and, if any, 16 minima (IEEE half). Code bytes: vector j of 64 bytes
// holds inputs 4j ... 4j + 3 of output 0, then of output 1, ...; with 4 bits, vector j < 4
// has inputs 4j ... in the low and 16 + 4j ... in the high half-bytes. Codes are 0 ... 15 and
// 0 ... 255. Weight = scale * code + minimum, or without minima scale * (code - centre), where
// centre is 8 for 4 bits and 128 for 8.
//
// With 16 bits there are no panels: `panels` is the bf16 matrix itself, never padded.
struct Weight {
  const uint8_t* panels;
  int32_t rows;     // outputs; `parts` equal parts, each padded to whole panels
  int32_t columns;  // inputs, a multiple of 32
  int32_t bits;     // 4, 8 or 16
  int32_t has_minimum;
  int32_t parts;  // 1, or 2: gate rows, then up rows
};

// The weights of an RMS norm: bf16, or float32 if `wide`; null for no norm.
struct Norm {
  const void* weight;
  bool wide;
};

enum class Activation : int32_t { kSilu = 0, kGeluTanh = 1 };

// out = linear(norm(x)) in one of three forms, by which of the pointers are set.
struct LinearCall {
  const Weight* weight;
  const uint16_t* x;     // bf16 [tokens, columns]
  Norm norm;             // [columns], of x
  float eps;
  float norm_offset;         // added to the norm's weights
  const uint16_t* bias;      // bf16 [rows] or null
  const uint16_t* residual;  // bf16 [tokens, rows] or null
  void* out;                 // bf16, or float32 for kLogits
  int32_t tokens;
};

enum class Form : int32_t { kPlain = 0, kGated = 1, kLogits = 2 };

// Activations as the products take them, row after row: `wide` for bf16 weights, the others
// for codes.
struct PreparedRows {
  int8_t* codes;    // [tokens, columns]
  float* scale;     // [tokens, groups]
  float* weighted;  // [tokens, groups]: scale times the sum of the codes
  int32_t* start;   // [tokens, groups]: where sums of products begin, so that they end as those
                    // of the centred codes
  float* wide;      // [tokens, columns]
};

constexpr int kMostDim = 256;

// One layer's attention. Mirrored by `rtp_kernels_cpu/library.py`, as are the next two.
struct AttentionShape {
  int32_t heads, kv_heads;
  int32_t dim;  // a multiple of 16, kMostDim at most
  int32_t block_size;
  int32_t window;  // visible keys, 0: all
  float scale;
  float softcap;      // scores become softcap * tanh(score / softcap); 0: as they are
  float norm_offset;  // added to the weights of the head norms
};

// The new tokens of one sequence: `num_new` from token `begin` of the step on, the last of
// `num_keys` keys. Blocks of the keys are at `table` in the plan's tables, the new tokens'
// masks at `tree` in its trees, -1 if each follows the one before it.
struct AttentionRow {
  int32_t begin, num_new, num_keys, table, tree;
};

// What all layers of a step share. Slots: where a token's key and value go, -1: nowhere.
struct AttentionPlan {
  const AttentionRow* rows;
  const int32_t* tables;
  const int32_t* slots;    // [tokens]
  const uint64_t* trees;   // bit j: may the token see new token j of its row
  const float *cos, *sin;  // [tokens, rotary], sin signed for the swap of halves
  int32_t num_tokens, num_rows, rotary;
};

struct AttentionCall {
  const AttentionShape* shape;
  const AttentionPlan* plan;
  const uint16_t* qkv;      // bf16 [tokens, heads + 2 * kv_heads, dim]
  uint16_t *keys, *values;  // bf16 planes [kv_heads, slots, dim], heads `head_stride` apart
  int64_t head_stride;
  Norm q_norm, k_norm;  // [dim]
  float eps;
  const uint16_t* queries;  // bf16 [tokens, heads, dim], rotated
  uint16_t* out;            // bf16 [tokens, heads, dim]; may be `queries`
  float* lse;               // [tokens, heads] or null
};

// Query rows (token-major, query heads of one KV head) attended to together, at most.
constexpr int kQueries = 16;
// Keys of a split, aligned at key 0: results of a row do not depend on who computes what.
constexpr int kSplit = 256;

// Some queries of a row and KV head against the keys of one split.
struct AttentionItem {
  int32_t row, kv_head;
  int32_t first, count;  // query rows
  int32_t key_begin, key_end;
  int32_t set, splits, split;  // which items belong together, how many, which of them
  int64_t partial;             // where the set's partial results begin
};

// A partial result: for each query row the largest score, the sum of the weights and the
// weighted sum of the values [dim].
constexpr int64_t partial_size(int count, int dim) {
  return static_cast<int64_t>(count) * (dim + 2);
}

// Elementwise operations of many rows.
struct NormCall {
  const uint16_t* x;  // bf16 [rows, columns]
  Norm norm;
  float eps;
  const uint16_t* residual;  // bf16 [rows, columns], added to the result, or null
  uint16_t* out;             // bf16 [rows, columns]
  int32_t rows, columns;
};

struct GateCall {
  const uint16_t* both;  // bf16 [rows, 2 * width]: the gate's columns, then those it gates
  uint16_t* out;         // bf16 [rows, width]
  Activation activation;
  int32_t rows, width;
};

struct Level {
  const char* name;
  // Rows [begin, end) of a call, normed if asked.
  void (*prepare)(const LinearCall& call, const PreparedRows& rows, int begin, int end);
  // Panels [begin, end) of a call for all tokens. In the gated form panel i stands for gate
  // panel i with up panel i.
  void (*panels)(const LinearCall& call, Form form, Activation activation,
                 const PreparedRows& rows, int begin, int end);
  // Rotated queries of tokens [begin, end) to `rotated`, keys and values to their slots.
  void (*rotate)(const AttentionCall& call, uint16_t* rotated, int begin, int end);
  void (*attend)(const AttentionCall& call, const AttentionItem& item, float* partial);
  // The result of a set from its partial results, which lie behind one another.
  void (*merge)(const AttentionCall& call, const AttentionItem& item, const float* partials);
  // Rows [begin, end).
  void (*norm_rows)(const NormCall& call, int begin, int end);
  void (*gate_rows)(const GateCall& call, int begin, int end);
};
