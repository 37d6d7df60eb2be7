#if defined(__x86_64__)
#include "simd_avx2.h"
// Kernels are written in the operations of the header above.
#include "attention_kernels.h"
#include "linear_kernels.h"
#include "row_kernels.h"
#include "levels.h"

const Level* avx2_level() {
  static const Level level = {"avx2", prepare, panels, rotate, attend, merge,
                              norm_rows, gate_rows};
  return &level;
}
#endif
