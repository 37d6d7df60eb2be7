// Matrix tiles of AMX: 16 rows of 32 bf16 (or 16 float32) each, products of 16 x 16 x 32.
#include "prefill.h"

#if defined(__x86_64__)
#if __has_include(<amxbf16intrin.h>)
#define RTP_MORE ",amx-tile,amx-bf16"
#include "simd_avx512.h"
// Kernels are written in the operations of the header above.
#include "prefill_kernel.h"

namespace {

struct TileShapes {
  uint8_t palette, start_row, reserved[14];
  uint16_t bytes[16];
  uint8_t rows[16];
};

RTP_INLINE void enter() {
  alignas(64) static const TileShapes shapes = {
      1, 0, {}, {64, 64, 64, 64, 64, 64, 64, 64}, {16, 16, 16, 16, 16, 16, 16, 16}};
  _tile_loadconfig(&shapes);
}
RTP_TARGET void leave() { _tile_release(); }

// Tiles 0 ... 3 are results, 4 and 5 left factors, 6 and 7 right factors.
RTP_INLINE void score_group(const uint16_t* keys, int width, const Block& block,
                            float (*scores)[kQueryBlock]) {
  const int stride = width * sizeof *keys;
  _tile_zero(0);
  _tile_zero(1);
  _tile_zero(2);
  _tile_zero(3);
  for (int d = 0; d < width; d += 32) {
    _tile_loadd(4, keys + d, stride);
    _tile_loadd(5, keys + d + 16 * width, stride);
    _tile_loadd(6, block.queries[0][d / 2], 64);
    _tile_loadd(7, block.queries[1][d / 2], 64);
    _tile_dpbf16ps(0, 4, 6);
    _tile_dpbf16ps(1, 4, 7);
    _tile_dpbf16ps(2, 5, 6);
    _tile_dpbf16ps(3, 5, 7);
  }
  const int row = kQueryBlock * sizeof(float);
  _tile_stored(0, scores[0], row);
  _tile_stored(1, scores[0] + 16, row);
  _tile_stored(2, scores[16], row);
  _tile_stored(3, scores[16] + 16, row);
}

// One or two tiles of 16 dimensions from `d` on.
template <bool TWO>
RTP_INLINE void add_dimensions(const uint16_t* values, int dim, int groups, int d, bool first,
                               Block* block) {
  const int row = kQueryBlock * sizeof(float);
  _tile_zero(0);
  _tile_zero(1);
  if (TWO) {
    _tile_zero(2);
    _tile_zero(3);
  }
  if (!first) {
    _tile_loadd(0, block->sums[d], row);
    _tile_loadd(1, block->sums[d] + 16, row);
    if (TWO) {
      _tile_loadd(2, block->sums[d + 16], row);
      _tile_loadd(3, block->sums[d + 16] + 16, row);
    }
  }
  for (int group = 0; group < groups; group++) {
    const uint16_t* left = values + (static_cast<size_t>(group) * dim + d) * kKeyGroup;
    const int weights = kColumns * 16 * sizeof(uint32_t);
    _tile_loadd(4, left, 64);
    _tile_loadd(6, block->weights[16 * group][0], weights);
    _tile_loadd(7, block->weights[16 * group][1], weights);
    _tile_dpbf16ps(0, 4, 6);
    _tile_dpbf16ps(1, 4, 7);
    if (TWO) {
      _tile_loadd(5, left + 16 * kKeyGroup, 64);
      _tile_dpbf16ps(2, 5, 6);
      _tile_dpbf16ps(3, 5, 7);
    }
  }
  _tile_stored(0, block->sums[d], row);
  _tile_stored(1, block->sums[d] + 16, row);
  if (TWO) {
    _tile_stored(2, block->sums[d + 16], row);
    _tile_stored(3, block->sums[d + 16] + 16, row);
  }
}

RTP_INLINE void add_group_values(const uint16_t* values, int dim, int groups, bool first,
                                 Block* block) {
  int d = 0;
  for (; d + 32 <= dim; d += 32) add_dimensions<true>(values, dim, groups, d, first, block);
  if (d < dim) add_dimensions<false>(values, dim, groups, d, first, block);
}

}  // namespace

const PrefillKernel* amx_prefill() {
  static const PrefillKernel kernel = {"amx", pack, attend, leave};
  return &kernel;
}
#else
const PrefillKernel* amx_prefill() { return nullptr; }
#endif
#endif
