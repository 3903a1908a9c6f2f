"""Arrays and numbers that a caller got wrong, at `_core` and at the functions over it: each is refused in a sentence
that names the argument; nothing crashes, hangs, or allocates what a size asks for."""

import ml_dtypes
import numpy as np
import pytest

from qforensics import _core, kernels, operators
from qforensics._sfu import sfu_tables
from qforensics.plans import device_numbers

F32 = np.float32
K, N, G = 256, 128, 128
HUGE = 2**62


def numbers(**changes):
    return _core.DeviceNumbers(device_numbers("h200") | changes)


def make_plan(kernel="marlin", m=4, n=N, k=K, group=G, device=None):
    return _core.make_plan(kernel, m, n, k, group, "fp16", device or numbers(), _core.KernelOptions())


def pack(**changes):
    parts = {
        "codes": np.ones((K, N), np.uint8), "zeros": np.zeros((K // G, N), np.uint8),
        "scales": np.full((K // G, N), 0x3C00, np.uint16), "scale_format": "fp16", "group_size": G, "offsets": None,
        "group_index": None,
    }  # fmt: skip
    return _core.pack_codes(**(parts | changes))


def runner(threads=1):
    return _core.KernelRunner("portable", threads)


def emulate_core(plan, activations=None, weight=None):
    rows = np.zeros((plan.m, plan.k), np.uint16) if activations is None else activations
    return _core.emulate_gemm(plan, weight or pack(), rows, None, runner(), 0, True)


def chain(isa="portable", **changes):
    unit = {"products": 16, "fraction_bits": 25, "half_out": False, "zero_exponent": -133, "input_exponent": -14}
    zeros = np.zeros((1, 16), F32)
    return _core.dot_chain(zeros, np.zeros((16, 16), F32), zeros, isa=isa, fresh=False, repeat=1, **(unit | changes))


def runtime(threads=1):
    return _core.OperatorRuntime("vllm-0.21-eager", 9, sfu_tables(lg2=True), "portable", threads)


def bits(*shape):
    return np.zeros(shape, np.uint16)


def attend(q=(4, 2, 64), k=(4, 1, 64), unit=(16, 25, -133), panels=(), sequences=1):
    arrays = ([bits(*shape)] * sequences for shape in (q, k, k))
    return runtime().attention("fp16", *arrays, 0.1, 132, *unit, list(panels))


def splits(**changes):
    sizes = {"queries": 1, "keys": 100, "heads": 8, "kv_heads": 2, "head_size": 64, "sm_count": 132}
    return _core.attention_splits("fa3", **(sizes | changes))


def explain(tries):
    plan = make_plan("exllama", k=2048)
    ones, scales = np.ones((2048, N), np.uint8), np.full((16, N), 0x3C00, np.uint16)
    weight = pack(codes=ones, zeros=ones[:16], scales=scales)
    known = np.ones(N, np.uint8)
    return _core.explain_race(plan, weight, bits(4, 2048), bits(4, N), known, runner(), tries, 0)


int8_rows = np.ones((1, 4), F32)
int8_start = np.zeros(1, np.int32)

REFUSED = {
    "plan: negative group": (lambda: make_plan(group=-2), "K = 256 is no multiple of the group size -2"),
    "plan: zero group": (lambda: make_plan(group=0), "group size 0"),
    "plan: no rows": (lambda: make_plan(m=0), "M = 0, .* must be positive"),
    "plan: overflow": (lambda: make_plan(m=HUGE, n=HUGE, k=HUGE, group=-1), "M = 4611686018427387904, .* is beyond"),
    "plan: many rows": (lambda: make_plan(m=HUGE), "is beyond 16777216 per side"),
    "plan: long k": (lambda: make_plan("exllama", k=2**40), "is beyond 16777216 per side"),
    "plan: many outputs": (lambda: make_plan(m=2**24, n=2**24), "or 17179869184 weights or outputs"),
    "device: products": (lambda: numbers(fp16=(-1, 25, -133)), "products: expected 1 .. 64, found -1"),
    "device: fraction": (lambda: numbers(bf16=(16, 90, -133)), "fraction_bits: expected 1 .. 40, found 90"),
    "device: exponent": (lambda: numbers(fp16_out=(16, 25, 2**30)), "zero_exponent: expected -1000 .. 100"),
    "device: SMs": (lambda: numbers(sm_count=0), "sm_count: expected 1 .. 2"),
    "device: memory": (lambda: numbers(shared_memory_per_block=-1), "shared_memory_per_block: expected 1 .. 2"),
    "device: no tuple": (lambda: numbers(fp16=3), r"fp16: expected \(products, fraction bits, zero exponent\)"),
    "device: missing": (lambda: _core.DeviceNumbers({}), "fp16: expected .* found nothing"),
    "device: lacks the unit": (lambda: emulate_core(make_plan(device=numbers(fp16=(0, 0, 0)))), "no matrix unit"),
    "pack: no k": (lambda: pack(codes=bits(0, N).astype(np.uint8), zeros=np.zeros((0, N), np.uint8),
                                scales=bits(0, N)), "codes: expected at least one row and column, found K = 0"),
    "pack: group": (lambda: pack(group_size=-(2**63)), "group size -9223372036854775808"),
    "pack: no columns": (lambda: pack(codes=np.ones((K, 0), np.uint8), zeros=np.ones((2, 0), np.uint8),
                                      scales=bits(2, 0)), "codes: expected at least one row and column"),
    "pack: zeros": (lambda: pack(zeros=np.zeros((1, N), np.uint8)), "zeros: expected shape"),
    "pack: index": (lambda: pack(group_index=np.full(K, -1, np.int32)), r"group_index\[0\] = -1"),
    "dense: empty": (lambda: _core.pack_dense(bits(0, 8), "fp16"), "weight: expected at least one row and column"),
    "dense: no k": (lambda: _core.pack_dense(bits(8, 0), "fp16"), "weight: expected at least one row and column"),
    "emulate: strided": (lambda: emulate_core(make_plan(), bits(4, 2 * K)[:, ::2]), "activations: expected C-contig"),
    "emulate: Fortran": (lambda: emulate_core(make_plan(), np.asfortranarray(bits(4, K))), "activations: expected C-"),
    "emulate: signed": (lambda: emulate_core(make_plan(), np.zeros((4, K), np.int16)), "activations: .* uint16"),
    "dequantize: dense": (lambda: _core.dequantize_weight(make_plan(), _core.pack_dense(bits(N, K), "fp16"), runner()),
                          "the weight holds numbers"),
    "dequantize: shape": (lambda: _core.dequantize_weight(make_plan(n=256), pack(), runner()), "plan is for N = 256"),
    "threads: none": (lambda: runner(0), "threads: expected 1 .. 1024, found 0"),
    "threads: too many": (lambda: runner(10**6), "threads: expected 1 .. 1024, found 1000000"),
    "operator threads": (lambda: runtime(10**6), "threads: expected 1 .. 1024"),
    "race: tries": (lambda: explain(-5), "tries must not be negative"),
    **{f"chain: {isa} {value}": (lambda isa=isa, value=value: chain(isa, products=value), "products: expected 1 .. 64")
       for isa in ("oracle", "portable") for value in (0, -1, 65)},
    "chain: fraction": (lambda: chain(fraction_bits=2**31 - 1), "fraction_bits: expected"),
    "chain: input": (lambda: chain(input_exponent=-(2**31)), "input_exponent: expected -1000 .. 100"),
    "int8: NaN": (lambda: _core.dot_add_int8(int8_rows * F32(np.nan), int8_rows, int8_start, on_gpu=False),
                  "a: expected int8"),
    "int8: range": (lambda: _core.dot_add_int8(int8_rows, int8_rows * F32(1e30), int8_start, on_gpu=False),
                    "b: expected int8"),
    "cache: theta": (lambda: runtime().rotary_cache("fp16", float("nan"), 64, 4, 1, 1, 4, 8192), "rotary theta"),
    "cache: positions": (lambda: runtime().rotary_cache("fp16", 1e4, 64, 2**60, 1, 1, 4, 8192), "rotary positions"),
    "cache: size": (lambda: runtime().rotary_cache("fp16", 1e4, 2**33, 1, 1, 1, 4, 8192), "rotary size"),
    "cache: scaling": (lambda: runtime().rotary_cache("fp16", 1e4, 64, 1, 8, 1, 4, 0), "rotary scaling"),
    "rotary: odd": (lambda: runtime().rotary("fp16", bits(1, 2, 63), np.array([0]), bits(4, 63)), "even head size"),
    "top k: negative": (lambda: runtime().top_k(np.zeros((2, 5), F32), -1), "k: top -1 of 5 columns"),
    "top k: huge": (lambda: runtime().top_k(np.zeros((2, 5), F32), HUGE), "k: top 4611686018427387904 of 5 columns"),
    "attention: no kv heads": (lambda: attend(k=(4, 0, 64)), "q: 2 heads are no multiple of k's 0"),
    "attention: products": (lambda: attend(unit=(0, 25, -133)), "products: expected 1 .. 64, found 0"),
    "attention: fraction": (lambda: attend(unit=(16, 90, -133)), "fraction_bits: expected"),
    "attention: panels' heads": (lambda: attend(panels=[_core.KeyValuePanels(2, 64)]), "panels of 2 heads of 64 for 1"),
    "attention: panels' size": (lambda: attend(panels=[_core.KeyValuePanels(1, 32)]), "panels of 1 heads of 32 for 1"),
    "attention: shared panels": (lambda: attend(panels=[_core.KeyValuePanels(1, 64)] * 2, sequences=2),
                                 "sequence 1: its panels are another sequence's too"),
    "panels: negative": (lambda: _core.KeyValuePanels(-1, 64), "key and value panels: -1 heads of size 64"),
    "panels: huge": (lambda: _core.KeyValuePanels(2**40, 2**40), "key and value panels"),
    "splits: head size": (lambda: splits(head_size=0), "sizes contradict each other"),
    "splits: huge": (lambda: splits(keys=HUGE), "a size is beyond"),
}  # fmt: skip


@pytest.mark.parametrize("case", REFUSED)
def test_core_refuses(case: str) -> None:
    call, message = REFUSED[case]
    with pytest.raises(_core.CoreError, match=message):
        call()


def test_strided_and_reversed_codes_are_read_as_they_look() -> None:
    rng = np.random.default_rng(1)
    codes = rng.integers(0, 16, (2 * K, 2 * N), dtype=np.uint8)[::-2, ::2]
    zeros, scales = np.asfortranarray(np.full((2, N), 7, np.uint8)), np.full((N, 2), 0.5, np.float16).T
    wanted = kernels.dequantize("fp32", np.ascontiguousarray(codes), zeros.copy("C"), scales.copy("C"), group_size=G)
    found = kernels.dequantize("fp32", codes, zeros, scales, group_size=G)
    assert found.tobytes() == wanted.tobytes()
    assert (wanted == (codes.astype(F32) - 7) * F32(0.5)).all()


GOOD = {
    "activations": np.zeros((2, K), np.float16), "codes": np.zeros((K, N), np.uint8),
    "zeros": np.zeros((2, N), np.uint8), "scales": np.ones((2, N), np.float16), "bias": np.zeros(N, np.float16),
    "offsets": np.zeros((2, N), F32), "group_index": np.repeat(np.arange(2), 128).astype(np.int32),
}  # fmt: skip


@pytest.mark.parametrize("name", GOOD)
@pytest.mark.parametrize("wrong", [np.int64, np.complex64, object])
def test_emulate_names_the_array_of_a_wrong_dtype(name: str, wrong: type) -> None:
    with pytest.raises(TypeError, match=f"{name}: expected a .* array, found {np.dtype(wrong)}"):
        kernels.emulate("fp32", **(GOOD | {name: GOOD[name].astype(wrong)}), group_size=G, device="h200")


@pytest.mark.parametrize("name", ["activations", "codes"])
def test_emulate_names_the_array_of_a_wrong_shape(name: str) -> None:
    with pytest.raises(ValueError, match=f"{name}: expected two dimensions, found shape"):
        kernels.emulate("marlin", *(GOOD[key].ravel() if key == name else GOOD[key] for key in list(GOOD)[:4]),
                        group_size=G, device="h200")  # fmt: skip


def test_operators_name_the_array() -> None:
    x, wide = np.zeros((2, 64), np.float16), np.zeros((2, 64))
    with pytest.raises(TypeError, match=r"x: expected a .* array, found float64"):
        operators.rms_norm(wide, x[0], epsilon=1e-5)
    with pytest.raises(TypeError, match="weight: expected a float16 array, found bfloat16"):
        operators.rms_norm(x, x[0].astype(ml_dtypes.bfloat16), epsilon=1e-5)
    with pytest.raises(TypeError, match="ids: expected integers, found float64"):
        operators.embedding(x, [0.5])
    with pytest.raises(TypeError, match=r"k\[0\]: expected a float16 array, found float64"):
        operators.attention([np.zeros((1, 1, 64), np.float16)], [np.zeros((1, 1, 64))], [wide], scale=1.0)
    with pytest.raises(ValueError, match="q, k, v: expected an array per sequence, found 0, 0 and 0"):
        operators.attention([], [], [], scale=1.0)


def test_top_k_with_nan_is_ordered() -> None:
    """NaN comes last, ids ascending: a comparison that is no order may read outside the array that it sorts."""
    rng = np.random.default_rng(2)
    values = rng.standard_normal((50, 4000)).astype(F32)
    values[rng.random(values.shape) < 0.5] = np.nan
    values[0] = np.nan
    values[1, 20:] = np.nan
    ids, found = operators.top_k(values, 40)
    for row in range(50):
        wanted = sorted(range(4000), key=lambda i, row=row: (np.isnan(values[row, i]), -values[row, i], i))[:40]
        if np.isnan(values[row]).any():  # a NaN's own key sorts by nothing: among NaNs by id alone
            real = [i for i in wanted if not np.isnan(values[row, i])]
            wanted = real + np.flatnonzero(np.isnan(values[row]))[: 40 - len(real)].tolist()
        assert ids[row].tolist() == wanted
        assert found[row].tobytes() == values[row, wanted].tobytes()


def test_a_low_zero_exponent_leaves_the_fast_chain() -> None:
    """fp16 results of a unit whose zeros lie far below every fp16 number: the sum of zeros is +0."""
    for isa in ("oracle", "portable", _core.best_isa()):
        for zero in (-1000, -133, -102, -101, -21):
            assert chain(isa, half_out=True, zero_exponent=zero).tobytes() == bytes(64), (isa, zero)
