#include "base/cuda/stopwatch.h"

#include "base/cuda/check.h"
#include "base/cuda/graph.h"
#include "base/cuda/stream.h"

namespace qf::cuda {
namespace {

struct Event {
  cudaEvent_t event{};
  Event() { check(cudaEventCreate(&event), "cudaEventCreate"); }
  ~Event() { cudaEventDestroy(event); }
  Event(const Event&) = delete;
  Event& operator=(const Event&) = delete;
};

}  // namespace

std::vector<float> time_calls(int repeats, void* stream, const std::function<void()>& work) {
  const auto s = static_cast<cudaStream_t>(stream);
  const Event begin, end;
  std::vector<float> times;
  work();
  for (int i = 0; i < repeats; ++i) {
    check(cudaEventRecord(begin.event, s), "cudaEventRecord");
    work();
    check(cudaEventRecord(end.event, s), "cudaEventRecord");
    check(cudaEventSynchronize(end.event), "wait for the device");
    float milliseconds = 0.0f;
    check(cudaEventElapsedTime(&milliseconds, begin.event, end.event), "cudaEventElapsedTime");
    times.push_back(milliseconds);
  }
  return times;
}

std::vector<float> time_graph(int repeats, const std::function<void(void*)>& work) {
  check(cudaDeviceSynchronize(), "wait for the device");  // what the work reads may come from another stream
  const Stream own;
  work(own.stream);
  const Graph graph(work);
  return time_calls(repeats, own.stream, [&] { graph.launch(own.stream); });
}

}  // namespace qf::cuda
