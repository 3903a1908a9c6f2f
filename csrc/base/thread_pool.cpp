#include "base/thread_pool.h"

#include <atomic>
#include <condition_variable>
#include <exception>
#include <mutex>
#include <thread>
#include <vector>

#include "base/error.h"

namespace qf {

constexpr int kMaxThreads = 1024;  // no machine gains from more, and a typing error would take it down

struct ThreadPool::State {
  std::vector<std::thread> workers;
  std::mutex mutex;
  std::condition_variable wake, finished;
  std::atomic<uint64_t> generation{0};
  std::atomic<int64_t> next{0};
  std::atomic<int> busy{0};
  int64_t count = 0;
  const std::function<void(int64_t)>* body = nullptr;
  std::exception_ptr failure;
  bool stop = false;

  void drain() {
    for (int64_t item; (item = next.fetch_add(1, std::memory_order_relaxed)) < count;) {
      try {
        (*body)(item);
      } catch (...) {
        std::lock_guard lock(mutex);
        if (!failure) failure = std::current_exception();
        next.store(count, std::memory_order_relaxed);
      }
    }
  }

  // Decode issues hundreds of small loops per token: a short spin saves the sleep and wake-up between them.
  static constexpr int kSpins = 20000;

  void work() {
    uint64_t seen = 0;
    for (;;) {
      for (int spin = 0; spin < kSpins && generation.load(std::memory_order_acquire) == seen; ++spin) {
#if defined(__x86_64__)
        __builtin_ia32_pause();
#endif
      }
      if (generation.load(std::memory_order_acquire) == seen) {
        std::unique_lock lock(mutex);
        wake.wait(lock, [&] { return generation.load(std::memory_order_acquire) != seen; });
      }
      seen = generation.load(std::memory_order_acquire);
      if (stop) return;
      drain();
      if (busy.fetch_sub(1, std::memory_order_acq_rel) == 1) {
        std::lock_guard lock(mutex);
        finished.notify_one();
      }
    }
  }
};

ThreadPool::ThreadPool(int threads) : state_(std::make_unique<State>()) {
  require(threads >= 1 && threads <= kMaxThreads, "threads: expected 1 .. ", kMaxThreads, ", found ", threads);
  for (int i = 1; i < threads; ++i) state_->workers.emplace_back([state = state_.get()] { state->work(); });
}

ThreadPool::~ThreadPool() {
  {
    std::lock_guard lock(state_->mutex);
    state_->stop = true;
    state_->generation.fetch_add(1, std::memory_order_release);
  }
  state_->wake.notify_all();
  for (std::thread& worker : state_->workers) worker.join();
}

int ThreadPool::threads() const { return static_cast<int>(state_->workers.size()) + 1; }

void ThreadPool::run(int64_t count, const std::function<void(int64_t)>& body) {
  State& state = *state_;
  if (state.workers.empty() || count <= 1) {
    for (int64_t item = 0; item < count; ++item) body(item);
    return;
  }
  {
    std::lock_guard lock(state.mutex);
    state.count = count;
    state.body = &body;
    state.failure = nullptr;
    state.next.store(0, std::memory_order_relaxed);
    state.busy.store(static_cast<int>(state.workers.size()), std::memory_order_relaxed);
    state.generation.fetch_add(1, std::memory_order_release);
  }
  state.wake.notify_all();
  state.drain();
  for (int spin = 0; spin < State::kSpins && state.busy.load(std::memory_order_acquire) != 0; ++spin) {
#if defined(__x86_64__)
    __builtin_ia32_pause();
#endif
  }
  std::unique_lock lock(state.mutex);
  state.finished.wait(lock, [&] { return state.busy.load(std::memory_order_acquire) == 0; });
  if (state.failure) std::rethrow_exception(state.failure);
}

}  // namespace qf
