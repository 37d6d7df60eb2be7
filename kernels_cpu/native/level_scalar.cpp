#include "simd_scalar.h"
// The kernels follow the instruction set they are written in.
#include "attention_kernels.h"
#include "linear_kernels.h"
#include "levels.h"

const Level* scalar_level() {
  static const Level level = {"scalar", prepare, panels, rotate, attend, merge};
  return &level;
}
