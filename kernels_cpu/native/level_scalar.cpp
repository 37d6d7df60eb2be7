#include "simd_scalar.h"
// Kernels are written in the operations of the header above.
#include "attention_kernels.h"
#include "linear_kernels.h"
#include "row_kernels.h"
#include "levels.h"

const Level* scalar_level() {
  static const Level level = {"scalar", prepare, panels, rotate, attend, merge,
                              norm_rows, gate_rows};
  return &level;
}
