// Sixteen lanes with AVX2, FMA and F16C: two registers each. See simd_avx512.h.
//
// With RTP_AVX_VNNI the multiply-add pairs become the VNNI instruction for 256 bits.
#pragma once
#include <immintrin.h>

#include <cstdint>

#ifdef RTP_AVX_VNNI
#define RTP_TARGET __attribute__((target("avx2,fma,f16c,avxvnni")))
#else
#define RTP_TARGET __attribute__((target("avx2,fma,f16c")))
#endif
#define RTP_INLINE static inline __attribute__((always_inline)) RTP_TARGET

namespace {

struct F {
  __m256 lo, hi;
};

constexpr int kLinearRows = 4;
constexpr int kDenseRows = 1;
constexpr int kAttentionRows = 1;
#ifdef RTP_AVX_VNNI
constexpr int kByteShift = 0;
#else
constexpr int kByteShift = 128;
#endif

RTP_INLINE F zero() { return {_mm256_setzero_ps(), _mm256_setzero_ps()}; }
RTP_INLINE F splat(float x) { return {_mm256_set1_ps(x), _mm256_set1_ps(x)}; }
RTP_INLINE F load(const float* p) { return {_mm256_loadu_ps(p), _mm256_loadu_ps(p + 8)}; }
RTP_INLINE void store(float* p, F x) {
  _mm256_storeu_ps(p, x.lo);
  _mm256_storeu_ps(p + 8, x.hi);
}
RTP_INLINE F add(F a, F b) { return {_mm256_add_ps(a.lo, b.lo), _mm256_add_ps(a.hi, b.hi)}; }
RTP_INLINE F sub(F a, F b) { return {_mm256_sub_ps(a.lo, b.lo), _mm256_sub_ps(a.hi, b.hi)}; }
RTP_INLINE F mul(F a, F b) { return {_mm256_mul_ps(a.lo, b.lo), _mm256_mul_ps(a.hi, b.hi)}; }
RTP_INLINE F div(F a, F b) { return {_mm256_div_ps(a.lo, b.lo), _mm256_div_ps(a.hi, b.hi)}; }
RTP_INLINE F fma(F a, F b, F c) {
  return {_mm256_fmadd_ps(a.lo, b.lo, c.lo), _mm256_fmadd_ps(a.hi, b.hi, c.hi)};
}
RTP_INLINE F max(F a, F b) { return {_mm256_max_ps(a.lo, b.lo), _mm256_max_ps(a.hi, b.hi)}; }
RTP_INLINE F min(F a, F b) { return {_mm256_min_ps(a.lo, b.lo), _mm256_min_ps(a.hi, b.hi)}; }
RTP_INLINE F round(F x) { return {_mm256_round_ps(x.lo, 8), _mm256_round_ps(x.hi, 8)}; }

RTP_INLINE __m256 power_of_two(__m256i n) {
  return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_add_epi32(n, _mm256_set1_epi32(127)), 23));
}
// In two factors, so that 2^n itself need not be a normal number.
RTP_INLINE __m256 times_power_of_two(__m256 x, __m256 n) {
  __m256i whole = _mm256_cvtps_epi32(n);
  __m256i half = _mm256_srai_epi32(whole, 1);
  __m256 first = _mm256_mul_ps(x, power_of_two(half));
  return _mm256_mul_ps(first, power_of_two(_mm256_sub_epi32(whole, half)));
}
RTP_INLINE F times_power_of_two(F x, F n) {
  return {times_power_of_two(x.lo, n.lo), times_power_of_two(x.hi, n.hi)};
}
RTP_INLINE F zero_below(F x, float bound, F value) {
  __m256 edge = _mm256_set1_ps(bound);
  return {_mm256_andnot_ps(_mm256_cmp_ps(x.lo, edge, _CMP_LT_OQ), value.lo),
          _mm256_andnot_ps(_mm256_cmp_ps(x.hi, edge, _CMP_LT_OQ), value.hi)};
}

RTP_INLINE __m256 eight_bf16(const uint16_t* p) {
  __m256i wide = _mm256_cvtepu16_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p)));
  return _mm256_castsi256_ps(_mm256_slli_epi32(wide, 16));
}
RTP_INLINE F load_bf16(const uint16_t* p) { return {eight_bf16(p), eight_bf16(p + 8)}; }
RTP_INLINE F load_half(const uint16_t* p) {
  const __m128i* eight = reinterpret_cast<const __m128i*>(p);
  return {_mm256_cvtph_ps(_mm_loadu_si128(eight)), _mm256_cvtph_ps(_mm_loadu_si128(eight + 1))};
}
RTP_INLINE __m256i rounded_bf16(__m256 x) {
  __m256i bits = _mm256_castps_si256(x);
  __m256i odd = _mm256_and_si256(_mm256_srli_epi32(bits, 16), _mm256_set1_epi32(1));
  __m256i sum = _mm256_add_epi32(bits, _mm256_add_epi32(odd, _mm256_set1_epi32(0x7fff)));
  __m256i nan = _mm256_castps_si256(_mm256_cmp_ps(x, x, _CMP_UNORD_Q));
  sum = _mm256_blendv_epi8(sum, _mm256_set1_epi32(0x7fc00000), nan);
  return _mm256_srli_epi32(sum, 16);
}
RTP_INLINE void store_bf16(uint16_t* p, F x) {
  __m256i packed = _mm256_packus_epi32(rounded_bf16(x.lo), rounded_bf16(x.hi));
  _mm256_storeu_si256(reinterpret_cast<__m256i*>(p), _mm256_permute4x64_epi64(packed, 0xd8));
}

RTP_INLINE float sum(F x) {
  __m256 eight = _mm256_add_ps(x.lo, x.hi);
  __m128 four = _mm_add_ps(_mm256_castps256_ps128(eight), _mm256_extractf128_ps(eight, 1));
  __m128 two = _mm_add_ps(four, _mm_movehl_ps(four, four));
  return _mm_cvtss_f32(_mm_add_ss(two, _mm_movehdup_ps(two)));
}
RTP_INLINE float largest(F x) {
  __m256 eight = _mm256_max_ps(x.lo, x.hi);
  __m128 four = _mm_max_ps(_mm256_castps256_ps128(eight), _mm256_extractf128_ps(eight, 1));
  __m128 two = _mm_max_ps(four, _mm_movehl_ps(four, four));
  return _mm_cvtss_f32(_mm_max_ss(two, _mm_movehdup_ps(two)));
}

RTP_INLINE __m256i magnitude(__m256 x) {
  return _mm256_and_si256(_mm256_castps_si256(x), _mm256_set1_epi32(0x7fffffff));
}
RTP_INLINE uint32_t peak_bits(F a, F b) {
  __m256i eight = _mm256_max_epi32(_mm256_max_epi32(magnitude(a.lo), magnitude(a.hi)),
                                   _mm256_max_epi32(magnitude(b.lo), magnitude(b.hi)));
  __m128i four =
      _mm_max_epi32(_mm256_castsi256_si128(eight), _mm256_extracti128_si256(eight, 1));
  __m128i two = _mm_max_epi32(four, _mm_shuffle_epi32(four, 0x4e));
  return static_cast<uint32_t>(_mm_cvtsi128_si32(_mm_max_epi32(two, _mm_shuffle_epi32(two, 0xb1))));
}
RTP_INLINE int32_t store_bytes(int8_t* p, F a, F b) {
  __m256i whole[4] = {_mm256_cvtps_epi32(a.lo), _mm256_cvtps_epi32(a.hi),
                      _mm256_cvtps_epi32(b.lo), _mm256_cvtps_epi32(b.hi)};
  __m256i bytes = _mm256_packs_epi16(_mm256_packs_epi32(whole[0], whole[1]),
                                     _mm256_packs_epi32(whole[2], whole[3]));
  const __m256i order = _mm256_setr_epi32(0, 4, 1, 5, 2, 6, 3, 7);
  _mm256_storeu_si256(reinterpret_cast<__m256i*>(p), _mm256_permutevar8x32_epi32(bytes, order));
  __m256i eight = _mm256_add_epi32(_mm256_add_epi32(whole[0], whole[1]),
                                   _mm256_add_epi32(whole[2], whole[3]));
  __m128i four =
      _mm_add_epi32(_mm256_castsi256_si128(eight), _mm256_extracti128_si256(eight, 1));
  __m128i two = _mm_add_epi32(four, _mm_shuffle_epi32(four, 0x4e));
  return _mm_cvtsi128_si32(_mm_add_epi32(two, _mm_shuffle_epi32(two, 0xb1)));
}

struct Codes {
  __m256i v[16];  // halves of the eight vectors, low half first
};
template <int BITS>
RTP_INLINE Codes load_codes(const uint8_t* p) {
  Codes codes;
  const __m256i low = _mm256_set1_epi8(15);
#pragma GCC unroll 16
  for (int j = 0; j < 16; j++) {
    const __m256i* at = reinterpret_cast<const __m256i*>(p + 32 * j);
    if (BITS == 8) {
      codes.v[j] = _mm256_xor_si256(_mm256_loadu_si256(at), _mm256_set1_epi8(static_cast<char>(kByteShift)));
    } else if (j < 8) {
      __m256i packed = _mm256_loadu_si256(at);
      codes.v[j] = _mm256_and_si256(packed, low);
      codes.v[j + 8] = _mm256_and_si256(_mm256_srli_epi16(packed, 4), low);
    }
  }
  return codes;
}
// Products of signed bytes: magnitudes of the codes with the signs moved to x. Pairs reach
// 2 * 128 * 127, which 16 bits just hold.
RTP_INLINE __m256i signed_dot(__m256i total, __m256i codes, __m256i x) {
  __m256i pairs = _mm256_maddubs_epi16(_mm256_abs_epi8(codes), _mm256_sign_epi8(x, codes));
  return _mm256_add_epi32(total, _mm256_madd_epi16(pairs, _mm256_set1_epi16(1)));
}
template <int BITS>
RTP_INLINE F group_dot(const Codes& codes, const int8_t* x, int32_t start) {
  const int32_t* four = reinterpret_cast<const int32_t*>(x);
  __m256i total[2];
#pragma GCC unroll 2
  for (int half = 0; half < 2; half++) {
    __m256i whole = _mm256_set1_epi32(start);
#ifdef RTP_AVX_VNNI
#pragma GCC unroll 8
    for (int j = 0; j < 8; j++)
      whole = _mm256_dpbusd_avx_epi32(whole, codes.v[2 * j + half], _mm256_set1_epi32(four[j]));
#else
    if (BITS == 8) {
#pragma GCC unroll 8
      for (int j = 0; j < 8; j++)
        whole = signed_dot(whole, codes.v[2 * j + half], _mm256_set1_epi32(four[j]));
    } else {
      // Eight sums of two products of 15 and 127 stay within 16 bits.
      __m256i pairs = _mm256_setzero_si256();
#pragma GCC unroll 8
      for (int j = 0; j < 8; j++)
        pairs = _mm256_add_epi16(
            pairs, _mm256_maddubs_epi16(codes.v[2 * j + half], _mm256_set1_epi32(four[j])));
      whole = _mm256_add_epi32(whole, _mm256_madd_epi16(pairs, _mm256_set1_epi16(1)));
    }
#endif
    total[half] = whole;
  }
  return {_mm256_cvtepi32_ps(total[0]), _mm256_cvtepi32_ps(total[1])};
}

// Rows 4 apart and their neighbours, reduced to quarters: see sums_of_rows.
RTP_INLINE __m256 eight_sums(const float* rows) {
  __m256 part[8];
#pragma GCC unroll 8
  for (int i = 0; i < 8; i++)
    part[i] = _mm256_add_ps(_mm256_loadu_ps(rows + 16 * i), _mm256_loadu_ps(rows + 16 * i + 8));
#pragma GCC unroll 4
  for (int i = 0; i < 4; i++) {
    __m256 a = part[i], b = part[i + 4];
    part[i] = _mm256_add_ps(_mm256_permute2f128_ps(a, b, 0x20), _mm256_permute2f128_ps(a, b, 0x31));
  }
#pragma GCC unroll 2
  for (int i = 0; i < 2; i++) {
    __m256 a = part[i], b = part[i + 2];
    part[i] = _mm256_add_ps(_mm256_shuffle_ps(a, b, 0x44), _mm256_shuffle_ps(a, b, 0xee));
  }
  __m256 a = part[0], b = part[1];
  __m256 done = _mm256_add_ps(_mm256_shuffle_ps(a, b, 0x88), _mm256_shuffle_ps(a, b, 0xdd));
  return _mm256_permute_ps(done, 0xd8);
}
RTP_INLINE F sums_of_rows(const float* rows) { return {eight_sums(rows), eight_sums(rows + 128)}; }

}  // namespace
