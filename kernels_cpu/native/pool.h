// A few threads that share the calls of one process.
#pragma once
#include <cstdint>

// Work is cut into `chunks`, claimed one by one by whoever runs: the caller and the workers
// that happen to be awake. Returns when all are done. The caller waits only for workers that
// hold a chunk, never for one that the system has not scheduled. If another caller has the
// workers, this one does everything alone: calls never wait for each other.
using Chunk = void (*)(const void* context, int chunk);
void run_chunks(int chunks, Chunk chunk, const void* context);

// Threads a call may use, the caller's own included; at least 1.
void set_threads(int threads);
int threads();

// Counters since the process began, for tests: calls shared with workers, and waits for a
// worker that took so long that the next calls run alone.
struct PoolCounters {
  int64_t shared;
  int64_t stalls;
};
PoolCounters pool_counters();
