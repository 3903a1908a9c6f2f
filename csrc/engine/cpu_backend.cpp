#include "engine/cpu_backend.h"

#include <algorithm>
#include <cstring>

#include "kernels/emulate/emulate_gemm.h"
#include "kernels/emulate/half_window.h"

namespace qf {
namespace {

constexpr int64_t kChunkRows = 16;  // bounds the fp32 logprobs held at once

class CpuWeight final : public Weight {
 public:
  CpuWeight(PackedWeight weight, Isa isa, ThreadPool* pool) : weight_(std::move(weight)), isa_(isa), pool_(pool) {}

  void multiply(const Plan& plan, const GemmArgs& args, const Races& races) override {
    emulate_gemm(plan, weight_, args, {isa_, pool_, races.seed, races.deterministic, &spans_});
  }
  void copy_rows(const int64_t* ids, int64_t count, Format format, void* out) const override {
    weight_.copy_rows(ids, count, format, out);
  }

 private:
  PackedWeight weight_;
  PanelSpans spans_;
  Isa isa_;
  ThreadPool* pool_;
};

}  // namespace

CpuBackend::CpuBackend(OperatorSet operators, Isa isa, int threads)
    : operators_(std::move(operators)), isa_(isa), pool_(std::make_unique<ThreadPool>(threads)) {}

std::unique_ptr<Weight> CpuBackend::take(PackedWeight weight) {
  return std::make_unique<CpuWeight>(std::move(weight), isa_, pool_.get());
}

void CpuBackend::write(const at::Tensor& to, const void* host) { std::memcpy(to.data_ptr(), host, to.nbytes()); }

LogprobAnswer CpuBackend::logprobs(const at::Tensor& logits, const LogprobQuery& query) {
  const int64_t count = logits.size(0), vocabulary = logits.size(1), top_k = query.top_k;
  LogprobAnswer answer;
  answer.top_ids.resize(static_cast<size_t>(count * top_k));
  answer.top_values.resize(answer.top_ids.size());
  std::vector<float> chunk(static_cast<size_t>(std::min(count, kChunkRows) * vocabulary));
  for (int64_t first = 0; first < count; first += kChunkRows) {
    const int64_t n = std::min(kChunkRows, count - first);
    run(LogSoftmaxArgs{query.dtype, logits.narrow(0, first, n).data_ptr(), chunk.data(), n, vocabulary,
                       logits.stride(0)});
    run(TopKArgs{chunk.data(), n, vocabulary, top_k, answer.top_ids.data() + first * top_k,
                 answer.top_values.data() + first * top_k});
    for (size_t i = answer.single.size(); i < query.rows.size() && query.rows[i] < first + n; ++i)
      answer.single.push_back(chunk[static_cast<size_t>((query.rows[i] - first) * vocabulary + query.ids[i])]);
  }
  return answer;
}

int64_t CpuBackend::logits_rows(int64_t row_bytes) const {
  constexpr int64_t kBlockBytes = 8 << 20, kLeastRows = 16;  // fewer rows would read the weights too often
  return std::max(kLeastRows, kBlockBytes / row_bytes / kLeastRows * kLeastRows);
}

std::unique_ptr<KeyValuePanels> CpuBackend::new_panels(int64_t kv_heads, int64_t head_size) const {
  return std::make_unique<KeyValuePanels>(kv_heads, head_size);
}

}  // namespace qf
