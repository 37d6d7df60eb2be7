// The rows of a linear layer, normed if asked; included after a simd_*.h.
#pragma once
#include <cmath>
#include <cstring>

#include "operations.h"

namespace {

RTP_INLINE F normed(const LinearCall& call, const uint16_t* x, int at, F inverse) {
  F value = load_bf16(x + at);
  if (call.norm == nullptr) return value;
  F weight = add(load_bf16(call.norm + at), splat(call.norm_offset));
  return mul(mul(value, inverse), weight);
}

RTP_INLINE float inverse_rms(const LinearCall& call, const uint16_t* x, int columns) {
  F even = zero(), odd = zero();
  for (int at = 0; at < columns; at += kGroup) {
    F a = load_bf16(x + at), b = load_bf16(x + at + 16);
    even = fma(a, a, even);
    odd = fma(b, b, odd);
  }
  return 1.0f / std::sqrt(sum(add(even, odd)) / static_cast<float>(columns) + call.eps);
}

}  // namespace
