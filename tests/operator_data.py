"""The recorded operators (data/traces/operators.npz), and comparison by bytes."""

import functools
from pathlib import Path

import numpy as np

VARIANTS = ["fp16", "awq_marlin"]  # with prefill
ALL_VARIANTS = ["fp16", "awq_marlin", "awq", "gptq", "gptq_marlin"]
EPSILON = 1e-5 * 576 / 768


@functools.cache
def recorded() -> dict[str, np.ndarray]:
    with np.load(Path(__file__).parent / "data" / "traces" / "operators.npz") as archive:
        return {key: archive[key] for key in archive.files}


def half(key: str) -> np.ndarray:
    return recorded()[key].view(np.float16)


def calls(module: str) -> list[str]:
    """Every recorded call of a module (name without variant): '<variant>/<module>.<call>'."""
    return [f"{v}/{module}.{c}" for v in ALL_VARIANTS for c in "01" if f"{v}/{module}.{c}.out0" in recorded()]


def differing(found: np.ndarray, expected: np.ndarray) -> int:
    """Elements whose bytes differ."""
    assert found.shape == expected.shape
    bits = {2: np.uint16, 4: np.uint32}[found.dtype.itemsize]
    return int((np.ascontiguousarray(found).view(bits) != np.ascontiguousarray(expected).view(bits)).sum())


def assert_same_bits(found: np.ndarray, expected: np.ndarray) -> None:
    count = differing(found, expected)
    if count:
        where = np.argwhere(found.view(f"u{found.dtype.itemsize}") != expected.view(f"u{found.dtype.itemsize}"))[0]
        at = tuple(int(i) for i in where)
        raise AssertionError(
            f"{count} of {found.size} differ, first at {at}: found {found[at]!r}, expected {expected[at]!r}"
        )


def attention_call(name: str) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """q, k, v and output of '<variant>/<attn>.<call>' or 'long/layer<l>.call<c>', with all keys of a decode step."""
    data = recorded()
    if name.startswith("long/"):
        parts = {r: data[f"{name}.{r}"] for r in ("q", "k", "v", "out")}
        first = name[:-1] + "0"
        earlier = {r: data[f"{first}.{r}"] for r in ("k", "v")}
    else:
        parts = {
            r: data[f"{name}.{key}"]
            for r, key in zip(("q", "k", "v", "out"), ("in0", "in1", "in2", "out0"), strict=True)
        }
        first = name[:-1] + "0"
        earlier = {"k": data[f"{first}.in1"], "v": data[f"{first}.in2"]}
    if name.endswith("1"):
        parts |= {r: np.concatenate([earlier[r], parts[r]]) for r in ("k", "v")}
    heads = {"q": 12, "k": 4, "v": 4, "out": 12}
    q, k, v, out = (np.ascontiguousarray(parts[r].reshape(len(parts[r]), heads[r], 64)).view(np.float16) for r in heads)
    return q, k, v, out
