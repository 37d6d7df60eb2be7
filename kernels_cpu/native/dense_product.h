// Products with bfloat16 weights, rows as torch holds them, of one instruction set; included
// after a simd_*.h. The weights are read from memory once for every four rows of x.
#pragma once
#include "row_norm.h"

namespace {

constexpr int kAtOnce = 4;  // outputs whose weights are read side by side

RTP_TARGET void widen_row(const LinearCall& call, const PreparedRows& rows, int row) {
  const int columns = call.weight->columns;
  const uint16_t* x = call.x + static_cast<size_t>(row) * columns;
  float* wide = rows.wide + static_cast<size_t>(row) * columns;
  const F inverse = call.norm.weight == nullptr ? zero() : splat(inverse_rms(call, x, columns));
  for (int at = 0; at < columns; at += kGroup) {
    store(wide + at, normed(call, x, at, inverse));
    store(wide + at + 16, normed(call, x, at + 16, inverse));
  }
}

// out[r] = up to 16 outputs of row r, from weights [count, columns].
template <int ROWS>
RTP_TARGET void dense_product(const uint16_t* weights, int count, int columns, const float* x,
                              F* out) {
  alignas(64) float sums[ROWS * kPanel * 16];
  for (int first = 0; first < kPanel; first += kAtOnce) {
    // Where there are fewer outputs the last one is taken again.
    const uint16_t* row[kAtOnce];
    for (int i = 0; i < kAtOnce; i++) {
      const int output = first + i < count ? first + i : count - 1;
      row[i] = weights + static_cast<size_t>(output) * columns;
    }
    F total[ROWS][kAtOnce];
#pragma GCC unroll 4
    for (int r = 0; r < ROWS; r++)
#pragma GCC unroll 4
      for (int i = 0; i < kAtOnce; i++) total[r][i] = zero();
    for (int at = 0; at < columns; at += 16) {
#pragma GCC unroll 4
      for (int i = 0; i < kAtOnce; i++) {
        if (at % 32 == 0) __builtin_prefetch(row[i] + at + static_cast<size_t>(columns) * kAtOnce);
        const F weight = load_bf16(row[i] + at);
#pragma GCC unroll 4
        for (int r = 0; r < ROWS; r++)
          total[r][i] = fma(weight, load(x + static_cast<size_t>(r) * columns + at), total[r][i]);
      }
    }
#pragma GCC unroll 4
    for (int r = 0; r < ROWS; r++)
#pragma GCC unroll 4
      for (int i = 0; i < kAtOnce; i++) store(sums + (r * kPanel + first + i) * 16, total[r][i]);
  }
#pragma GCC unroll 4
  for (int r = 0; r < ROWS; r++) out[r] = sums_of_rows(sums + r * kPanel * 16);
}

RTP_TARGET void dense_products(const uint16_t* weights, int count, int columns, const float* x,
                               int rows, F* out) {
  for (int row = 0; row < rows; row += kDenseRows) {
    const float* from = x + static_cast<size_t>(row) * columns;
    switch (rows - row < kDenseRows ? rows - row : kDenseRows) {
      case 1: dense_product<1>(weights, count, columns, from, out + row); break;
      case 2: dense_product<2>(weights, count, columns, from, out + row); break;
      case 3: dense_product<3>(weights, count, columns, from, out + row); break;
      default: dense_product<4>(weights, count, columns, from, out + row); break;
    }
  }
}

}  // namespace
