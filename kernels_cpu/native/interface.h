// The C interface, called through ctypes. Pointers are to contiguous row-major data; nothing
// is kept after a call. Mirrored by `rtp_kernels_cpu/library.py`.
#pragma once

#define RTP_EXPORT extern "C" __attribute__((visibility("default")))

// Raised when a function or structure that Python knows changes.
constexpr int kInterface = 3;
