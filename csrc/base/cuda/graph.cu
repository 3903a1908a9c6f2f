#include "base/cuda/graph.h"

#include "base/cuda/check.h"
#include "base/cuda/stream.h"

namespace qf::cuda {
namespace {

/// Recording, from the start to take(); one that is left before is thrown away.
class Capture {
 public:
  // relaxed: allocators may ask the driver for memory meanwhile
  explicit Capture(cudaStream_t stream) : stream_(stream) {
    check(cudaStreamBeginCapture(stream, cudaStreamCaptureModeRelaxed), "cudaStreamBeginCapture");
  }
  ~Capture() {
    if (!taken_) cudaStreamEndCapture(stream_, &graph_);
    if (graph_ != nullptr) cudaGraphDestroy(graph_);
    if (!taken_) cudaGetLastError();  // a capture that failed leaves its error behind
  }
  Capture(const Capture&) = delete;
  Capture& operator=(const Capture&) = delete;

  cudaGraph_t take() {
    taken_ = true;
    check(cudaStreamEndCapture(stream_, &graph_), "cudaStreamEndCapture");
    return graph_;
  }

 private:
  cudaStream_t stream_;
  cudaGraph_t graph_{};
  bool taken_ = false;
};

}  // namespace

Graph::Graph(const std::function<void(void*)>& work) {
  const Stream own;
  Capture capture(own.stream);
  work(own.stream);
  cudaGraphExec_t ready{};
  check(cudaGraphInstantiate(&ready, capture.take(), 0), "cudaGraphInstantiate");
  ready_ = ready;
}

Graph::~Graph() { cudaGraphExecDestroy(static_cast<cudaGraphExec_t>(ready_)); }

void Graph::launch(void* stream) const {
  check(cudaGraphLaunch(static_cast<cudaGraphExec_t>(ready_), static_cast<cudaStream_t>(stream)), "cudaGraphLaunch");
}

}  // namespace qf::cuda
