// One linear layer: prepare the rows, then share out the panels.
#include <algorithm>

#include "interface.h"
#include "levels.h"
#include "pool.h"
#include "scratch.h"

namespace {

// Weights of a chunk, for up to 8 rows: 4 to 30 us.
constexpr int64_t kLeastWork = 1 << 16, kMostWork = 1 << 18;
constexpr int kChunksPerThread = 8;  // where there is work for them
constexpr int kCallerRows = 4;       // rows the caller prepares alone

struct LinearJob {
  const LinearCall* call;
  const Level* level;
  PreparedRows rows;
  Form form;
  Activation activation;
  int size, chunk;  // panels, and how many a chunk has
};

bool reserve_rows(LinearJob* job) {
  static thread_local Scratch scratch;
  const size_t tokens = job->call->tokens, columns = job->call->weight->columns;
  if (job->call->weight->bits == 16) {
    job->rows.wide = reinterpret_cast<float*>(scratch.reserve(tokens * columns * sizeof(float)));
    return job->rows.wide != nullptr;
  }
  const size_t scalars = tokens * (columns / kGroup);
  const size_t code_bytes = (tokens * columns + 63) / 64 * 64;
  char* memory = scratch.reserve(code_bytes + 12 * scalars);
  if (memory == nullptr) return false;
  job->rows.codes = reinterpret_cast<int8_t*>(memory);
  job->rows.scale = reinterpret_cast<float*>(memory + code_bytes);
  job->rows.weighted = job->rows.scale + scalars;
  job->rows.start = reinterpret_cast<int32_t*>(job->rows.weighted + scalars);
  return true;
}

void prepare_chunk(const void* context, int index) {
  const LinearJob& job = *static_cast<const LinearJob*>(context);
  job.level->prepare(*job.call, job.rows, index, index + 1);
}

void panel_chunk(const void* context, int index) {
  const LinearJob& job = *static_cast<const LinearJob*>(context);
  const int begin = index * job.chunk;
  const int end = begin + job.chunk < job.size ? begin + job.chunk : job.size;
  job.level->panels(*job.call, job.form, job.activation, job.rows, begin, end);
}

// Small chunks, so that a thread that loses its core keeps little of the work, of equal size.
int panels_a_chunk(const LinearJob& job) {
  const int64_t blocks = (job.call->tokens + 7) / 8, twice = job.form == Form::kGated ? 2 : 1;
  const int64_t panel = blocks * kPanel * job.call->weight->columns * twice;
  const int64_t even = job.size / (kChunksPerThread * threads());
  const int64_t wanted = std::clamp(even, kLeastWork / panel, kMostWork / panel);
  const int64_t chunks = (job.size + wanted) / (wanted + 1);
  return static_cast<int>((job.size + chunks - 1) / chunks);
}

}  // namespace

// Returns 0, or -1 when memory is short.
RTP_EXPORT int32_t rtp_linear(const Weight* weight, const uint16_t* x, int32_t tokens,
                              const void* norm, int32_t norm_wide, float eps, float norm_offset,
                              const uint16_t* bias, const uint16_t* residual, void* out,
                              int32_t form, int32_t activation) {
  if (tokens <= 0) return 0;
  const LinearCall call{weight,      x,    {norm, norm_wide != 0}, eps,
                        norm_offset, bias, residual,               out, tokens};
  LinearJob job{&call, &current_level(), {}, static_cast<Form>(form),
                static_cast<Activation>(activation), 0, 1};
  if (!reserve_rows(&job)) return -1;
  if (tokens <= kCallerRows)
    job.level->prepare(call, job.rows, 0, tokens);
  else
    run_chunks(tokens, prepare_chunk, &job);
  const int width = job.form == Form::kGated ? weight->rows / 2 : weight->rows;
  job.size = (width + kPanel - 1) / kPanel;
  job.chunk = panels_a_chunk(job);
  run_chunks((job.size + job.chunk - 1) / job.chunk, panel_chunk, &job);
  return 0;
}
