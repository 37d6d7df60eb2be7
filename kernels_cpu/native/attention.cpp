// Attention over paged keys: rotate and store the new tokens, then share out (row, KV head,
// queries, split of the keys).
#include <algorithm>
#include <atomic>
#include <new>

#include "interface.h"
#include "levels.h"
#include "pool.h"
#include "prefill.h"
#include "scratch.h"

namespace {

constexpr int64_t kChunkWork = 1 << 17;  // products a chunk at least: about 5 us
constexpr int kCallerTokens = 8;         // tokens the caller rotates alone

enum Phases : int32_t { kRotate = 1, kAttend = 2 };

struct AttentionJob {
  const AttentionCall* call;
  const Level* level;
  const PrefillKernel* prefill;  // of long rows; null: they are as the others
  AttentionItem* items;
  std::atomic<int>* open;  // [sets] splits not yet done
  float* partials;
  int num_items, num_sets, chunk;
  int64_t num_partials, work;
};

void rotate_chunk(const void* context, int index) {
  const AttentionJob& job = *static_cast<const AttentionJob*>(context);
  uint16_t* rotated = job.call->out;
  job.level->rotate(*job.call, rotated, index, index + 1);
}

// Whoever finishes the last split of a set merges it.
void item_chunk(const void* context, int index) {
  const AttentionJob& job = *static_cast<const AttentionJob*>(context);
  const int end = (index + 1) * job.chunk < job.num_items ? (index + 1) * job.chunk : job.num_items;
  for (int i = index * job.chunk; i < end; i++) {
    const AttentionItem& item = job.items[i];
    if (item.splits == 1) {
      float partial[partial_size(kQueries, kMostDim)];
      job.level->attend(*job.call, item, partial);
      job.level->merge(*job.call, item, partial);
      continue;
    }
    float* first = job.partials + item.partial;
    job.level->attend(*job.call, item,
                      first + item.split * partial_size(item.count, job.call->shape->dim));
    if (job.open[item.set].fetch_sub(1) == 1) job.level->merge(*job.call, item, first);
  }
}

// The items of some query rows of a row and KV head; counts only if `items` is null.
void list_set(AttentionJob* job, AttentionItem item) {
  const AttentionShape& shape = *job->call->shape;
  const AttentionRow& row = job->call->plan->rows[item.row];
  const int group = shape.heads / shape.kv_heads, past = row.num_keys - row.num_new;
  const int earliest = row.tree >= 0 ? past : past + item.first / group;
  const int oldest = earliest - shape.window + 1;
  const int begin = shape.window > 0 && oldest > 0 ? oldest : 0;
  int end = past + (item.first + item.count - 1) / group + 1;
  if (row.tree >= 0) end = row.num_keys;
  item.set = job->num_sets++;
  item.splits = (end - 1) / kSplit - begin / kSplit + 1;
  item.partial = job->num_partials;
  if (item.splits > 1) job->num_partials += item.splits * partial_size(item.count, shape.dim);
  job->work += static_cast<int64_t>(end - begin) * item.count * shape.dim * 2;
  if (job->items == nullptr) {
    job->num_items += item.splits;
    return;
  }
  new (job->open + item.set) std::atomic<int>(item.splits);
  for (item.split = 0; item.split < item.splits; item.split++) {
    const int from = (begin / kSplit + item.split) * kSplit;
    item.key_begin = from > begin ? from : begin;
    item.key_end = from + kSplit < end ? from + kSplit : end;
    job->items[job->num_items++] = item;
  }
}

void list_items(AttentionJob* job) {
  const AttentionShape& shape = *job->call->shape;
  const AttentionPlan& plan = *job->call->plan;
  job->num_items = job->num_sets = 0;
  job->num_partials = job->work = 0;
  for (int row = 0; row < plan.num_rows; row++) {
    if (job->prefill != nullptr && is_long(plan.rows[row])) continue;
    const int queries = plan.rows[row].num_new * (shape.heads / shape.kv_heads);
    for (int head = 0; head < shape.kv_heads; head++)
      for (int first = 0; first < queries; first += kQueries) {
        const int count = queries - first < kQueries ? queries - first : kQueries;
        list_set(job, {row, head, first, count, 0, 0, 0, 0, 0, 0});
      }
  }
}

bool reserve_items(AttentionJob* job) {
  static thread_local Scratch scratch;
  list_items(job);
  if (job->num_items == 0) return true;
  const size_t item_bytes = (sizeof(AttentionItem) * job->num_items + 63) / 64 * 64;
  const size_t open_bytes = (sizeof(std::atomic<int>) * job->num_sets + 63) / 64 * 64;
  char* memory = scratch.reserve(item_bytes + open_bytes + sizeof(float) * job->num_partials);
  if (memory == nullptr) return false;
  job->items = reinterpret_cast<AttentionItem*>(memory);
  job->open = reinterpret_cast<std::atomic<int>*>(memory + item_bytes);
  job->partials = reinterpret_cast<float*>(memory + item_bytes + open_bytes);
  list_items(job);
  return true;
}

}  // namespace

// `phases` 1: rotated queries into `out`, keys and values into the planes. 2: attention of
// the rotated queries in `out`, in place. 3: both. Returns 0, or -1 when memory is short.
RTP_EXPORT int32_t rtp_attention(const AttentionShape* shape, const AttentionPlan* plan,
                                 const uint16_t* qkv, uint16_t* keys, uint16_t* values,
                                 int64_t head_stride, const void* q_norm, const void* k_norm,
                                 int32_t norm_wide, float eps, uint16_t* out, float* lse,
                                 int32_t phases) {
  const Norm norms[2] = {{q_norm, norm_wide != 0}, {k_norm, norm_wide != 0}};
  const AttentionCall call{shape,    plan, qkv, keys, values, head_stride, norms[0],
                           norms[1], eps,  out, out,  lse};
  AttentionJob job{&call,   &current_level(), current_prefill(), nullptr, nullptr, nullptr, 0, 0, 1,
                   0, 0};
  if (phases & kRotate) {
    if (plan->num_tokens <= kCallerTokens)
      job.level->rotate(call, out, 0, plan->num_tokens);
    else
      run_chunks(plan->num_tokens, rotate_chunk, &job);
  }
  if (!(phases & kAttend)) return 0;
  if (job.prefill != nullptr && !attend_long_rows(call, *job.prefill)) return -1;
  if (!reserve_items(&job)) return -1;
  if (job.num_items == 0) return 0;
  const int64_t chunk = kChunkWork * job.num_items / (job.work + 1);
  job.chunk = static_cast<int>(std::clamp<int64_t>(chunk, 1, job.num_items));
  run_chunks((job.num_items + job.chunk - 1) / job.chunk, item_chunk, &job);
  return 0;
}
