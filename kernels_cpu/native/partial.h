// Fewer than sixteen lanes of memory; included after a simd_*.h.
#pragma once
#include <cstring>

#include "operations.h"

namespace {

// Sixteen bf16 values from `p`, zero where there are fewer than `count`.
RTP_INLINE F load_some(const uint16_t* p, int count) {
  if (count == kPanel) return load_bf16(p);
  uint16_t lanes[kPanel] = {};
  std::memcpy(lanes, p, sizeof(uint16_t) * count);
  return load_bf16(lanes);
}

RTP_INLINE void store_some(uint16_t* p, F x, int count) {
  if (count == kPanel) return store_bf16(p, x);
  uint16_t lanes[kPanel];
  store_bf16(lanes, x);
  std::memcpy(p, lanes, sizeof(uint16_t) * count);
}

RTP_INLINE void store_some(float* p, F x, int count) {
  if (count == kPanel) return store(p, x);
  float lanes[kPanel];
  store(lanes, x);
  std::memcpy(p, lanes, sizeof(float) * count);
}

}  // namespace
