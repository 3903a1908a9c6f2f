#include "engine/cuda/step_memory.h"

#include <algorithm>

namespace qf {
namespace {

constexpr size_t kAlignment = 512, kChunkBytes = size_t{8} << 20;

}  // namespace

StepArena::StepArena(const cuda::Allocator& source, void* stream) : source_(source) {
  chunks_.push_back({cuda::Buffer<char>(source_, kChunkBytes, stream), 0});
}

void* StepArena::allocate(size_t bytes, void* stream) {
  const size_t rounded = std::max(kAlignment, (bytes + kAlignment - 1) / kAlignment * kAlignment);
  if (const auto found = free_.find(rounded); found != free_.end()) {
    void* const pointer = found->second;
    free_.erase(found);
    return pointer;
  }
  if (chunks_.back().used + rounded > chunks_.back().memory.size()) {
    chunks_.push_back({cuda::Buffer<char>(source_, std::max(rounded, kChunkBytes), stream), 0});
  }
  Chunk& chunk = chunks_.back();
  void* const pointer = chunk.memory.data() + chunk.used;
  chunk.used += rounded;
  sizes_.emplace(pointer, rounded);
  return pointer;
}

bool StepArena::release(void* pointer) {
  const auto found = sizes_.find(pointer);
  if (found == sizes_.end()) return false;
  free_.emplace(found->second, pointer);
  return true;
}

cuda::Allocator StepMemory::allocator() {
  return {[this](size_t bytes, void* stream) {
            return active_ != nullptr ? active_->allocate(bytes, stream) : source_.allocate(bytes, stream);
          },
          [this](void* pointer, void* stream) { release(pointer, stream); }};
}

void StepMemory::use(const std::shared_ptr<StepArena>& arena) {
  active_ = arena;
  std::erase_if(arenas_, [](const auto& known) { return known.expired(); });
  if (arena != nullptr) arenas_.push_back(arena);
}

void StepMemory::release(void* pointer, void* stream) {
  for (const auto& known : arenas_) {
    if (const auto arena = known.lock(); arena != nullptr && arena->release(pointer)) return;
  }
  source_.release(pointer, stream);
}

}  // namespace qf
