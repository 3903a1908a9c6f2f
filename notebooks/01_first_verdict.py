# ---
# jupyter:
#   jupytext:
#     formats: ipynb,py:percent
#     text_representation:
#       extension: .py
#       format_name: percent
#       format_version: '1.3'
#       jupytext_version: 1.19.6
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # A first verdict
#
# Somebody hands us tokens with their logprobs and says: *vLLM made these on an H200, from AWQ weights, with the
# option `awq_marlin`*. We have the claim, the checkpoint and a CPU. Floating-point addition is not associative, so a
# kernel and a GPU leave their trace in the low bits of every logprob. We replay the run in exactly their arithmetic:
# under the true hypothesis **every bit** comes back, under a false one hardly any does.

# %%
import functools
import tempfile
from pathlib import Path

import matplotlib.pyplot as plt

import qforensics as qf

RECORDED = Path("../tests/data/traces/vllm-0.21.0-h200")
MODEL = "smollm2-135m-padded"  # SmolLM2-135M-Instruct; prepared and quantized on first use
STEPS = 6  # decode steps to replay: all 32 work as well

# %% [markdown]
# ## The evidence
#
# A recording of a real run: a prompt of 38 tokens, then greedy tokens, with the 20 largest logprobs of every position.

# %%
evidence = qf.import_trace(RECORDED / "awq_marlin.json").head(STEPS)
evidence

# %% [markdown]
# ## Two hypotheses
#
# The same AWQ weights through two kernels. On Hopper, vLLM 0.21 runs *machete* for `awq_marlin`.

# %%
claimed = qf.load_model(MODEL, variant="awq_marlin", device="h200")
other = qf.load_model(MODEL, variant="awq", device="h200")
print(claimed)
print(other)

# %% [markdown]
# Replaying forces the recorded ids through the model: the prompt as one prefill, every later token as a true decode
# step.

# %%
comparisons = {
    "awq_marlin@h200": qf.compare(evidence, claimed.teacher_force(evidence)),
    "awq@h200": qf.compare(evidence, other.teacher_force(evidence)),
}
for name, comparison in comparisons.items():
    print(f"{name:16} {comparison}")

# %% [markdown]
# ## The verdict
#
# There is no threshold in it: 0 differing logprobs is a match, and one that differs where exactness must hold is not.

# %%
verdict = qf.judge("awq_marlin@h200", comparisons)
verdict

# %%
assert verdict.outcome == "match"
assert comparisons["awq_marlin@h200"].differing == 0
assert verdict.excluded == ("awq@h200",)

# %% [markdown]
# How far off is the false hypothesis, token by token? A few hundredths: far less than what changes a token, so the text
# alone shows nothing. (Grey dots: rows with equal bits.)

# %%
figure, axes = plt.subplots(2, 1, figsize=(8.5, 5.6), sharex=True, sharey=True, layout="constrained")
for ax, (name, comparison) in zip(axes, comparisons.items(), strict=True):
    comparison.plot(ax)
    ax.set(title=f"awq_marlin recorded on an H200, replayed as {name}")
_ = axes[0].set_xlabel("")

# %% [markdown]
# ## All claims against all hypotheses
#
# A study replays every reference under every hypothesis and keeps what it finished; the frame marks equal bits. The
# GPU is part of the hypothesis: `awq_marlin` on an A100 runs another kernel (*marlin*).

# %%
hypotheses = [
    qf.StudyVariant(f"{variant}@{device}", functools.partial(qf.load_model, MODEL, variant, device))
    for variant, device in (("awq", "h200"), ("awq_marlin", "h200"), ("awq_marlin", "a100"))
]
references = {f"{name}@h200": [qf.import_trace(RECORDED / f"{name}.json").head(2)] for name in ("awq", "awq_marlin")}
with tempfile.TemporaryDirectory() as folder:
    result = qf.study(hypotheses, work_dir=folder, references=references, repeats=0)
figure, axes = plt.subplots(1, 2, figsize=(11, 3.3), layout="constrained")
for ax, phase in zip(axes, ("prefill", "decode"), strict=True):
    result.plot(ax, phase=phase)
_ = axes[1].set_ylabel("")
result

# %%
assert {v.claim: v.outcome for v in result.verdicts} == {"awq@h200": "match", "awq_marlin@h200": "match"}

# %% [markdown]
# ## Where it cannot be decided so
#
# vLLM's `gptq` kernel adds with racing atomics: two runs of the very same thing differ. The repeats below draw their
# order anew, as a GPU does; their distances are the noise floor, and a claim of `gptq` is inconclusive by exactness.

# %%
gptq = qf.load_model(MODEL, variant="gptq", device="h200")
repeats = [gptq.generate(evidence.prompt_ids[:16], max_new_tokens=2) for _ in range(3)]
floor = qf.noise_floor(repeats)
figure, ax = plt.subplots(figsize=(6, 3.2), layout="constrained")
floor.plot(ax)
floor

# %%
recorded = qf.import_trace(RECORDED / "gptq.json").head(2)
inconclusive = qf.judge("gptq@h200", {"gptq@h200": qf.compare(recorded, gptq.teacher_force(recorded))}, floor=floor)
assert inconclusive.outcome == "inconclusive"
inconclusive
