// Norms and gates of many rows, shared out in runs of rows.
#include "interface.h"
#include "levels.h"
#include "pool.h"

namespace {

constexpr int64_t kRowWork = 1 << 15;  // elements of a run of rows: about 5 us

template <class Call>
struct RowsJob {
  Call call;
  void (*run)(const Call& call, int begin, int end);
  int chunk;
};

template <class Call>
void rows_chunk(const void* context, int index) {
  const RowsJob<Call>& job = *static_cast<const RowsJob<Call>*>(context);
  const int begin = index * job.chunk, rows = job.call.rows;
  job.run(job.call, begin, begin + job.chunk < rows ? begin + job.chunk : rows);
}

template <class Call>
void run_rows(const Call& call, void (*run)(const Call&, int, int), int columns) {
  if (call.rows <= 0 || columns <= 0) return;
  const RowsJob<Call> job{call, run, static_cast<int>(kRowWork / columns) + 1};
  run_chunks((call.rows + job.chunk - 1) / job.chunk, rows_chunk<Call>, &job);
}

}  // namespace

RTP_EXPORT void rtp_norm_rows(const uint16_t* x, const void* norm, int32_t norm_wide, float eps,
                              const uint16_t* residual, uint16_t* out, int32_t rows,
                              int32_t columns) {
  const NormCall call{x, {norm, norm_wide != 0}, eps, residual, out, rows, columns};
  run_rows(call, current_level().norm_rows, columns);
}

RTP_EXPORT void rtp_gate_rows(const uint16_t* both, uint16_t* out, int32_t activation,
                              int32_t rows, int32_t width) {
  const GateCall call{both, out, static_cast<Activation>(activation), rows, width};
  run_rows(call, current_level().gate_rows, width);
}
