// Sixteen lanes in plain C++, for processors without a level of their own and as a second
// opinion in tests. See simd_avx512.h.
#pragma once
#include <cmath>
#include <cstdint>
#include <cstring>

#define RTP_TARGET
#define RTP_INLINE static inline __attribute__((always_inline))

namespace {

struct F {
  float v[16];
};

constexpr int kLinearRows = 2;
constexpr int kDenseRows = 1;
constexpr int kAttentionRows = 1;
constexpr int kByteShift = 128;

#define RTP_LANES for (int i = 0; i < 16; i++)

RTP_INLINE F splat(float x) {
  F y;
  RTP_LANES y.v[i] = x;
  return y;
}
RTP_INLINE F zero() { return splat(0.0f); }
RTP_INLINE F load(const float* p) {
  F y;
  std::memcpy(y.v, p, sizeof y.v);
  return y;
}
RTP_INLINE void store(float* p, F x) { std::memcpy(p, x.v, sizeof x.v); }
RTP_INLINE F add(F a, F b) {
  RTP_LANES a.v[i] += b.v[i];
  return a;
}
RTP_INLINE F sub(F a, F b) {
  RTP_LANES a.v[i] -= b.v[i];
  return a;
}
RTP_INLINE F mul(F a, F b) {
  RTP_LANES a.v[i] *= b.v[i];
  return a;
}
RTP_INLINE F div(F a, F b) {
  RTP_LANES a.v[i] /= b.v[i];
  return a;
}
RTP_INLINE F fma(F a, F b, F c) {
  RTP_LANES a.v[i] = std::fma(a.v[i], b.v[i], c.v[i]);
  return a;
}
RTP_INLINE F max(F a, F b) {
  RTP_LANES a.v[i] = a.v[i] > b.v[i] ? a.v[i] : b.v[i];
  return a;
}
RTP_INLINE F min(F a, F b) {
  RTP_LANES a.v[i] = a.v[i] < b.v[i] ? a.v[i] : b.v[i];
  return a;
}
RTP_INLINE F round(F x) {
  RTP_LANES x.v[i] = std::nearbyint(x.v[i]);
  return x;
}
RTP_INLINE F times_power_of_two(F x, F n) {
  RTP_LANES x.v[i] = n.v[i] == n.v[i] ? std::ldexp(x.v[i], static_cast<int>(n.v[i])) : n.v[i];
  return x;
}
RTP_INLINE F zero_below(F x, float bound, F value) {
  RTP_LANES value.v[i] = x.v[i] < bound ? 0.0f : value.v[i];
  return value;
}

RTP_INLINE F load_bf16(const uint16_t* p) {
  F y;
  RTP_LANES {
    uint32_t bits = static_cast<uint32_t>(p[i]) << 16;
    std::memcpy(&y.v[i], &bits, 4);
  }
  return y;
}
// IEEE half to float: normal numbers by exponent shift, subnormal ones by multiplication.
RTP_INLINE F load_half(const uint16_t* p) {
  F y;
  RTP_LANES {
    uint32_t sign = static_cast<uint32_t>(p[i] & 0x8000) << 16, rest = p[i] & 0x7fff;
    uint32_t bits = rest >= 0x7c00 ? 0x7f800000u | (rest & 0x3ff) << 13 : (rest << 13) + 0x38000000u;
    float value;
    std::memcpy(&value, &bits, 4);
    if (rest < 0x400) value = static_cast<float>(rest) * 0x1p-24f;
    std::memcpy(&bits, &value, 4);
    bits |= sign;
    std::memcpy(&y.v[i], &bits, 4);
  }
  return y;
}
RTP_INLINE void store_bf16(uint16_t* p, F x) {
  RTP_LANES {
    uint32_t bits;
    std::memcpy(&bits, &x.v[i], 4);
    bits = x.v[i] == x.v[i] ? bits + 0x7fff + (bits >> 16 & 1) : 0x7fc00000u;
    p[i] = static_cast<uint16_t>(bits >> 16);
  }
}

RTP_INLINE float sum(F x) {
  for (int width = 8; width > 0; width /= 2)
    for (int i = 0; i < width; i++) x.v[i] += x.v[i + width];
  return x.v[0];
}
RTP_INLINE float largest(F x) {
  float peak = x.v[0];
  RTP_LANES peak = peak > x.v[i] ? peak : x.v[i];
  return peak;
}
RTP_INLINE uint32_t peak_bits(F a, F b) {
  uint32_t peak = 0;
  RTP_LANES {
    uint32_t one, other;
    std::memcpy(&one, &a.v[i], 4);
    std::memcpy(&other, &b.v[i], 4);
    one &= 0x7fffffff;
    other &= 0x7fffffff;
    one = one > other ? one : other;
    peak = peak > one ? peak : one;
  }
  return peak;
}
RTP_INLINE int32_t store_bytes(int8_t* p, F a, F b) {
  int32_t total = 0;
  RTP_LANES {
    p[i] = static_cast<int8_t>(std::nearbyint(a.v[i]));
    p[i + 16] = static_cast<int8_t>(std::nearbyint(b.v[i]));
    total += p[i] + p[i + 16];
  }
  return total;
}

struct Codes {
  int8_t v[512];
};
template <int BITS>
RTP_INLINE Codes load_codes(const uint8_t* p) {
  Codes codes;
  if (BITS == 8) {
    for (int i = 0; i < 512; i++) codes.v[i] = static_cast<int8_t>(p[i] ^ 0x80);
  } else {
    for (int i = 0; i < 256; i++) {
      codes.v[i] = static_cast<int8_t>(p[i] & 15);
      codes.v[i + 256] = static_cast<int8_t>(p[i] >> 4);
    }
  }
  return codes;
}
template <int BITS>
RTP_INLINE F group_dot(const Codes& codes, const int8_t* x, int32_t start) {
  int32_t total[16];
  RTP_LANES total[i] = start;
  for (int j = 0; j < 8; j++)
    RTP_LANES
      for (int k = 0; k < 4; k++) total[i] += codes.v[64 * j + 4 * i + k] * x[4 * j + k];
  F y;
  RTP_LANES y.v[i] = static_cast<float>(total[i]);
  return y;
}

RTP_INLINE F sums_of_rows(const float* rows) {
  F y;
  RTP_LANES y.v[i] = sum(load(rows + 16 * i));
  return y;
}

#undef RTP_LANES

}  // namespace
