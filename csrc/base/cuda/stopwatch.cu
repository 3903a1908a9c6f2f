#include "base/cuda/stopwatch.h"

#include "base/cuda/check.h"

namespace qf::cuda {

Stopwatch::Stopwatch(void* stream) : stream_(stream) {
  cudaEvent_t start = nullptr, end = nullptr;
  check(cudaEventCreate(&start), "cudaEventCreate");
  start_ = start;
  check(cudaEventCreate(&end), "cudaEventCreate");
  end_ = end;
  check(cudaEventRecord(start, static_cast<cudaStream_t>(stream)), "cudaEventRecord");
}

Stopwatch::~Stopwatch() {
  if (start_ != nullptr) cudaEventDestroy(static_cast<cudaEvent_t>(start_));
  if (end_ != nullptr) cudaEventDestroy(static_cast<cudaEvent_t>(end_));
}

float Stopwatch::stop() const {
  float milliseconds = 0.0f;
  check(cudaEventRecord(static_cast<cudaEvent_t>(end_), static_cast<cudaStream_t>(stream_)), "cudaEventRecord");
  check(cudaEventSynchronize(static_cast<cudaEvent_t>(end_)), "wait for the device");
  check(cudaEventElapsedTime(&milliseconds, static_cast<cudaEvent_t>(start_), static_cast<cudaEvent_t>(end_)),
        "cudaEventElapsedTime");
  return milliseconds;
}

}  // namespace qf::cuda
