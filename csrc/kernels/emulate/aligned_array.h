// Uninitialised memory on a cache line.
#pragma once

#include <cstddef>
#include <new>

namespace qf {

template <class T>
class AlignedArray {
 public:
  explicit AlignedArray(size_t count) : data_(static_cast<T*>(::operator new(count * sizeof(T) + 1, kAlign))) {}
  ~AlignedArray() { ::operator delete(data_, kAlign); }
  AlignedArray(const AlignedArray&) = delete;
  AlignedArray& operator=(const AlignedArray&) = delete;

  T* get() { return data_; }
  const T* get() const { return data_; }

 private:
  static constexpr std::align_val_t kAlign{64};
  T* data_;
};

}  // namespace qf
