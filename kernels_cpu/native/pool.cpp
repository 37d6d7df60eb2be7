#include "pool.h"

#include <pthread.h>
#include <sched.h>
#include <signal.h>

#include <atomic>
#include <chrono>
#include <condition_variable>
#include <mutex>
#include <new>
#include <system_error>
#include <thread>

namespace {

using Clock = std::chrono::steady_clock;
using std::chrono::microseconds;

constexpr microseconds kSpin{50};          // a worker without work, before it sleeps
constexpr microseconds kWait{20};          // a caller for workers, before it sleeps
constexpr microseconds kRing{200};         // between two times that sleepers are woken
constexpr microseconds kGap{300};          // a spin interrupted this long: cores are scarce
constexpr microseconds kStall{300};        // a caller's wait that counts as a stall
constexpr int kCalm = 256;                 // sleeps without spinning after a gap
constexpr int kAlone = 32, kMostAlone = 1024;  // calls without workers after a stall
constexpr int kForgiven = 1024;                // calls without a stall that make up for one

void pause_cpu() {
#if defined(__x86_64__)
  __builtin_ia32_pause();
#elif defined(__aarch64__)
  asm volatile("yield");
#endif
}

// The core this thread is on; -1 where the system does not tell.
int current_core() {
#if defined(__linux__)
  return sched_getcpu();
#else
  return -1;
#endif
}

int usable_cores() {
#if defined(__linux__)
  cpu_set_t set;
  if (sched_getaffinity(0, sizeof set, &set) == 0) return CPU_COUNT(&set);
#endif
  return static_cast<int>(std::thread::hardware_concurrency());
}

// The gate says which call is open and how many workers are inside it:
// call number << 16 | open << 15 | workers inside.
constexpr uint32_t kOpen = 1u << 15, kInside = kOpen - 1;
uint32_t call_of(uint32_t gate) { return gate >> 16; }

class Pool {
 public:
  void run(int chunks, Chunk chunk, const void* context, int limit);

  std::atomic<int64_t> shared{0}, stalls{0};

 private:
  void work();
  void serve(int id);
  bool enter(uint32_t* seen);
  uint32_t wait_for_call(uint32_t seen, int id, int* calm);
  void sleep_until_call(uint32_t seen, int id);
  void start_workers(int limit);
  void wake_workers();
  void wait_for_workers();
  bool has_call(uint32_t seen, int id) const {
    return id < limit_.load() && call_of(gate_.load()) != seen;
  }

  alignas(64) std::atomic<uint32_t> gate_{0};
  alignas(64) std::atomic<int> next_{0};
  alignas(64) std::atomic<bool> busy_{false};
  // Written by the caller while no worker is inside, read by workers inside.
  int chunks_ = 0;
  Chunk chunk_ = nullptr;
  const void* context_ = nullptr;
  std::atomic<int> limit_{1};
  std::atomic<bool> spins_{true};
  std::atomic<int> caller_core_{-1};

  std::mutex mutex_;
  std::condition_variable call_came_;
  std::atomic<int> sleepers_{0};
  std::mutex leaving_;
  std::condition_variable left_;
  std::atomic<bool> caller_waits_{false};

  // Of the caller that has `busy_`.
  int started_ = 1;
  int alone_ = 0, next_alone_ = kAlone, smooth_ = 0;
  Clock::time_point last_ring_{};
};

void Pool::work() {
  for (int i = next_.fetch_add(1); i < chunks_; i = next_.fetch_add(1)) chunk_(context_, i);
}

// Takes part in the open call unless it has closed meanwhile; false then.
bool Pool::enter(uint32_t* seen) {
  uint32_t gate = gate_.load();
  *seen = call_of(gate);
  while (gate & kOpen) {
    if (gate_.compare_exchange_weak(gate, gate + 1)) return true;
    *seen = call_of(gate);
  }
  return false;
}

void Pool::serve(int id) {
  uint32_t seen = 0;
  int calm = 0;
  for (;;) {
    seen = wait_for_call(seen, id, &calm);
    if (!enter(&seen)) continue;
    work();
    gate_.fetch_sub(1);
    if (caller_waits_.load()) {
      std::lock_guard<std::mutex> lock(leaving_);
      left_.notify_one();
    }
  }
}

// Spins for a bounded time, then sleeps. Not at all where cores are scarce: fewer than
// threads, or busy with other work, which shows in a spin that was interrupted; and never on
// the caller's core, where a busy system may put a worker that it wakes.
uint32_t Pool::wait_for_call(uint32_t seen, int id, int* calm) {
  if (*calm > 0 || !spins_.load()) {
    *calm -= *calm > 0;
    sleep_until_call(seen, id);
    return seen;
  }
  const Clock::time_point begin = Clock::now();
  Clock::time_point last = begin;
  while (!has_call(seen, id)) {
    for (int i = 0; i < 8; i++) pause_cpu();
    const Clock::time_point now = Clock::now();
    if (now - last > kGap) *calm = kCalm;
    const int core = current_core();
    if (now - begin > kSpin || (core >= 0 && core == caller_core_.load())) {
      sleep_until_call(seen, id);
      break;
    }
    last = now;
  }
  return seen;
}

void Pool::sleep_until_call(uint32_t seen, int id) {
  std::unique_lock<std::mutex> lock(mutex_);
  sleepers_.fetch_add(1);
  call_came_.wait(lock, [&] { return has_call(seen, id); });
  sleepers_.fetch_sub(1);
}

// Signals stay with the threads of the program.
void Pool::start_workers(int limit) {
  if (limit == limit_.load()) return;
  spins_.store(limit <= usable_cores());
  sigset_t every, before;
  sigfillset(&every);
  pthread_sigmask(SIG_SETMASK, &every, &before);
  try {
    for (; started_ < limit; started_++) std::thread(&Pool::serve, this, started_).detach();
  } catch (const std::system_error&) {
    // Fewer threads than asked for: slower, still right.
  }
  pthread_sigmask(SIG_SETMASK, &before, nullptr);
}

// Workers that are wanted again soon still spin; where they cannot, on a busy machine, waking
// them for every call would cost more than they do.
void Pool::wake_workers() {
  const Clock::time_point now = Clock::now();
  if (now - last_ring_ < kRing) return;
  last_ring_ = now;
  { std::lock_guard<std::mutex> lock(mutex_); }
  call_came_.notify_all();
}

void Pool::wait_for_workers() {
  const Clock::time_point begin = Clock::now();
  Clock::time_point now = begin;
  while ((gate_.load() & kInside) && now - begin < kWait) {
    for (int i = 0; i < 8; i++) pause_cpu();
    now = Clock::now();
  }
  if (gate_.load() & kInside) {
    std::unique_lock<std::mutex> lock(leaving_);
    caller_waits_.store(true);
    left_.wait(lock, [&] { return (gate_.load() & kInside) == 0; });
    caller_waits_.store(false);
  }
  if (Clock::now() - begin > kStall) {
    // A worker lost its core while it held a chunk. Alone for a while, longer each time.
    stalls.fetch_add(1);
    alone_ = next_alone_;
    next_alone_ = next_alone_ * 2 < kMostAlone ? next_alone_ * 2 : kMostAlone;
    smooth_ = 0;
  }
}

void Pool::run(int chunks, Chunk chunk, const void* context, int limit) {
  bool free = false;
  const bool mine = limit > 1 && chunks > 1 && busy_.compare_exchange_strong(free, true);
  if (!mine || alone_ > 0) {
    if (mine) {
      alone_--;
      busy_.store(false);
    }
    for (int i = 0; i < chunks; i++) chunk(context, i);
    return;
  }
  start_workers(limit);
  chunks_ = chunks;
  chunk_ = chunk;
  context_ = context;
  next_.store(0);
  limit_.store(limit);
  caller_core_.store(current_core());
  gate_.store(((call_of(gate_.load()) + 1) << 16) | kOpen);
  if (sleepers_.load() > 0) wake_workers();
  work();
  if (gate_.fetch_and(~kOpen) & kInside) wait_for_workers();
  if (++smooth_ == kForgiven) next_alone_ = kAlone;
  shared.fetch_add(1);
  busy_.store(false);
}

std::atomic<Pool*> pool{nullptr};
std::atomic<int> wanted{1};

// The threads of the parent do not exist in the child, and its locks may be held for ever:
// the child gets a pool of its own and leaves the parent's alone.
void replace_pool() { pool.store(new (std::nothrow) Pool); }

Pool* current_pool() {
  static std::once_flag once;
  std::call_once(once, [] {
    replace_pool();
    pthread_atfork(nullptr, nullptr, replace_pool);
  });
  return pool.load();
}

}  // namespace

void run_chunks(int chunks, Chunk chunk, const void* context) {
  Pool* const here = wanted.load() > 1 ? current_pool() : nullptr;
  if (here != nullptr) {
    here->run(chunks, chunk, context, wanted.load());
    return;
  }
  for (int i = 0; i < chunks; i++) chunk(context, i);
}

void set_threads(int threads) { wanted.store(threads < 1 ? 1 : threads); }
int threads() { return wanted.load(); }

PoolCounters pool_counters() {
  Pool* const here = current_pool();
  return here == nullptr ? PoolCounters{0, 0}
                         : PoolCounters{here->shared.load(), here->stalls.load()};
}
