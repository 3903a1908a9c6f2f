"""The executors against references made another way, on every instruction set: fp16 FMAs, fp32 chains, int8 groups, odd
shapes, act-order, offsets, bias, special values."""

from typing import Any

import ml_dtypes
import numpy as np
import pytest

from qforensics import _core, kernels

ORDER = ["portable", "avx2", "avx512"]
ISAS = ORDER[: ORDER.index(_core.best_isa()) + 1]


def half(x: np.ndarray) -> np.ndarray:
    """float64 -> fp16 in one rounding (NumPy's own conversion), back as float64."""
    with np.errstate(over="ignore"):
        return x.astype(np.float16).astype(np.float64)


def weights(rng: np.random.Generator, k: int, n: int, group: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    groups = k // group
    codes = rng.integers(0, 16, (k, n), dtype=np.uint8)
    zeros = rng.integers(0, 16, (groups, n), dtype=np.uint8)
    scales = ((0.5 + rng.random((groups, n))) / 64).astype(np.float16)
    return codes, zeros, scales


def exllama_block(a: np.ndarray, codes: np.ndarray, zeros: np.ndarray, scales: np.ndarray, group: int) -> np.ndarray:
    """One block of up to 128 k. fp16 products and sums are multiples of 2^-24 below 2^21: exact in float64."""
    k, n = codes.shape
    d = codes.astype(np.float64) - np.repeat(zeros, group, axis=0)
    acc = np.zeros((len(a), n), np.float64)
    for at in range(0, k, 8):
        lanes = np.zeros((2, len(a), n))
        for j in range(8):
            lanes[j % 2] = half(a[:, at + j, None].astype(np.float64) * d[at + j] + lanes[j % 2])
        r = (lanes[0] + lanes[1]).astype(np.float32).astype(np.float64)
        # fp32 FMA: product of 24 and 11 bits exact in float64, the sum rounded to odd there, then once to fp32
        product, s = r * scales[at // group].astype(np.float64), acc
        total = product + s
        from_s = total - product
        residual = (product - (total - from_s)) + (s - from_s)
        bits = total.view(np.int64)
        step = np.where((residual > 0) == (total > 0), 1, -1)
        odd = np.where((residual != 0) & (bits % 2 == 0) & np.isfinite(total), bits + step, bits).view(np.float64)
        acc = odd.astype(np.float32).astype(np.float64)
    return half(acc)


def activation_families(rng: np.random.Generator, m: int, k: int) -> dict[str, np.ndarray]:
    normal = rng.standard_normal((m, k))
    wide = np.ldexp(normal, rng.integers(-20, 11, (m, k)))
    ties = np.ldexp(rng.integers(1, 2048, (m, k)) | 1, rng.integers(-24, 4, (m, k))) * rng.choice([-1, 1], (m, k))
    return {
        "normal": normal.astype(np.float16),
        "wide": wide.astype(np.float16),
        "ties": ties.astype(np.float16),
        "subnormal": np.ldexp(normal, -22).astype(np.float16),
        "large": np.clip(normal * 2000, -60000, 60000).astype(np.float16),
    }


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("family", ["normal", "wide", "ties", "subnormal", "large"])
def test_fp16_fma_chains_round_once(isa: str, family: str) -> None:
    rng = np.random.default_rng(11)
    for k, m in ((8, 64), (128, 9)):
        codes, zeros, scales = weights(rng, k, 512, k)
        a = activation_families(rng, m, k)[family]
        with np.errstate(invalid="ignore", over="ignore"):
            expected = exllama_block(a, codes, zeros, scales, k).astype(np.float16)
        found = np.concatenate(
            [
                kernels.emulate("gptq", a[i : i + 50], codes, zeros, scales, group_size=k, device="h200", isa=isa)
                for i in range(0, m, 50)
            ]
        )
        same = (found.view(np.uint16) == expected.view(np.uint16)) | (np.isnan(found) & np.isnan(expected))
        same |= (found == 0) & (expected == 0)  # the sign of a zero is not told apart by the recordings
        assert same.all(), np.argwhere(~same)[0]


def test_a_second_rounding_would_show() -> None:
    """The inputs above do hold sums where fp32 first, fp16 then is wrong."""
    rng = np.random.default_rng(11)
    a = activation_families(rng, 400, 400)["ties"].astype(np.float64)
    product, c = a * rng.integers(-15, 16, a.shape), np.roll(a, 1, axis=0)
    once, twice = half(product + c), half((product + c).astype(np.float32).astype(np.float64))
    assert (once != twice).sum() > 10


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("rows", [1, 5, 9])
def test_fp32_chain(isa: str, rows: int) -> None:
    """FMA per k: float64 holds product and sum exactly for these magnitudes (24 + 24 bits near one binade)."""
    rng = np.random.default_rng(5)
    codes, zeros, scales = weights(rng, 256, 40, 64)
    a = rng.integers(-512, 512, (rows, 256)).astype(np.float32) / 256
    w = kernels.dequantize("fp32", codes, zeros, scales, group_size=64, dtype="fp32").astype(np.float64)
    acc = np.zeros((rows, 40))
    for k in range(256):
        acc = (a[:, k, None].astype(np.float64) * w[k] + acc).astype(np.float32).astype(np.float64)
    found = kernels.emulate("fp32", a, codes, zeros, scales, group_size=64, device="h200", isa=isa)
    assert found.dtype == np.float32
    np.testing.assert_array_equal(found, acc.astype(np.float32))


@pytest.mark.parametrize("isa", ISAS)
def test_int8_activation_groups(isa: str) -> None:
    rng = np.random.default_rng(6)
    codes, zeros, scales = weights(rng, 256, 48, 64)
    a = rng.standard_normal((3, 256)).astype(np.float32)
    blocks = a.reshape(3, 8, 32)
    scale = np.abs(blocks).max(axis=2) / np.float32(127)
    q = np.rint(blocks / scale[..., None]).astype(np.int64)
    d = (codes.astype(np.int64) - np.repeat(zeros, 64, axis=0).astype(np.int64)).reshape(8, 32, 48)
    acc = np.zeros((3, 48), np.float32)
    for g in range(8):
        total = np.einsum("mk,kn->mn", q[:, g], d[g]).astype(np.float64)
        factor = scale[:, g, None] * scales[g // 2].astype(np.float32)  # fp32 product, rounded
        acc = (total * factor.astype(np.float64) + acc.astype(np.float64)).astype(np.float32)
    found = kernels.emulate(
        "openvino", a, codes, zeros, scales, group_size=64, device="h200", isa=isa, activation_group=32
    )
    np.testing.assert_array_equal(found, acc)


def test_int8_groups_too_long_for_exact_sums_are_refused() -> None:
    """8,806 products of at most 127 x 15 stay below 2^24, where fp32 holds every integer."""
    longest = 2**24 // (127 * 15)
    for k, fits in [(longest, True), (longest + 1, False)]:
        call = (np.ones((1, k), np.float32), np.full((k, 16), 15, np.uint8), np.zeros((1, 16), np.uint8))
        options = {"group_size": k, "device": "h200", "activation_group": k}
        if fits:  # 127 * 15 * k / 127, each factor exact but 1 / 127
            found = kernels.emulate("openvino", *call, np.ones((1, 16), np.float16), **options)
            assert (found == np.float32(127 * 15 * k) * np.float32(1 / 127)).all()
        else:
            with pytest.raises(ValueError, match=f"activation_group {k}: sums stay exact up to {longest}"):
                kernels.emulate("openvino", *call, np.ones((1, 16), np.float16), **options)


CALLS: list[tuple[str, int, dict[str, Any]]] = [
    ("awq", 3, {}),
    ("awq", 260, {}),
    ("marlin", 17, {}),
    ("marlin", 70, {"fp32_reduce": False}),
    ("marlin", 5, {"group_size": -1}),
    ("machete", 40, {}),
    ("machete", 2, {"dtype": ml_dtypes.bfloat16}),
    ("exllama", 7, {"seed": 4}),
    ("exllama", 60, {}),
    ("tinygemm", 6, {"dtype": ml_dtypes.bfloat16}),
    ("openvino", 3, {}),
    ("openvino", 3, {"dtype": np.float32}),
    ("cublas", 9, {"split": 3}),
    ("hgemm", 9, {"split": 2}),
    ("fp32", 3, {"dtype": ml_dtypes.bfloat16}),
]


@pytest.mark.parametrize(("kernel", "rows", "how"), CALLS, ids=lambda value: str(value).replace(" ", ""))
def test_bits_depend_on_no_instruction_set_and_no_thread_count(kernel: str, rows: int, how: dict[str, Any]) -> None:
    rng = np.random.default_rng(8)
    given = dict(how)
    group, dtype = given.pop("group_size", 64), given.pop("dtype", np.float16)
    codes, zeros, scales = weights(rng, 1024, 256, 1024 if group == -1 else group)
    a = np.ldexp(rng.standard_normal((rows, 1024)), rng.integers(-8, 5, (rows, 1024))).astype(dtype)
    outputs = [
        kernels.emulate(
            kernel, a, codes, zeros, scales, group_size=group, device=device, isa=isa, threads=threads, **given
        )
        for device in ("h200", "a100")
        for isa, threads in [*((isa, 1) for isa in ISAS), (ISAS[-1], 3)]
    ]
    per_device = len(outputs) // 2
    for i, output in enumerate(outputs):
        assert output.tobytes() == outputs[i // per_device * per_device].tobytes(), i


@pytest.mark.parametrize(("n", "k"), [(24, 64), (8, 72), (50, 40)])
def test_odd_shapes_equal_a_padded_problem(n: int, k: int) -> None:
    """cuBLAS takes any N and K: the outputs are those of the same problem with zero rows and columns around it."""
    rng = np.random.default_rng(9)
    codes, zeros, scales = weights(rng, k, n, k)
    a = rng.standard_normal((5, k)).astype(np.float16)
    found = kernels.emulate("cublas", a, codes, zeros, scales, group_size=-1, device="a100")
    wide_n, wide_k = 64, 128
    wide = np.zeros((wide_k, wide_n), np.uint8)
    wide[:k, :n] = codes
    zero, scale = np.zeros((1, wide_n), np.uint8), np.zeros((1, wide_n), np.float16)
    zero[:, :n], scale[:, :n] = zeros, scales
    padded = kernels.emulate(
        "cublas", np.pad(a, ((0, 0), (0, wide_k - k))), wide, zero, scale, group_size=-1, device="a100"
    )
    np.testing.assert_array_equal(found.view(np.uint16), padded[:, :n].view(np.uint16))


def test_act_order_equals_sorted_rows() -> None:
    rng = np.random.default_rng(10)
    codes, zeros, scales = weights(rng, 256, 128, 64)
    a = rng.standard_normal((4, 256)).astype(np.float16)
    group_index = rng.permutation(np.repeat(np.arange(4), 64)).astype(np.int32)
    order = np.argsort(group_index, kind="stable")
    found = kernels.emulate("marlin", a, codes, zeros, scales, group_size=64, device="h200", group_index=group_index)
    plain = kernels.emulate("marlin", a[:, order], codes[order], zeros, scales, group_size=64, device="h200")
    assert found.tobytes() == plain.tobytes()
    with pytest.raises(ValueError, match=r"group_index: group 0 owns"):
        kernels.emulate(
            "marlin", a, codes, zeros, scales, group_size=64, device="h200", group_index=np.zeros(256, np.int32)
        )


def test_stored_offsets_round_once() -> None:
    """torchao's float zero points: w = bf16((q - z) * s + offset), z = 8 there, any offset."""
    rng = np.random.default_rng(12)
    codes, zeros, scales = weights(rng, 1024, 64, 128)
    offsets = np.ldexp(rng.standard_normal((8, 64)), rng.integers(-40, 3, (8, 64))).astype(ml_dtypes.bfloat16)
    s = np.repeat(scales.astype(ml_dtypes.bfloat16), 128, axis=0).astype(np.float64)
    exact = (codes.astype(np.float64) - np.repeat(zeros, 128, axis=0)) * s
    exact += np.repeat(offsets, 128, axis=0).astype(np.float64)
    found = kernels.dequantize(
        "tinygemm", codes, zeros, scales, group_size=128, dtype="bf16", offsets=offsets.astype(np.float32)
    )
    nearest = exact.astype(ml_dtypes.bfloat16).astype(np.float64)  # float64 -> bf16 in ml_dtypes rounds through fp32
    off = np.abs(found - exact) > np.abs(nearest - exact)
    assert not off.any()


def test_bias_is_added_in_the_output_format() -> None:
    rng = np.random.default_rng(13)
    codes, zeros, scales = weights(rng, 256, 128, 128)
    a, bias = rng.standard_normal((4, 256)).astype(np.float16), rng.standard_normal(128).astype(np.float16)
    plain = kernels.emulate("machete", a, codes, zeros, scales, group_size=128, device="h200")
    found = kernels.emulate("machete", a, codes, zeros, scales, group_size=128, device="h200", bias=bias)
    np.testing.assert_array_equal(found, (plain.astype(np.float32) + bias.astype(np.float32)).astype(np.float16))


def test_infinities_and_nan_come_out_as_on_a_gpu() -> None:
    rng = np.random.default_rng(14)
    codes, zeros, scales = weights(rng, 256, 128, 128)
    zeros[:] = 0
    codes[:] = np.maximum(codes, 1)
    a = np.zeros((3, 256), np.float16)
    a[0, 5], a[1, 3], a[1, 200], a[2, 7] = np.inf, np.inf, -np.inf, 60000
    for isa in ISAS:
        found = kernels.emulate("awq_marlin", a, codes, zeros, scales, group_size=128, device="h200", isa=isa)
        assert (found[0] == np.inf).all()
        assert (found[1].view(np.uint16) == 0x7FFF).all()
        assert np.isfinite(found[2]).all()


def test_wrong_arrays_are_refused() -> None:
    rng = np.random.default_rng(15)
    codes, zeros, scales = weights(rng, 256, 128, 128)
    a = rng.standard_normal((4, 256)).astype(np.float16)
    with pytest.raises(ValueError, match=r"zeros: expected shape \[2, 128\], found \[1, 128\]"):
        kernels.emulate("awq", a, codes, zeros[:1], scales, group_size=128, device="h200")
    with pytest.raises(ValueError, match=r"activations: expected \[M, 256\]"):
        kernels.emulate("awq", a[:, :128], codes, zeros, scales, group_size=128, device="h200")
    with pytest.raises(TypeError, match=r"float64"):
        kernels.emulate("awq", a.astype(np.float64), codes, zeros, scales, group_size=128, device="h200")
    with pytest.raises(ValueError, match=r"code 16 in column"):
        kernels.emulate("awq", a, codes + np.uint8(16), zeros, scales, group_size=128, device="h200")
    with pytest.raises(ValueError, match=r"symmetric=True"):
        kernels.emulate("machete", a, codes, zeros, scales, group_size=128, device="h200", symmetric=True)


@pytest.mark.parametrize(
    ("kernel", "options", "message"),
    [
        ("marlin", {"executor": "tpu"}, "unknown executor 'tpu'"),
        ("marlin", {"scheme": "pinned"}, "only the executor 'cuda' has schemes, found 'cpu'"),
        ("awq_dequantize", {"executor": "cuda"}, "one executor, 'cpu'; found 'cuda'"),
    ],
)
def test_executors_that_would_be_ignored_are_refused(kernel: str, options: dict[str, str], message: str) -> None:
    rng = np.random.default_rng(5)
    codes, zeros, scales = weights(rng, 128, 64, 64)
    x = rng.standard_normal((1, 128)).astype(np.float16)
    with pytest.raises(ValueError, match=message):
        kernels.emulate(kernel, x, codes, zeros, scales, group_size=64, device="h200", **options)
