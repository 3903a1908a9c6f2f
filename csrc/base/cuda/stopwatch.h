// Times of repeated work on a stream, by events.
#pragma once

#include <functional>
#include <vector>

namespace qf::cuda {

/// Milliseconds of each of `repeats` calls, after one that warms up. The work is queued call by call; each is waited
/// for.
std::vector<float> time_calls(int repeats, void* stream, const std::function<void()>& work);

}  // namespace qf::cuda
