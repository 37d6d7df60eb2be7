// What the operations take, and the table of one instruction set's kernels.
#pragma once
#include <cstdint>

// Inputs are quantized and weights stored in groups of 32 along the input dimension; outputs
// are taken 16 at a time (a panel).
constexpr int kGroup = 32;
constexpr int kPanel = 16;

// A packed matrix [rows, columns]. Mirrored by `rtp_kernels_cpu/library.py`.
//
// Panels follow one another; in a panel, groups. A group has its codes (256 bytes for 4 bits,
// 512 for 8), 16 scales and, if any, 16 minima (IEEE half). Code bytes: vector j of 64 bytes
// holds inputs 4j ... 4j + 3 of output 0, then of output 1, ...; with 4 bits, vector j < 4
// has inputs 4j ... in the low and 16 + 4j ... in the high half-bytes. 8-bit codes are stored
// plus 128. Weight = scale * (code - centre) + minimum, where centre is 8 for 4-bit codes
// without minimum and 0 otherwise.
struct Weight {
  const uint8_t* panels;
  int32_t rows;     // outputs; `parts` equal parts, each padded to whole panels
  int32_t columns;  // inputs, a multiple of 32
  int32_t bits;     // 4 or 8
  int32_t has_minimum;
  int32_t parts;  // 1, or 2: gate rows, then up rows
};

enum class Activation : int32_t { kSilu = 0, kGeluTanh = 1 };

// out = linear(norm(x)) in one of three forms, by which of the pointers are set.
struct LinearCall {
  const Weight* weight;
  const uint16_t* x;     // bf16 [tokens, columns]
  const uint16_t* norm;  // bf16 [columns] or null: RMS norm of x, weights norm + norm_offset
  float eps;
  float norm_offset;
  const uint16_t* bias;      // bf16 [rows] or null
  const uint16_t* residual;  // bf16 [tokens, rows] or null
  void* out;                 // bf16, or float32 for kLogits
  int32_t tokens;
};

enum class Form : int32_t { kPlain = 0, kGated = 1, kLogits = 2 };

// Quantized activations, row after row.
struct QuantizedRows {
  int8_t* codes;    // [tokens, columns]
  float* scale;     // [tokens, groups]
  float* weighted;  // [tokens, groups]: scale times the sum of the codes
  int32_t* start;   // [tokens, groups]: -centre times the sum of the codes
};

struct Level {
  const char* name;
  // Quantize rows [begin, end) of a call.
  void (*quantize)(const LinearCall& call, const QuantizedRows& rows, int begin, int end);
  // Panels [begin, end) of a call for all tokens. In the gated form panel i stands for gate
  // panel i with up panel i.
  void (*panels)(const LinearCall& call, Form form, Activation activation,
                 const QuantizedRows& rows, int begin, int end);
};
