#if defined(__x86_64__)
#define RTP_AVX_VNNI
#include "simd_avx2.h"
// Kernels are written in the operations of the header above.
#include "attention_kernels.h"
#include "linear_kernels.h"
#include "row_kernels.h"
#include "levels.h"

const Level* avx_vnni_level() {
  static const Level level = {"avx_vnni", prepare, panels, rotate, attend, merge,
                              norm_rows, gate_rows};
  return &level;
}
#endif
