// Sixteen lanes with AVX-512 and VNNI: one register each.
//
// Every simd_*.h gives the same operations with the same rounding and the same order of
// additions, so that all levels compute the same bits.
#pragma once
#include <immintrin.h>

#include <cstdint>

// Files for processors that have more name it in RTP_MORE, with a leading comma.
#ifndef RTP_MORE
#define RTP_MORE ""
#endif
#define RTP_TARGET \
  __attribute__((target("avx512f,avx512bw,avx512vl,avx512dq,avx512vnni,avx2,fma,f16c" RTP_MORE)))
#define RTP_INLINE static inline __attribute__((always_inline)) RTP_TARGET

namespace {

using F = __m512;
using I = __m512i;

constexpr int kLinearRows = 8;     // rows of a product kernel, with codes
constexpr int kDenseRows = 4;      // and with bf16 weights
constexpr int kAttentionRows = 4;  // query rows of the value kernel
constexpr int kByteShift = 0;      // what group_dot<8> takes off each code

RTP_INLINE F zero() { return _mm512_setzero_ps(); }
RTP_INLINE F splat(float x) { return _mm512_set1_ps(x); }
RTP_INLINE F load(const float* p) { return _mm512_loadu_ps(p); }
RTP_INLINE void store(float* p, F x) { _mm512_storeu_ps(p, x); }
RTP_INLINE F add(F a, F b) { return _mm512_add_ps(a, b); }
RTP_INLINE F sub(F a, F b) { return _mm512_sub_ps(a, b); }
RTP_INLINE F mul(F a, F b) { return _mm512_mul_ps(a, b); }
RTP_INLINE F div(F a, F b) { return _mm512_div_ps(a, b); }
RTP_INLINE F fma(F a, F b, F c) { return _mm512_fmadd_ps(a, b, c); }
// A NaN in the second operand is kept by both.
RTP_INLINE F max(F a, F b) { return _mm512_max_ps(a, b); }
RTP_INLINE F min(F a, F b) { return _mm512_min_ps(a, b); }
RTP_INLINE F round(F x) { return _mm512_roundscale_ps(x, 8); }
RTP_INLINE F times_power_of_two(F x, F n) { return _mm512_scalef_ps(x, n); }
RTP_INLINE F zero_below(F x, float bound, F value) {
  __mmask16 low = _mm512_cmp_ps_mask(x, splat(bound), _CMP_LT_OQ);
  return _mm512_mask_mov_ps(value, low, zero());
}

RTP_INLINE F load_bf16(const uint16_t* p) {
  __m512i wide = _mm512_cvtepu16_epi32(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(p)));
  return _mm512_castsi512_ps(_mm512_slli_epi32(wide, 16));
}
RTP_INLINE F load_half(const uint16_t* p) {
  return _mm512_cvtph_ps(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(p)));
}
RTP_INLINE void store_bf16(uint16_t* p, F x) {
  __m512i bits = _mm512_castps_si512(x);
  __m512i odd = _mm512_and_si512(_mm512_srli_epi32(bits, 16), _mm512_set1_epi32(1));
  __m512i sum = _mm512_add_epi32(bits, _mm512_add_epi32(odd, _mm512_set1_epi32(0x7fff)));
  __mmask16 nan = _mm512_cmp_ps_mask(x, x, _CMP_UNORD_Q);
  sum = _mm512_mask_mov_epi32(sum, nan, _mm512_set1_epi32(0x7fc00000));
  _mm256_storeu_si256(reinterpret_cast<__m256i*>(p),
                      _mm512_cvtepi32_epi16(_mm512_srli_epi32(sum, 16)));
}

RTP_INLINE float sum(F x) {
  __m256 eight = _mm256_add_ps(_mm512_castps512_ps256(x), _mm512_extractf32x8_ps(x, 1));
  __m128 four = _mm_add_ps(_mm256_castps256_ps128(eight), _mm256_extractf128_ps(eight, 1));
  __m128 two = _mm_add_ps(four, _mm_movehl_ps(four, four));
  return _mm_cvtss_f32(_mm_add_ss(two, _mm_movehdup_ps(two)));
}
RTP_INLINE float largest(F x) { return _mm512_reduce_max_ps(x); }

// Largest magnitude of both, as bits: a NaN has the largest.
RTP_INLINE uint32_t peak_bits(F a, F b) {
  const __m512i mask = _mm512_set1_epi32(0x7fffffff);
  __m512i both = _mm512_max_epi32(_mm512_and_si512(_mm512_castps_si512(a), mask),
                                  _mm512_and_si512(_mm512_castps_si512(b), mask));
  return static_cast<uint32_t>(_mm512_reduce_max_epi32(both));
}
// Rounds 32 values of magnitude 127 at most to bytes; returns their sum.
RTP_INLINE int32_t store_bytes(int8_t* p, F a, F b) {
  __m512i first = _mm512_cvtps_epi32(a), second = _mm512_cvtps_epi32(b);
  _mm_storeu_si128(reinterpret_cast<__m128i*>(p), _mm512_cvtepi32_epi8(first));
  _mm_storeu_si128(reinterpret_cast<__m128i*>(p + 16), _mm512_cvtepi32_epi8(second));
  return _mm512_reduce_add_epi32(_mm512_add_epi32(first, second));
}

// The codes of 16 outputs and 32 inputs: vector j holds inputs 4j ... 4j + 3 of each output.
struct Codes {
  __m512i v[8];
};
template <int BITS>
RTP_INLINE Codes load_codes(const uint8_t* p) {
  Codes codes;
  const __m512i low = _mm512_set1_epi8(15);
#pragma GCC unroll 8
  for (int j = 0; j < 8; j++) {
    if (BITS == 8) {
      codes.v[j] = _mm512_loadu_si512(p + 64 * j);
    } else if (j < 4) {
      __m512i packed = _mm512_loadu_si512(p + 64 * j);
      codes.v[j] = _mm512_and_si512(packed, low);
      codes.v[j + 4] = _mm512_and_si512(_mm512_srli_epi16(packed, 4), low);
    }
  }
  return codes;
}
// start + sum over 32 inputs of code * x.
template <int BITS>
RTP_INLINE F group_dot(const Codes& codes, const int8_t* x, int32_t start) {
  const int32_t* four = reinterpret_cast<const int32_t*>(x);
  __m512i even = _mm512_set1_epi32(start), odd = _mm512_setzero_si512();
#pragma GCC unroll 4
  for (int j = 0; j < 8; j += 2) {
    even = _mm512_dpbusd_epi32(even, codes.v[j], _mm512_set1_epi32(four[j]));
    odd = _mm512_dpbusd_epi32(odd, codes.v[j + 1], _mm512_set1_epi32(four[j + 1]));
  }
  return _mm512_cvtepi32_ps(_mm512_add_epi32(even, odd));
}

// Lane i of the result is the sum of the lanes of rows[16 * i ...], added in a fixed tree:
// lanes 8 apart, then 4, 2 and 1.
RTP_INLINE F sums_of_rows(const float* rows) {
  F part[8];
#pragma GCC unroll 8
  for (int i = 0; i < 8; i++) {
    F a = load(rows + 16 * i), b = load(rows + 16 * (i + 8));
    part[i] = add(_mm512_shuffle_f32x4(a, b, 0x44), _mm512_shuffle_f32x4(a, b, 0xee));
  }
#pragma GCC unroll 4
  for (int i = 0; i < 4; i++) {
    F a = part[i], b = part[i + 4];
    part[i] = add(_mm512_shuffle_f32x4(a, b, 0x88), _mm512_shuffle_f32x4(a, b, 0xdd));
  }
  // Each of the four quarters of part[i] now holds four partial sums of rows i, i + 8, i + 4
  // and i + 12 in this order.
#pragma GCC unroll 2
  for (int i = 0; i < 2; i++) {
    F a = part[i], b = part[i + 2];
    part[i] = add(_mm512_shuffle_ps(a, b, 0x44), _mm512_shuffle_ps(a, b, 0xee));
  }
  F a = part[0], b = part[1];
  F done = add(_mm512_shuffle_ps(a, b, 0x88), _mm512_shuffle_ps(a, b, 0xdd));
  // Quarter q, lane l: row offset(q) + {0, 2, 1, 3}[l].
  const __m512i order = _mm512_setr_epi32(0, 2, 1, 3, 8, 10, 9, 11, 4, 6, 5, 7, 12, 14, 13, 15);
  return _mm512_permutexvar_ps(order, done);
}

}  // namespace
