#if defined(__x86_64__)
#include "simd_avx512.h"
// Kernels are written in the operations of the header above.
#include "attention_kernels.h"
#include "linear_kernels.h"
#include "row_kernels.h"
#include "levels.h"

const Level* avx512_level() {
  static const Level level = {"avx512", prepare, panels, rotate, attend, merge,
                              norm_rows, gate_rows};
  return &level;
}
#endif
