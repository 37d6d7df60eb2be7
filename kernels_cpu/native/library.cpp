// The C interface, called through ctypes. Pointers are to contiguous row-major data; nothing
// is kept after a call. Mirrored by `rtp_kernels_cpu/library.py`.
#include <atomic>
#include <cstdlib>
#include <cstring>
#include <new>

#include "levels.h"
#include "pool.h"

#define RTP_EXPORT extern "C" __attribute__((visibility("default")))

namespace {

constexpr int32_t kVersion = 1;
constexpr int64_t kChunkWork = 1 << 19;  // multiplications a chunk at least: about 10 us
constexpr int kChunksPerThread = 8;
constexpr int kCallerRows = 4;  // rows the caller quantizes alone

std::atomic<const Level*> chosen{nullptr};

const Level& level() {
  const Level* now = chosen.load(std::memory_order_relaxed);
  if (now == nullptr) chosen.store(now = available_level(0));
  return *now;
}

// Memory of a thread that grows with need and is kept for the next call.
class Scratch {
 public:
  ~Scratch() { std::free(memory_); }
  void* reserve(size_t bytes) {
    if (bytes > size_) {
      std::free(memory_);
      size_ = (bytes + 4095) / 4096 * 4096;
      memory_ = std::aligned_alloc(64, size_);
      if (memory_ == nullptr) size_ = 0;
    }
    return memory_;
  }

 private:
  void* memory_ = nullptr;
  size_t size_ = 0;
};

bool reserve_rows(const LinearCall& call, QuantizedRows* rows) {
  static thread_local Scratch scratch;
  const size_t tokens = call.tokens, columns = call.weight->columns;
  const size_t scalars = tokens * (columns / kGroup);
  const size_t code_bytes = (tokens * columns + 63) / 64 * 64;
  char* memory = static_cast<char*>(scratch.reserve(code_bytes + 12 * scalars));
  if (memory == nullptr) return false;
  rows->codes = reinterpret_cast<int8_t*>(memory);
  rows->scale = reinterpret_cast<float*>(memory + code_bytes);
  rows->weighted = rows->scale + scalars;
  rows->start = reinterpret_cast<int32_t*>(rows->weighted + scalars);
  return true;
}

struct LinearJob {
  const LinearCall* call;
  const Level* level;
  QuantizedRows rows;
  Form form;
  Activation activation;
  int size, chunk;  // rows or panels, and how many a chunk has
};

void quantize_chunk(const void* context, int index) {
  const LinearJob& job = *static_cast<const LinearJob*>(context);
  job.level->quantize(*job.call, job.rows, index, index + 1);
}

void panel_chunk(const void* context, int index) {
  const LinearJob& job = *static_cast<const LinearJob*>(context);
  const int begin = index * job.chunk;
  const int end = begin + job.chunk < job.size ? begin + job.chunk : job.size;
  job.level->panels(*job.call, job.form, job.activation, job.rows, begin, end);
}

// Small chunks, so that a thread that loses its core keeps little of the work.
int panels_a_chunk(const LinearJob& job) {
  const LinearCall& call = *job.call;
  const int64_t blocks = (call.tokens + 7) / 8;
  const int64_t work = blocks * kPanel * call.weight->columns * (job.form == Form::kGated ? 2 : 1);
  const int64_t least = (kChunkWork + work - 1) / work;
  const int64_t even = job.size / (kChunksPerThread * threads());
  const int64_t chunk = even > least ? even : least;
  return static_cast<int>(chunk < job.size ? chunk : job.size);
}

}  // namespace

RTP_EXPORT int32_t rtp_version() { return kVersion; }

// Name of the `index`-th instruction set this processor can run, best first; null past the
// last.
RTP_EXPORT const char* rtp_level_name(int32_t index) {
  const Level* one = available_level(index);
  return one == nullptr ? nullptr : one->name;
}

RTP_EXPORT const char* rtp_level() { return level().name; }

// Returns 0, or -1 if the processor cannot run it.
RTP_EXPORT int32_t rtp_use_level(const char* name) {
  for (int index = 0;; index++) {
    const Level* one = available_level(index);
    if (one == nullptr) return -1;
    if (std::strcmp(one->name, name) == 0) {
      chosen.store(one);
      return 0;
    }
  }
}

RTP_EXPORT void rtp_set_threads(int32_t threads) { set_threads(threads); }
RTP_EXPORT int32_t rtp_threads() { return threads(); }

RTP_EXPORT void rtp_pool_counters(int64_t* out) {
  const PoolCounters counters = pool_counters();
  out[0] = counters.shared;
  out[1] = counters.stalls;
}

// Returns 0, or -1 when memory is short.
RTP_EXPORT int32_t rtp_linear(const Weight* weight, const uint16_t* x, int32_t tokens,
                              const uint16_t* norm, float eps, float norm_offset,
                              const uint16_t* bias, const uint16_t* residual, void* out,
                              int32_t form, int32_t activation) {
  if (tokens <= 0) return 0;
  const LinearCall call{weight, x, norm, eps, norm_offset, bias, residual, out, tokens};
  LinearJob job{&call, &level(), {}, static_cast<Form>(form), static_cast<Activation>(activation),
                0, 1};
  if (!reserve_rows(call, &job.rows)) return -1;
  if (tokens <= kCallerRows)
    job.level->quantize(call, job.rows, 0, tokens);
  else
    run_chunks(tokens, quantize_chunk, &job);
  const int width = job.form == Form::kGated ? weight->rows / 2 : weight->rows;
  job.size = (width + kPanel - 1) / kPanel;
  job.chunk = panels_a_chunk(job);
  run_chunks((job.size + job.chunk - 1) / job.chunk, panel_chunk, &job);
  return 0;
}
