// A fixed set of threads that share the items of a loop. Results never depend on their number: an item writes only its
// own outputs, and no item reads another's.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>

namespace qf {

class ThreadPool {
 public:
  /// threads >= 1, the calling thread included.
  explicit ThreadPool(int threads);
  ~ThreadPool();
  ThreadPool(const ThreadPool&) = delete;
  ThreadPool& operator=(const ThreadPool&) = delete;

  int threads() const;
  /// Calls body(item) for every item in [0, count), each once, in any order. The first exception is thrown again here.
  /// One caller at a time.
  void run(int64_t count, const std::function<void(int64_t)>& body);

 private:
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace qf
