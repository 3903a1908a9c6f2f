"""The engine's own checks, below those of the checkpoint readers: weights that are missing or of other sizes, calls out
of order, calls at the same time."""

import dataclasses

import numpy as np
import pytest

import qforensics as qf
from checkpoint_files import CONFIG, dense_tensors, write_directory
from qforensics import _core
from qforensics._model import _import_engine
from qforensics.devices import device
from qforensics.plans import device_numbers

RUNNABLE = dataclasses.replace(CONFIG, head_dim=64)
HIDDEN, VOCABULARY = 16, 8
SIZES = {
    "layers": 1, "hidden": HIDDEN, "intermediate": 32, "heads": 2, "kv_heads": 1, "head_size": 64,
    "vocabulary": VOCABULARY, "rms_epsilon": 1e-5,
}  # fmt: skip
LINEARS = {
    "qkv_proj": (4 * 64, HIDDEN), "o_proj": (HIDDEN, 128), "gate_up_proj": (64, HIDDEN), "down_proj": (HIDDEN, 32),
    "lm_head": (VOCABULARY, HIDDEN),
}  # fmt: skip
TENSORS = {
    "input_norm": (HIDDEN,), "post_attention_norm": (HIDDEN,), "final_norm": (HIDDEN,), "rotary_cache": (4, 64),
}  # fmt: skip


def build(tensors=TENSORS, linears=LINEARS):
    engine = _import_engine().Engine(
        config=SIZES, dtype="fp32", profile="fp32", compute_major=9, executor="cpu", isa="portable", threads=1,
        device=_core.DeviceNumbers(device_numbers(device("h200"))), deterministic=True, special=None,
    )  # fmt: skip
    for name, shape in tensors.items():
        engine.set_tensor(name, -1 if name in ("final_norm", "rotary_cache") else 0, np.ones(shape, np.float32))
    for name, (n, k) in linears.items():
        weight = _core.pack_dense(np.zeros((n, k), np.float32))
        options = _core.KernelOptions()
        options.dense = True
        engine.set_linear(name, -1 if name == "lm_head" else 0, "fp32", options, weight, None)
    engine.finish()
    return engine


def request():
    none = {"prefill_offsets": np.zeros(0, np.int64), "prefill_ids": np.zeros(0, np.int32)}
    none |= {"decode_offsets": np.zeros(0, np.int64), "decode_ids": np.zeros(0, np.int32)}
    ids = {"prompt": np.array([1, 2], np.int64), "forced": np.zeros(0, np.int64)}
    return {**ids, "new_tokens": 1, "prompt_logprobs": True, **none}


def test_whole_weights_run() -> None:
    assert build().run([request()], 3, 0)["sequences"][0]["generated"].tolist() == [0]


@pytest.mark.parametrize("name", [*TENSORS, *LINEARS])
def test_a_missing_weight_is_named(name: str) -> None:
    tensors, linears = ({k: v for k, v in table.items() if k != name} for table in (TENSORS, LINEARS))
    with pytest.raises(ValueError, match=f"{name}: missing"):
        build(tensors, linears)


@pytest.mark.parametrize("name", TENSORS)
def test_a_tensor_of_another_size_is_named(name: str) -> None:
    shape = tuple(size + 1 for size in TENSORS[name])
    with pytest.raises(ValueError, match=f"{name}: expected Float .*, found Float"):
        build(TENSORS | {name: shape})


@pytest.mark.parametrize("name", LINEARS)
def test_a_linear_layer_of_another_size_is_named(name: str) -> None:
    n, k = LINEARS[name]
    with pytest.raises(ValueError, match=f"{name}: expected N = {n}, K = {k}, found N = {n + 1}, K = {k}"):
        build(linears=LINEARS | {name: (n + 1, k)})


def test_a_finished_engine_takes_no_weights() -> None:
    engine = build()
    with pytest.raises(ValueError, match="finished"):
        engine.set_tensor("final_norm", -1, np.ones(HIDDEN, np.float32))
    with pytest.raises(ValueError, match="finished"):
        engine.finish()


def test_one_call_at_a_time(tmp_path) -> None:
    path = write_directory(tmp_path / "model", RUNNABLE, dense_tensors(RUNNABLE))
    model = qf.load_model(path, variant="fp16", profile="fp32")
    refused = []

    def again(done: int, total: int) -> None:
        with pytest.raises(ValueError, match="running already"):
            model.generate([1, 2], max_new_tokens=1)
        refused.append(done)

    model.generate([1, 2, 3], max_new_tokens=2, progress=again)
    assert refused
    assert model.generate([1, 2, 3], max_new_tokens=2).generated_ids.size == 2


def test_torchs_errors_come_in_one_sentence() -> None:
    """A cache of 2^50 bytes: torch refuses it, and its stack of C++ frames stays behind."""
    with pytest.raises(ValueError, match="allocate") as caught:
        build().run([request() | {"new_tokens": 1 << 42}], 3, 0)
    assert "frame #" not in str(caught.value)
