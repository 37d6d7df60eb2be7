// The linear layers of one instruction set; included after a simd_*.h.
#pragma once
#include <cmath>
#include <cstring>

#include "functions.h"
#include "operations.h"

namespace {

// Bytes between the weights in use and those asked for: about 100 ns of one core's bandwidth.
// Panels follow one another, so what is past a panel is wanted next.
constexpr int kAhead = 2560;

RTP_INLINE size_t group_bytes(const Weight& weight) {
  return 64 * weight.bits + (weight.has_minimum ? 64 : 32);
}

// What has to be added to each code that group_dot multiplies, to get the centred code.
constexpr int code_correction(int bits, bool has_minimum) {
  const int centre = has_minimum ? 0 : bits == 8 ? 128 : 8;
  return (bits == 8 ? kByteShift : 0) - centre;
}

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

// One row to bytes in groups of 32. A group with a value that is not finite gets the scale
// NaN, and so the row's results are NaN; one of almost nothing is taken for zero.
RTP_TARGET void quantize_row(const LinearCall& call, const QuantizedRows& rows, int row) {
  const int columns = call.weight->columns, groups = columns / kGroup;
  const int correction = code_correction(call.weight->bits, call.weight->has_minimum);
  const uint16_t* x = call.x + static_cast<size_t>(row) * columns;
  int8_t* codes = rows.codes + static_cast<size_t>(row) * columns;
  const size_t first = static_cast<size_t>(row) * groups;
  const F inverse = call.norm == nullptr ? zero() : splat(inverse_rms(call, x, columns));
  for (int group = 0; group < groups; group++) {
    const int at = group * kGroup;
    F a = normed(call, x, at, inverse), b = normed(call, x, at + 16, inverse);
    uint32_t bits = peak_bits(a, b);
    float peak, scale = NAN, factor = 0.0f;
    std::memcpy(&peak, &bits, 4);
    if (bits < 0x7f800000u) {
      scale = peak < 1e-30f ? 0.0f : peak / 127.0f;
      factor = peak < 1e-30f ? 0.0f : 127.0f / peak;
    } else {
      a = b = zero();
    }
    int32_t total = store_bytes(codes + at, mul(a, splat(factor)), mul(b, splat(factor)));
    rows.scale[first + group] = scale;
    rows.weighted[first + group] = scale * static_cast<float>(total);
    rows.start[first + group] = correction * total;
  }
}

RTP_TARGET void quantize(const LinearCall& call, const QuantizedRows& rows, int begin, int end) {
  for (int row = begin; row < end; row++) quantize_row(call, rows, row);
}

// acc[r] = 16 outputs of row r, for ROWS rows from `row` on.
template <int BITS, bool MINIMUM, int ROWS>
RTP_TARGET void product(const uint8_t* panel, int groups, const QuantizedRows& x, int row,
                        F* out) {
  F acc[ROWS];
#pragma GCC unroll 8
  for (int r = 0; r < ROWS; r++) acc[r] = zero();
  const size_t first = static_cast<size_t>(row) * groups;
  const int8_t* codes = x.codes + first * kGroup;
  const float *scales = x.scale + first, *weighted = x.weighted + first;
  const int32_t* starts = x.start + first;
  const size_t stride = static_cast<size_t>(groups);
  for (int group = 0; group < groups; group++) {
#pragma GCC unroll 10
    for (int line = 0; line < 64 * (BITS + 1); line += 64)
      __builtin_prefetch(panel + kAhead + line);
    const Codes weights = load_codes<BITS>(panel);
    panel += 64 * BITS;
    const F scale = load_half(reinterpret_cast<const uint16_t*>(panel));
    const F minimum =
        MINIMUM ? load_half(reinterpret_cast<const uint16_t*>(panel + 32)) : zero();
    panel += MINIMUM ? 64 : 32;
#pragma GCC unroll 8
    for (int r = 0; r < ROWS; r++) {
      const size_t at = r * stride + group;
      constexpr bool corrected = code_correction(BITS, MINIMUM) != 0;
      F dot = group_dot<BITS>(weights, codes + at * kGroup, corrected ? starts[at] : 0);
      acc[r] = fma(mul(dot, splat(scales[at])), scale, acc[r]);
      if (MINIMUM) acc[r] = fma(minimum, splat(weighted[at]), acc[r]);
    }
  }
#pragma GCC unroll 8
  for (int r = 0; r < ROWS; r++) out[r] = acc[r];
}

using Product = void (*)(const uint8_t*, int, const QuantizedRows&, int, F*);

template <int BITS, bool MINIMUM>
RTP_TARGET Product product_for(int rows) {
  static constexpr Product table[8] = {
      product<BITS, MINIMUM, 1>, product<BITS, MINIMUM, 2>, product<BITS, MINIMUM, 3>,
      product<BITS, MINIMUM, 4>, product<BITS, MINIMUM, 5>, product<BITS, MINIMUM, 6>,
      product<BITS, MINIMUM, 7>, product<BITS, MINIMUM, 8>,
  };
  return table[rows - 1];
}

RTP_TARGET Product product_for(const Weight& weight, int rows) {
  if (weight.bits == 4)
    return weight.has_minimum ? product_for<4, true>(rows) : product_for<4, false>(rows);
  return weight.has_minimum ? product_for<8, true>(rows) : product_for<8, false>(rows);
}

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

RTP_INLINE void finish(const LinearCall& call, Form form, F value, int row, int output,
                       int count) {
  const size_t at = static_cast<size_t>(row) * call.weight->rows + output;
  if (call.bias != nullptr) value = add(value, load_some(call.bias + output, count));
  if (form == Form::kLogits) return store_some(static_cast<float*>(call.out) + at, value, count);
  if (call.residual != nullptr) value = add(value, load_some(call.residual + at, count));
  store_some(static_cast<uint16_t*>(call.out) + at, value, count);
}

RTP_INLINE void finish_gated(const LinearCall& call, Activation activation, F gate, F up,
                             int row, int output, int count) {
  const int width = call.weight->rows / 2;
  if (call.bias != nullptr) {
    gate = add(gate, load_some(call.bias + output, count));
    up = add(up, load_some(call.bias + width + output, count));
  }
  gate = activation == Activation::kSilu ? silu(gate) : gelu_tanh(gate);
  const size_t at = static_cast<size_t>(row) * width + output;
  store_some(static_cast<uint16_t*>(call.out) + at, mul(gate, up), count);
}

RTP_TARGET void panels(const LinearCall& call, Form form, Activation activation,
                       const QuantizedRows& rows, int begin, int end) {
  const Weight& weight = *call.weight;
  const int groups = weight.columns / kGroup;
  const size_t panel_bytes = groups * group_bytes(weight);
  const bool gated = form == Form::kGated;
  const int width = gated ? weight.rows / 2 : weight.rows;
  const size_t up_offset = panel_bytes * ((width + kPanel - 1) / kPanel);
  F values[8], ups[8];
  for (int index = begin; index < end; index++) {
    const uint8_t* panel = weight.panels + panel_bytes * index;
    const int output = index * kPanel;
    const int count = width - output < kPanel ? width - output : kPanel;
    for (int row = 0; row < call.tokens; row += kLinearRows) {
      const int some = call.tokens - row < kLinearRows ? call.tokens - row : kLinearRows;
      const Product multiply = product_for(weight, some);
      multiply(panel, groups, rows, row, values);
      if (gated) multiply(panel + up_offset, groups, rows, row, ups);
      for (int r = 0; r < some; r++) {
        if (gated)
          finish_gated(call, activation, values[r], ups[r], row + r, output, count);
        else
          finish(call, form, values[r], row + r, output, count);
      }
    }
  }
}

}  // namespace
