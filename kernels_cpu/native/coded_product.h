// Products with 4- and 8-bit codes of one instruction set; included after a simd_*.h.
#pragma once
#include "row_norm.h"

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

// One row to bytes in groups of 32. A group with a value that is not finite gets the scale
// NaN, and so the row's results are NaN; one of almost nothing is taken for zero.
RTP_TARGET void quantize_row(const LinearCall& call, const PreparedRows& rows, int row) {
  const int columns = call.weight->columns, groups = columns / kGroup;
  const int correction = code_correction(call.weight->bits, call.weight->has_minimum);
  const uint16_t* x = call.x + static_cast<size_t>(row) * columns;
  int8_t* codes = rows.codes + static_cast<size_t>(row) * columns;
  const size_t first = static_cast<size_t>(row) * groups;
  const F inverse = call.norm.weight == nullptr ? zero() : splat(inverse_rms(call, x, columns));
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

// acc[r] = 16 outputs of row r, for ROWS rows from `row` on.
template <int BITS, bool MINIMUM, int ROWS>
RTP_TARGET void product(const uint8_t* panel, int groups, const PreparedRows& x, int row,
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

using Product = void (*)(const uint8_t*, int, const PreparedRows&, int, F*);

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

}  // namespace
