// Norms and gates of many rows; included after a simd_*.h.
#pragma once
#include <cmath>

#include "functions.h"
#include "operations.h"
#include "partial.h"

namespace {

RTP_INLINE F load_weights(const Norm& norm, int at, int count) {
  if (!norm.wide) return load_some(static_cast<const uint16_t*>(norm.weight) + at, count);
  const float* weight = static_cast<const float*>(norm.weight) + at;
  if (count == kPanel) return load(weight);
  float lanes[kPanel] = {};
  std::memcpy(lanes, weight, sizeof(float) * count);
  return load(lanes);
}

RTP_INLINE void norm_part(const NormCall& call, size_t row, int at, int count, F inverse) {
  F value = mul(load_some(call.x + row + at, count), inverse);
  value = mul(value, load_weights(call.norm, at, count));
  if (call.residual != nullptr) value = add(value, load_some(call.residual + row + at, count));
  store_some(call.out + row + at, value, count);
}

RTP_TARGET void norm_rows(const NormCall& call, int begin, int end) {
  const int columns = call.columns, whole = columns / kPanel * kPanel;
  for (int index = begin; index < end; index++) {
    const size_t row = static_cast<size_t>(index) * columns;
    const uint16_t* x = call.x + row;
    F even = zero(), odd = zero();
    int at = 0;
    for (; at + 2 * kPanel <= whole; at += 2 * kPanel) {
      const F a = load_bf16(x + at), b = load_bf16(x + at + kPanel);
      even = fma(a, a, even);
      odd = fma(b, b, odd);
    }
    for (; at < columns; at += kPanel) {
      const F rest = load_some(x + at, columns - at < kPanel ? columns - at : kPanel);
      even = fma(rest, rest, even);
    }
    const float mean = sum(add(even, odd)) / static_cast<float>(columns);
    const F inverse = splat(1.0f / std::sqrt(mean + call.eps));
    for (at = 0; at < whole; at += kPanel) norm_part(call, row, at, kPanel, inverse);
    if (whole < columns) norm_part(call, row, whole, columns - whole, inverse);
  }
}

RTP_INLINE void gate_part(const GateCall& call, size_t row, int at, int count) {
  const uint16_t* both = call.both + 2 * row + at;
  F gate = load_some(both, count);
  gate = call.activation == Activation::kSilu ? silu(gate) : gelu_tanh(gate);
  store_some(call.out + row + at, mul(gate, load_some(both + call.width, count)), count);
}

RTP_TARGET void gate_rows(const GateCall& call, int begin, int end) {
  const int width = call.width, whole = width / kPanel * kPanel;
  for (int index = begin; index < end; index++) {
    const size_t row = static_cast<size_t>(index) * width;
    for (int at = 0; at < whole; at += kPanel) gate_part(call, row, at, kPanel);
    if (whole < width) gate_part(call, row, whole, width - whole);
  }
}

}  // namespace
