#include "numerics/cuda/dot_add.h"

#include "base/cuda/check.h"
#include "base/error.h"
#include "base/formats.h"

namespace qf::cuda {
namespace {

constexpr int kThreads = 128;

unsigned blocks_for(int64_t threads) { return static_cast<unsigned>((threads + kThreads - 1) / kThreads); }

__device__ int64_t this_thread() { return blockIdx.x * static_cast<int64_t>(kThreads) + threadIdx.x; }

__global__ void cut_to_tf32_kernel(float* values, int64_t count) {
  const int64_t i = this_thread();
  if (i < count) values[i] = truncate_to_tf32(values[i]);
}

__global__ void __launch_bounds__(kThreads) dot_add_kernel(UnitMethod method, MatrixUnit unit, const float* a,
                                                           const float* b, int64_t count, int64_t length, float* c) {
  const int64_t row = this_thread();
  if (row < count) c[row] = dot_add_row(method, unit, a + row * length, b + row * length, length, c[row]);
}

__global__ void __launch_bounds__(kThreads)
    dot_add_int8_kernel(const float* a, const float* b, int64_t count, int64_t length, int32_t* c) {
  const int64_t row = this_thread();
  if (row < count) c[row] = dot_add_row(a + row * length, b + row * length, length, c[row]);
}

/// Uploads the rows, lets `launch` turn the accumulators into results, and fetches them.
template <class T, class Launch>
void on_device(const float* a, const float* b, const T* c, int64_t count, int64_t length, T* result,
               const Allocator& allocator, void* stream, const Launch& launch) {
  if (count == 0) return;
  const auto values = static_cast<size_t>(count * length);
  const Buffer<float> left = upload(allocator, a, values, stream), right = upload(allocator, b, values, stream);
  const Buffer<T> sums = upload(allocator, c, static_cast<size_t>(count), stream);
  launch(left.data(), right.data(), sums.data(), static_cast<int64_t>(values));
  check_launch("dot_add");
  copy_to_host(result, sums.data(), sums.bytes(), stream);
}

}  // namespace

void dot_add_rows(const DeviceUnit& unit, const float* a, const float* b, const float* c, int64_t count, int64_t length,
                  float* result, const Allocator& allocator, void* stream) {
  require(unit.method != UnitMethod::exact_int32, "the integer unit takes integer accumulators");
  const auto s = static_cast<cudaStream_t>(stream);
  on_device(
      a, b, c, count, length, result, allocator, stream, [&](float* left, float* right, float* sums, int64_t values) {
        if (unit.input == InputFormat::tf32 && values > 0) {
          cut_to_tf32_kernel<<<blocks_for(values), kThreads, 0, s>>>(left, values);
          cut_to_tf32_kernel<<<blocks_for(values), kThreads, 0, s>>>(right, values);
        }
        dot_add_kernel<<<blocks_for(count), kThreads, 0, s>>>(unit.method, unit.unit, left, right, count, length, sums);
      });
}

void dot_add_rows(const float* a, const float* b, const int32_t* c, int64_t count, int64_t length, int32_t* result,
                  const Allocator& allocator, void* stream) {
  on_device(a, b, c, count, length, result, allocator, stream, [&](float* left, float* right, int32_t* sums, int64_t) {
    dot_add_int8_kernel<<<blocks_for(count), kThreads, 0, static_cast<cudaStream_t>(stream)>>>(left, right, count,
                                                                                               length, sums);
  });
}

}  // namespace qf::cuda
