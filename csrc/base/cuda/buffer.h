// Device memory with an owner. Where it comes from is the caller's choice: the runtime's pool, or a framework's
// allocator.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <utility>

namespace qf::cuda {

/// `allocate` throws Error, with the number of bytes, when there is no memory. Both work in the order of `stream`.
struct Allocator {
  std::function<void*(size_t bytes, void* stream)> allocate;
  std::function<void(void* pointer, void* stream)> release;
};

/// cudaMallocAsync and cudaFreeAsync.
const Allocator& runtime_allocator();
/// Lets the current device's pool keep what is freed, for callers that allocate the same again and again.
void keep_freed_memory();

/// `count` values of T, not initialised. Moves, does not copy.
template <class T>
class Buffer {
 public:
  Buffer() = default;
  Buffer(const Allocator& allocator, size_t count, void* stream)
      : allocator_(&allocator), stream_(stream), count_(count) {
    if (count > 0) data_ = static_cast<T*>(allocator.allocate(count * sizeof(T), stream));
  }
  ~Buffer() {
    if (data_ != nullptr) allocator_->release(data_, stream_);
  }
  Buffer(Buffer&& other) noexcept { swap(other); }
  Buffer& operator=(Buffer&& other) noexcept {
    Buffer taken(std::move(other));
    swap(taken);
    return *this;
  }
  Buffer(const Buffer&) = delete;
  Buffer& operator=(const Buffer&) = delete;

  T* data() const { return data_; }
  size_t size() const { return count_; }
  size_t bytes() const { return count_ * sizeof(T); }

 private:
  void swap(Buffer& other) noexcept {
    std::swap(allocator_, other.allocator_);
    std::swap(stream_, other.stream_);
    std::swap(data_, other.data_);
    std::swap(count_, other.count_);
  }
  const Allocator* allocator_ = nullptr;
  void* stream_ = nullptr;
  T* data_ = nullptr;
  size_t count_ = 0;
};

/// Copies between host and device in the order of `stream`; host memory may be reused at once.
void copy_to_device(void* device, const void* host, size_t bytes, void* stream);
/// Waits for the copy.
void copy_to_host(void* host, const void* device, size_t bytes, void* stream);

template <class T>
Buffer<T> upload(const Allocator& allocator, const T* host, size_t count, void* stream) {
  Buffer<T> buffer(allocator, count, stream);
  if (count > 0) copy_to_device(buffer.data(), host, buffer.bytes(), stream);
  return buffer;
}

}  // namespace qf::cuda
