// Work that is recorded once and launched as a whole (CUDA graphs).
#pragma once

#include <functional>

namespace qf::cuda {

class Graph {
 public:
  /// Records what `work` queues on the stream it gets, without running it. Whatever the work's kernels read and write
  /// outlives the graph; host memory is read now. Throws Error where the work does what cannot be recorded (waiting).
  explicit Graph(const std::function<void(void* stream)>& work);
  ~Graph();
  Graph(const Graph&) = delete;
  Graph& operator=(const Graph&) = delete;

  void launch(void* stream) const;

 private:
  void* ready_ = nullptr;  // cudaGraphExec_t
};

}  // namespace qf::cuda
