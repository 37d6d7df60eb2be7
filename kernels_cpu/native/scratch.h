// Working memory of a calling thread.
#pragma once
#include <cstddef>
#include <cstdlib>

// Grows with need and is kept for the next call.
class Scratch {
 public:
  ~Scratch() { std::free(memory_); }

  // Aligned to 64 bytes; null when memory is short.
  char* reserve(size_t bytes) {
    if (bytes > size_) {
      std::free(memory_);
      size_ = (bytes + 4095) / 4096 * 4096;
      memory_ = static_cast<char*>(std::aligned_alloc(64, size_));
      if (memory_ == nullptr) size_ = 0;
    }
    return memory_;
  }

 private:
  char* memory_ = nullptr;
  size_t size_ = 0;
};
