#include "levels.h"

#include <atomic>
#include <cstring>

#if defined(__x86_64__)
#include <cpuid.h>
#endif

namespace {

struct Candidate {
  const Level* level;
  bool fits;
};

#if defined(__x86_64__)
// Every processor with AVX2 has F16C.
bool has_avx2() { return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma"); }

// Leaf 7.1: not every compiler knows the name. The state saved is that of AVX2.
bool has_avx_vnni() {
  unsigned eax = 0, ebx, ecx, edx;
  return has_avx2() && __get_cpuid_count(7, 1, &eax, &ebx, &ecx, &edx) && (eax >> 4 & 1);
}

bool has_avx512_vnni() {
  return has_avx2() && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
         __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512dq") &&
         __builtin_cpu_supports("avx512vnni");
}
#endif

std::atomic<const Level*> chosen{nullptr};

}  // namespace

const Level* available_level(int index) {
  const Candidate candidates[] = {
#if defined(__x86_64__)
      {avx512_level(), has_avx512_vnni()},
      {avx_vnni_level(), has_avx_vnni()},
      {avx2_level(), has_avx2()},
#endif
      {scalar_level(), true},
  };
  for (const Candidate& one : candidates)
    if (one.fits && index-- == 0) return one.level;
  return nullptr;
}

const Level& current_level() {
  const Level* now = chosen.load(std::memory_order_relaxed);
  if (now == nullptr) chosen.store(now = available_level(0));
  return *now;
}

bool use_level(const char* name) {
  for (int index = 0;; index++) {
    const Level* one = available_level(index);
    if (one == nullptr) return false;
    if (std::strcmp(one->name, name) == 0) {
      chosen.store(one);
      return true;
    }
  }
}
