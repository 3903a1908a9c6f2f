#include "base/cuda/stopwatch.h"

#include "base/cuda/check.h"

namespace qf::cuda {
namespace {

struct Event {
  cudaEvent_t event{};
  Event() { check(cudaEventCreate(&event), "cudaEventCreate"); }
  ~Event() { cudaEventDestroy(event); }
  Event(const Event&) = delete;
  Event& operator=(const Event&) = delete;
};

struct Stream {
  cudaStream_t stream{};
  Stream() { check(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking), "cudaStreamCreate"); }
  ~Stream() { cudaStreamDestroy(stream); }
  Stream(const Stream&) = delete;
  Stream& operator=(const Stream&) = delete;
};

/// The work, captured on a stream.
struct Graph {
  cudaGraph_t graph{};
  cudaGraphExec_t ready{};
  Graph(cudaStream_t stream, const std::function<void(void*)>& work) {
    check(cudaStreamBeginCapture(stream, cudaStreamCaptureModeThreadLocal), "cudaStreamBeginCapture");
    work(stream);
    check(cudaStreamEndCapture(stream, &graph), "cudaStreamEndCapture");
    check(cudaGraphInstantiate(&ready, graph, 0), "cudaGraphInstantiate");
  }
  ~Graph() {
    cudaGraphExecDestroy(ready);
    cudaGraphDestroy(graph);
  }
  Graph(const Graph&) = delete;
  Graph& operator=(const Graph&) = delete;
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
  const Graph graph(own.stream, work);
  return time_calls(repeats, own.stream, [&] { check(cudaGraphLaunch(graph.ready, own.stream), "cudaGraphLaunch"); });
}

}  // namespace qf::cuda
