// Device memory for an engine's steps: torch's, or while a step is recorded memory that belongs to the recording.
#pragma once

#include <map>
#include <memory>
#include <vector>

#include "base/cuda/buffer.h"

namespace qf {

/// Memory of one recording: what is released is given out again, within the recording alone.
class StepArena {
 public:
  /// Takes memory for a small step at once: in most recordings nothing is asked of the source.
  StepArena(const cuda::Allocator& source, void* stream);

  void* allocate(size_t bytes, void* stream);
  /// False where the pointer is not the arena's.
  bool release(void* pointer);

 private:
  struct Chunk {
    cuda::Buffer<char> memory;
    size_t used;
  };
  const cuda::Allocator& source_;
  std::vector<Chunk> chunks_;
  std::map<void*, size_t> sizes_;  // of all that was given out
  std::multimap<size_t, void*> free_;
};

class StepMemory {
 public:
  explicit StepMemory(cuda::Allocator source) : source_(std::move(source)) {}
  StepMemory(const StepMemory&) = delete;
  StepMemory& operator=(const StepMemory&) = delete;

  /// Refers to this object.
  cuda::Allocator allocator();
  /// From now on memory is the arena's, until the next call (null: torch's again). Arenas must not outlive this.
  void use(const std::shared_ptr<StepArena>& arena);
  /// The arena in use.
  const std::shared_ptr<StepArena>& arena() const { return active_; }

 private:
  void release(void* pointer, void* stream);

  cuda::Allocator source_;
  std::shared_ptr<StepArena> active_;
  std::vector<std::weak_ptr<StepArena>> arenas_;
};

}  // namespace qf
