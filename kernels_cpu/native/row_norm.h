// The rows of a linear layer, normed if asked; included after a simd_*.h.
#pragma once
#include <cmath>
#include <cstring>

#include "operations.h"

namespace {

RTP_INLINE F norm_weights(const Norm& norm, int at, float offset) {
  F weight = norm.wide ? load(static_cast<const float*>(norm.weight) + at)
                       : load_bf16(static_cast<const uint16_t*>(norm.weight) + at);
  return add(weight, splat(offset));
}

RTP_INLINE F normed(const LinearCall& call, const uint16_t* x, int at, F inverse) {
  F value = load_bf16(x + at);
  if (call.norm.weight == nullptr) return value;
  return mul(mul(value, inverse), norm_weights(call.norm, at, call.norm_offset));
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
