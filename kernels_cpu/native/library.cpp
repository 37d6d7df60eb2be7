// What the library is: version, instruction sets, threads.
#include <cstdint>

#include "interface.h"
#include "levels.h"
#include "pool.h"
#include "prefill.h"

RTP_EXPORT int32_t rtp_version() { return kInterface; }

// Name of the `index`-th instruction set this processor can run, best first; null past the
// last.
RTP_EXPORT const char* rtp_level_name(int32_t index) {
  const Level* one = available_level(index);
  return one == nullptr ? nullptr : one->name;
}

RTP_EXPORT const char* rtp_level() { return current_level().name; }

// Returns 0, or -1 if the processor cannot run it.
RTP_EXPORT int32_t rtp_use_level(const char* name) { return use_level(name) ? 0 : -1; }

// Of the kernels for rows with many new tokens; null past the last, perhaps at once.
RTP_EXPORT const char* rtp_prefill_name(int32_t index) {
  const PrefillKernel* one = available_prefill(index);
  return one == nullptr ? nullptr : one->name;
}

// "" for none. Returns 0, or -1 if the processor cannot run it.
RTP_EXPORT int32_t rtp_use_prefill(const char* name) { return use_prefill(name) ? 0 : -1; }

RTP_EXPORT void rtp_set_threads(int32_t threads) { set_threads(threads); }
RTP_EXPORT int32_t rtp_threads() { return threads(); }

RTP_EXPORT void rtp_pool_counters(int64_t* out) {
  const PoolCounters counters = pool_counters();
  out[0] = counters.shared;
  out[1] = counters.stalls;
}
