// The linear layers of one instruction set; included after a simd_*.h.
#pragma once
#include "coded_product.h"
#include "dense_product.h"
#include "functions.h"
#include "operations.h"
#include "partial.h"

namespace {

RTP_INLINE void finish(const LinearCall& call, Form form, F value, int row, int output,
                       int count) {
  const size_t at = static_cast<size_t>(row) * call.weight->rows + output;
  if (call.bias != nullptr) value = add(value, load_some(call.bias + output, count));
  if (form == Form::kLogits) return store_some(static_cast<float*>(call.out) + at, value, count);
  if (call.residual != nullptr) value = add(value, load_some(call.residual + at, count));
  store_some(static_cast<uint16_t*>(call.out) + at, value, count);
}

RTP_INLINE void finish_gated(const LinearCall& call, Activation activation, F gate, F up,
                             int row, int output, int count) {
  const int width = call.weight->rows / 2;
  if (call.bias != nullptr) {
    gate = add(gate, load_some(call.bias + output, count));
    up = add(up, load_some(call.bias + width + output, count));
  }
  gate = activation == Activation::kSilu ? silu(gate) : gelu_tanh(gate);
  const size_t at = static_cast<size_t>(row) * width + output;
  store_some(static_cast<uint16_t*>(call.out) + at, mul(gate, up), count);
}

RTP_TARGET void prepare(const LinearCall& call, const PreparedRows& rows, int begin, int end) {
  for (int row = begin; row < end; row++) {
    if (call.weight->bits == 16)
      widen_row(call, rows, row);
    else
      quantize_row(call, rows, row);
  }
}

// values[r] = the `count` outputs of panel `index` of a part that has `width` outputs, for
// `some` rows from `row` on.
RTP_TARGET void multiply(const Weight& weight, const PreparedRows& rows, int width, int part,
                         int index, int count, int row, int some, F* values) {
  const int columns = weight.columns;
  if (weight.bits == 16) {
    const size_t output = static_cast<size_t>(part) * width + index * kPanel;
    const uint16_t* dense = reinterpret_cast<const uint16_t*>(weight.panels) + output * columns;
    const float* x = rows.wide + static_cast<size_t>(row) * columns;
    return dense_products(dense, count, columns, x, some, values);
  }
  const int groups = columns / kGroup, panels_a_part = (width + kPanel - 1) / kPanel;
  const size_t panel_bytes = groups * group_bytes(weight);
  const uint8_t* panel = weight.panels + panel_bytes * (part * panels_a_part + index);
  product_for(weight, some)(panel, groups, rows, row, values);
}

RTP_TARGET void panels(const LinearCall& call, Form form, Activation activation,
                       const PreparedRows& rows, int begin, int end) {
  const Weight& weight = *call.weight;
  const bool gated = form == Form::kGated;
  const int width = gated ? weight.rows / 2 : weight.rows;
  F values[8], ups[8];
  for (int index = begin; index < end; index++) {
    const int output = index * kPanel;
    const int count = width - output < kPanel ? width - output : kPanel;
    for (int row = 0; row < call.tokens; row += kLinearRows) {
      const int some = call.tokens - row < kLinearRows ? call.tokens - row : kLinearRows;
      multiply(weight, rows, width, 0, index, count, row, some, values);
      if (gated) multiply(weight, rows, width, 1, index, count, row, some, ups);
      for (int r = 0; r < some; r++) {
        if (gated)
          finish_gated(call, activation, values[r], ups[r], row + r, output, count);
        else
          finish(call, form, values[r], row + r, output, count);
      }
    }
  }
}

}  // namespace
