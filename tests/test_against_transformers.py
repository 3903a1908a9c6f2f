"""The fp32 profile against transformers' own forward pass, on real text."""

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM

import qforensics as qf
from conftest import TRACES
from qforensics import prepare


@pytest.fixture(scope="module")
def prompt() -> list[int]:
    return qf.import_trace(TRACES / "vllm-0.21.0-h200" / "long" / "awq-eager.json", 1).prompt_ids[:220].tolist()


@pytest.fixture(scope="module")
def reference(demo_model):
    path = prepare.prepared_path("fp16")
    return AutoModelForCausalLM.from_pretrained(path, dtype=torch.float32, attn_implementation="eager").eval()


def test_logprobs_agree_within_a_thousandth(demo_model, reference, prompt):
    """fp32 rounding noise of 30 layers; 1e-3 is the issue's bound, the measured difference is below 1e-4."""
    with torch.inference_mode():
        logprobs = torch.log_softmax(reference(torch.tensor([prompt])).logits[0].double(), dim=-1).numpy()
    trace = qf.load_model(demo_model, variant="fp16", profile="fp32").generate(prompt, max_new_tokens=1)
    rows = np.repeat(np.arange(trace.prefill.rows), np.diff(trace.prefill.offsets))
    difference = np.abs(trace.prefill.logprobs - logprobs[rows, trace.prefill.ids])
    assert not (difference.max() > 1e-3), difference.max()
    assert trace.prefill.rows == len(prompt) - 1 >= 200


def test_same_greedy_tokens_over_64(demo_model, reference, prompt):
    start = prompt[:40]
    with torch.inference_mode():
        ids = reference.generate(torch.tensor([start]), max_new_tokens=64, min_new_tokens=64, do_sample=False)[
            0, len(start) :
        ]
    trace = qf.load_model(demo_model, variant="fp16", profile="fp32").generate(start, max_new_tokens=64)
    assert trace.generated_ids.tolist() == ids.tolist()
