// Times of repeated work on a stream, by events.
#pragma once

#include <functional>
#include <vector>

namespace qf::cuda {

/// Milliseconds of each of `repeats` calls, after one that warms up. The work is queued call by call; each is waited
/// for.
std::vector<float> time_calls(int repeats, void* stream, const std::function<void()>& work);
/// Milliseconds of each of `repeats` replays of the graph that `work` queues on the stream it gets, after one that
/// warms up. `work` is called twice: once to set itself up, once to be captured.
std::vector<float> time_graph(int repeats, const std::function<void(void* stream)>& work);

}  // namespace qf::cuda
