// Elementary functions on sixteen lanes; included after a simd_*.h.
#pragma once

namespace {

// e^x, 0 below -87.3 (no subnormal results); relative error about 1e-7. NaN stays.
RTP_INLINE F exponential(F x) {
  F bounded = max(splat(-87.3f), min(splat(88.3f), x));
  F scaled = mul(bounded, splat(1.44269504f));
  F whole = round(scaled);
  // The fraction in two steps: log(2) = 0.693359375 - 2.12194440e-4.
  F rest = fma(whole, splat(-0.693359375f), bounded);
  rest = fma(whole, splat(2.12194440e-4f), rest);
  // Taylor terms of e^rest, |rest| <= 0.35, coefficients adjusted (Cephes expf).
  F series = splat(1.9875691500e-4f);
  series = fma(series, rest, splat(1.3981999507e-3f));
  series = fma(series, rest, splat(8.3334519073e-3f));
  series = fma(series, rest, splat(4.1665795894e-2f));
  series = fma(series, rest, splat(1.6666665459e-1f));
  series = fma(series, rest, splat(5.0000001201e-1f));
  series = fma(mul(series, rest), rest, add(rest, splat(1.0f)));
  return zero_below(x, -87.3f, times_power_of_two(series, whole));
}

// x / (1 + e^y), 0 where e^y is beyond what a float holds.
RTP_INLINE F shut(F x, F y) {
  const F value = div(x, add(splat(1.0f), exponential(y)));
  return zero_below(sub(zero(), y), -87.3f, value);
}

// x / (1 + e^-x)
RTP_INLINE F silu(F x) { return shut(x, sub(zero(), x)); }

// x / 2 * (1 + tanh(u)) = x / (1 + e^-2u), u = sqrt(2 / pi) * (x + 0.044715 x^3)
RTP_INLINE F gelu_tanh(F x) {
  F cube = mul(mul(x, x), x);
  return shut(x, mul(fma(cube, splat(0.044715f), x), splat(-1.59576912f)));
}

// tanh(x) = 1 - 2 / (e^2x + 1)
RTP_INLINE F hyperbolic_tangent(F x) {
  F grown = add(exponential(add(x, x)), splat(1.0f));
  return sub(splat(1.0f), div(splat(2.0f), grown));
}

}  // namespace
