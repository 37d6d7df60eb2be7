// Attention of many new tokens of a row, in matrix products of bf16.
#pragma once
#include "operations.h"

// Rows with more new tokens than this are taken here, where the processor has a kernel.
constexpr int kFewTokens = 16;
// Queries of an item, keys between two corrections of the softmax, keys of a packed group.
constexpr int kQueryBlock = 32, kKeyBlock = 128, kKeyGroup = 32;

// The keys [begin, begin + padded) of one row and KV head, repacked; zeros past the row's last.
// Keys: [padded, key_width], dimensions padded with zeros to a multiple of 32. Values:
// [padded / 32, dim, 32], transposed within a group of keys.
struct PackedKeys {
  int32_t row, kv_head;
  int32_t begin, padded;  // multiples of kKeyBlock and kKeyGroup
  uint16_t *keys, *values;
};

inline int key_width(const AttentionShape& shape) { return (shape.dim + 31) / 32 * 32; }

struct PrefillKernel {
  const char* name;
  // Groups [begin, end) of the keys.
  void (*pack)(const AttentionCall& call, const PackedKeys& packed, int begin, int end);
  // The query rows (token-major, query heads of the KV head) from `first` on.
  void (*attend)(const AttentionCall& call, const PackedKeys& packed, int first);
  // Frees what the kernel holds of the processor in this thread.
  void (*leave)();
};

#if defined(__x86_64__)
// Null where the compiler does not know the instructions.
const PrefillKernel* amx_prefill();
const PrefillKernel* avx512_bf16_prefill();
#endif

// Kernels by index as `available_level`; null past the last, perhaps at once.
const PrefillKernel* available_prefill(int index);
// The best, until `use_prefill` names another, or none with "". False if it cannot run here.
const PrefillKernel* current_prefill();
bool use_prefill(const char* name);

inline bool is_long(const AttentionRow& row) { return row.tree < 0 && row.num_new > kFewTokens; }

// Attention of the long rows of a call. False when memory is short.
bool attend_long_rows(const AttentionCall& call, const PrefillKernel& kernel);
