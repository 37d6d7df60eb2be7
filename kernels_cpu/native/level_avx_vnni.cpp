#if defined(__x86_64__)
#define RTP_AVX_VNNI
#include "simd_avx2.h"
// The kernels follow the instruction set they are written in.
#include "attention_kernels.h"
#include "linear_kernels.h"
#include "levels.h"

const Level* avx_vnni_level() {
  static const Level level = {"avx_vnni", prepare, panels, rotate, attend, merge};
  return &level;
}
#endif
