// The operator definitions that an engine profile chooses.
#pragma once

#include <set>
#include <string>
#include <string_view>

#include "operators/attention.h"
#include "operators/embedding.h"
#include "operators/log_softmax.h"
#include "operators/rms_norm.h"
#include "operators/rotary.h"
#include "operators/silu_and_mul.h"
#include "operators/top_k.h"

namespace qf {

template <class Args>
using Definition = void (*)(const OperatorContext&, const Args&);
/// Says what a call does that no recording confirms; null where a definition has nothing to confirm (fp32).
template <class Args>
using NotesOf = void (*)(const Args&, Notes&);

struct OperatorSet {
  Definition<EmbeddingArgs> embedding;
  Definition<RmsNormArgs> rms_norm;
  NotesOf<RmsNormArgs> rms_norm_notes;
  Definition<FusedAddRmsNormArgs> fused_add_rms_norm;
  NotesOf<FusedAddRmsNormArgs> fused_add_rms_norm_notes;
  Definition<RotaryArgs> rotary;
  NotesOf<RotaryArgs> rotary_notes;
  Definition<AttentionArgs> attention;
  NotesOf<AttentionArgs> attention_notes;
  Definition<SiluAndMulArgs> silu_and_mul;
  NotesOf<SiluAndMulArgs> silu_and_mul_notes;
  Definition<LogSoftmaxArgs> log_softmax;
  NotesOf<LogSoftmaxArgs> log_softmax_notes;
  Definition<TopKArgs> top_k;

  template <class Args>
  static void note(NotesOf<Args> notes_of, const Args& args, std::set<std::string>& into) {
    if (notes_of == nullptr) return;
    Notes notes;
    notes_of(args, notes);
    into.insert(notes.begin(), notes.end());
  }
};

/// profile: "vllm-0.21-eager" or "fp32". FlashAttention 3 needs Hopper's matrix instructions; vLLM takes 2 elsewhere.
OperatorSet operator_set(std::string_view profile, bool hopper);

}  // namespace qf
