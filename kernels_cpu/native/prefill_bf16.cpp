// The multiply-add of bf16 pairs of AVX-512, for processors without matrix tiles.
#include "prefill.h"

#if defined(__x86_64__)
#if __has_include(<avx512bf16intrin.h>)
#define RTP_MORE ",avx512bf16"
#include "simd_avx512.h"
// Kernels are written in the operations of the header above.
#include "prefill_kernel.h"

namespace {

constexpr int kAtOnce = 8;  // rows of the left factor: 16 results in registers

RTP_INLINE void enter() {}
RTP_TARGET void leave() {}

RTP_INLINE __m512bh as_bf16(__m512i pairs) {
  __m512bh same;
  std::memcpy(&same, &pairs, sizeof same);
  return same;
}

// out [8, queries] += left [8 rows `stride` pairs apart, pairs] by right [pairs, columns].
RTP_INLINE void multiply(const uint32_t* left, size_t stride, int pairs, const uint32_t* right,
                         size_t right_column, size_t right_pair, bool first,
                         float (*out)[kQueryBlock]) {
  F total[kAtOnce][kColumns];
#pragma GCC unroll 8
  for (int i = 0; i < kAtOnce; i++)
#pragma GCC unroll 2
    for (int column = 0; column < kColumns; column++)
      total[i][column] = first ? zero() : load(out[i] + 16 * column);
  for (int pair = 0; pair < pairs; pair++) {
    __m512bh factors[kColumns];
#pragma GCC unroll 2
    for (int column = 0; column < kColumns; column++)
      factors[column] =
          as_bf16(_mm512_load_si512(right + column * right_column + pair * right_pair));
#pragma GCC unroll 8
    for (int i = 0; i < kAtOnce; i++) {
      const __m512bh one = as_bf16(_mm512_set1_epi32(static_cast<int>(left[i * stride + pair])));
#pragma GCC unroll 2
      for (int column = 0; column < kColumns; column++)
        total[i][column] = _mm512_dpbf16_ps(total[i][column], one, factors[column]);
    }
  }
#pragma GCC unroll 8
  for (int i = 0; i < kAtOnce; i++)
#pragma GCC unroll 2
    for (int column = 0; column < kColumns; column++)
      store(out[i] + 16 * column, total[i][column]);
}

RTP_INLINE void score_group(const uint16_t* keys, int width, const Block& block,
                            float (*scores)[kQueryBlock]) {
  const uint32_t* pairs = reinterpret_cast<const uint32_t*>(keys);
  for (int i = 0; i < kKeyGroup; i += kAtOnce)
    multiply(pairs + static_cast<size_t>(i) * width / 2, width / 2, width / 2,
             block.queries[0][0], kMostDim / 2 * 16, 16, true, scores + i);
}

RTP_INLINE void add_group_values(const uint16_t* values, int dim, int groups, bool first,
                                 Block* block) {
  const uint32_t* pairs = reinterpret_cast<const uint32_t*>(values);
  for (int group = 0; group < groups; group++)
    for (int d = 0; d < dim; d += kAtOnce)
      multiply(pairs + (static_cast<size_t>(group) * dim + d) * 16, 16, 16,
               block->weights[16 * group][0], 16, kColumns * 16, first && group == 0,
               block->sums + d);
}

}  // namespace

const PrefillKernel* avx512_bf16_prefill() {
  static const PrefillKernel kernel = {"avx512_bf16", pack, attend, leave};
  return &kernel;
}
#else
const PrefillKernel* avx512_bf16_prefill() { return nullptr; }
#endif
#endif
