// Time between two points of a stream.
#pragma once

namespace qf::cuda {

class Stopwatch {
 public:
  /// Starts on `stream`.
  explicit Stopwatch(void* stream);
  ~Stopwatch();
  Stopwatch(const Stopwatch&) = delete;
  Stopwatch& operator=(const Stopwatch&) = delete;

  /// Waits for the stream; milliseconds since the start.
  float stop() const;

 private:
  void* stream_;
  void* start_ = nullptr;
  void* end_ = nullptr;
};

}  // namespace qf::cuda
