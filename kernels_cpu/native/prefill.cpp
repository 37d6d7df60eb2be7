// Attention of rows with many new tokens: repack the keys of as many (row, KV head) as the
// working memory holds, then share out their queries.
#include "prefill.h"

#include <algorithm>
#include <atomic>
#include <cstring>
#include <new>
#include <vector>

#include "pool.h"
#include "scratch.h"

#if defined(__linux__)
#include <sys/syscall.h>
#include <unistd.h>
#endif
#if defined(__x86_64__)
#include <cpuid.h>
#endif

namespace {

constexpr size_t kWaveBytes = 8 << 20;  // of repacked keys at once, unless one head has more
constexpr int kPackGroups = 16;         // key groups a chunk of repacking

struct Wave {
  const AttentionCall* call;
  const PrefillKernel* kernel;
  std::vector<PackedKeys> heads;
  int packs, blocks;  // chunks of repacking and of queries, of the largest
};

int num_blocks(const AttentionCall& call, const PackedKeys& packed) {
  const int group = call.shape->heads / call.shape->kv_heads;
  return (call.plan->rows[packed.row].num_new * group + kQueryBlock - 1) / kQueryBlock;
}

void pack_chunk(const void* context, int index) {
  const Wave& wave = *static_cast<const Wave*>(context);
  const PackedKeys& packed = wave.heads[index / wave.packs];
  const int begin = index % wave.packs * kPackGroups, groups = packed.padded / kKeyGroup;
  wave.kernel->pack(*wave.call, packed, begin, std::min(begin + kPackGroups, groups));
}

// Late queries see most keys: they come first, so that threads end together.
void query_chunk(const void* context, int index) {
  const Wave& wave = *static_cast<const Wave*>(context);
  const PackedKeys& packed = wave.heads[index / wave.blocks];
  const int block = wave.blocks - 1 - index % wave.blocks;
  if (block >= num_blocks(*wave.call, packed)) return;
  wave.kernel->attend(*wave.call, packed, block * kQueryBlock);
  wave.kernel->leave();
}

size_t packed_bytes(const AttentionShape& shape, const PackedKeys& packed) {
  return sizeof(uint16_t) * packed.padded * (key_width(shape) + shape.dim);
}

PackedKeys unpacked(const AttentionCall& call, int row, int kv_head) {
  const AttentionRow& one = call.plan->rows[row];
  const int window = call.shape->window, past = one.num_keys - one.num_new;
  const int oldest = window > 0 ? std::max(0, past - window + 1) : 0;
  const int begin = oldest / kKeyBlock * kKeyBlock;
  const int padded = (one.num_keys - begin + kKeyGroup - 1) / kKeyGroup * kKeyGroup;
  return {row, kv_head, begin, padded, nullptr, nullptr};
}

bool run_wave(Wave* wave) {
  static thread_local Scratch scratch;
  const AttentionShape& shape = *wave->call->shape;
  size_t bytes = 0;
  for (const PackedKeys& one : wave->heads) bytes += packed_bytes(shape, one);
  char* memory = scratch.reserve(bytes);
  if (memory == nullptr) return false;
  wave->packs = wave->blocks = 1;
  for (PackedKeys& one : wave->heads) {
    one.keys = reinterpret_cast<uint16_t*>(memory);
    one.values = one.keys + static_cast<size_t>(one.padded) * key_width(shape);
    memory += packed_bytes(shape, one);
    const int groups = one.padded / kKeyGroup;
    wave->packs = std::max(wave->packs, (groups + kPackGroups - 1) / kPackGroups);
    wave->blocks = std::max(wave->blocks, num_blocks(*wave->call, one));
  }
  const int heads = static_cast<int>(wave->heads.size());
  run_chunks(heads * wave->packs, pack_chunk, wave);
  run_chunks(heads * wave->blocks, query_chunk, wave);
  wave->heads.clear();
  return true;
}

#if defined(__x86_64__)
bool has_avx512() {
  return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
         __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512dq") &&
         __builtin_cpu_supports("avx512vnni") && __builtin_cpu_supports("fma");
}

bool has_avx512_bf16() {
  unsigned eax = 0, ebx, ecx, edx;
  return has_avx512() && __get_cpuid_count(7, 1, &eax, &ebx, &ecx, &edx) && (eax >> 5 & 1);
}

// Tiles are large registers that Linux saves only for processes that asked for them.
bool has_amx() {
#if defined(__linux__)
  constexpr int kRequestPermission = 0x1023, kTileData = 18;
  unsigned eax, ebx, ecx, edx = 0;
  const bool there = has_avx512() && __get_cpuid_count(7, 0, &eax, &ebx, &ecx, &edx) &&
                     (edx >> 22 & 1) && (edx >> 24 & 1);
  return there && syscall(SYS_arch_prctl, kRequestPermission, kTileData) == 0;
#else
  return false;
#endif
}
#endif

std::atomic<const PrefillKernel*> chosen{nullptr};
std::atomic<bool> decided{false};

}  // namespace

const PrefillKernel* available_prefill(int index) {
#if defined(__x86_64__)
  static const PrefillKernel* const candidates[] = {
      has_amx() ? amx_prefill() : nullptr,
      has_avx512_bf16() ? avx512_bf16_prefill() : nullptr,
  };
  for (const PrefillKernel* one : candidates)
    if (one != nullptr && index-- == 0) return one;
#endif
  return nullptr;
}

const PrefillKernel* current_prefill() {
  if (!decided.load()) {
    chosen.store(available_prefill(0));
    decided.store(true);
  }
  return chosen.load();
}

bool use_prefill(const char* name) {
  const PrefillKernel* found = nullptr;
  for (int index = 0; *name != '\0'; index++) {
    found = available_prefill(index);
    if (found == nullptr) return false;
    if (std::strcmp(found->name, name) == 0) break;
  }
  chosen.store(found);
  decided.store(true);
  return true;
}

bool attend_long_rows(const AttentionCall& call, const PrefillKernel& kernel) {
  Wave wave{&call, &kernel, {}, 1, 1};
  try {
    wave.heads.reserve(static_cast<size_t>(call.plan->num_rows) * call.shape->kv_heads);
  } catch (const std::bad_alloc&) {
    return false;
  }
  size_t bytes = 0;
  for (int row = 0; row < call.plan->num_rows; row++) {
    if (!is_long(call.plan->rows[row])) continue;
    for (int head = 0; head < call.shape->kv_heads; head++) {
      const PackedKeys next = unpacked(call, row, head);
      const size_t more = packed_bytes(*call.shape, next);
      if (bytes > 0 && bytes + more > kWaveBytes) {
        if (!run_wave(&wave)) return false;
        bytes = 0;
      }
      bytes += more;
      wave.heads.push_back(next);
    }
  }
  return wave.heads.empty() || run_wave(&wave);
}
