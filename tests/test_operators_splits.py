"""Split keys: the counts that recordings confirmed end to end, and the arithmetic against an independent version."""

import numpy as np
import pytest

import operator_reference_attention as reference
from operator_data import assert_same_bits, differing
from qforensics import _core, operators


def changes(count: int, *, decode: bool, definition: str = "fa3", sm_count: int = 132) -> list[tuple[int, int]]:
    """(first length, parts) wherever the number of parts changes, for 12 heads and 4 key-value heads."""
    found: list[tuple[int, int]] = []
    for n in range(1, count + 1):
        parts = operators.attention_splits(
            queries=1 if decode else n, keys=n, heads=12, kv_heads=4, sm_count=sm_count, definition=definition
        )
        if not found or found[-1][1] != parts:
            found.append((n, parts))
    return found


def test_fa3_prefill_splits() -> None:
    assert changes(3000, decode=False) == [(1, 1), (513, 3), (641, 2), (1665, 1)]


def test_fa3_decode_splits() -> None:
    assert changes(1344, decode=True) == [(1, 1), (769, 5), (961, 6)]


def test_fa2_splits_decode_alone() -> None:
    assert changes(2000, decode=False, definition="fa2", sm_count=108) == [(1, 1)]
    decode = changes(2000, decode=True, definition="fa2", sm_count=108)
    assert decode[:2] == [(1, 1), (257, 2)]
    assert operators.attention_splits(queries=1, keys=129, heads=8, kv_heads=4, head_size=128, definition="fa2") == 2
    assert operators.attention_splits(queries=1, keys=500, heads=4, kv_heads=4, head_size=128, definition="fa2") == 1


def sample(queries: int, keys: int, heads: int, kv_heads: int, size: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(keys)
    shapes = [(queries, heads, size), (keys, kv_heads, size), (keys, kv_heads, size)]
    q, k, v = (rng.standard_normal(shape).astype(np.float16) for shape in shapes)
    return q * np.float16(3), k, v


def run(q: np.ndarray, k: np.ndarray, v: np.ndarray, definition: str) -> np.ndarray:
    return operators.attention([q], [k], [v], scale=0.125, definition=definition)[0]


@pytest.mark.parametrize(
    ("queries", "keys", "heads", "kv_heads", "size", "rows", "block", "splits"),
    [
        (1, 800, 12, 4, 64, 64, 192, 5),
        (1, 1000, 12, 4, 64, 64, 192, 6),
        (1, 700, 4, 2, 128, 64, 128, 6),
        (520, 520, 3, 1, 64, 192, 128, 5),  # early tiles leave late parts empty
    ],
)
def test_fa3_parts_match_the_independent_version(
    queries: int, keys: int, heads: int, kv_heads: int, size: int, rows: int, block: int, splits: int
) -> None:
    sizes = {"queries": queries, "keys": keys, "heads": heads, "kv_heads": kv_heads, "head_size": size}
    assert operators.attention_splits(**sizes) == splits
    q, k, v = sample(queries, keys, heads, kv_heads, size)
    found = run(q, k, v, "fa3")
    assert_same_bits(found, reference.split_attention(q, k, v, rows=rows, block=block, splits=splits))
    assert differing(found, reference.split_attention(q, k, v, rows=rows, block=block, splits=splits - 1)) > 0
    assert differing(found, reference.split_attention(q, k, v, rows=rows, block=block, splits=1)) > 0


@pytest.mark.parametrize(("keys", "size", "block"), [(600, 64, 256), (400, 128, 128)])
def test_fa2_parts_match_the_independent_version(keys: int, size: int, block: int) -> None:
    splits = operators.attention_splits(queries=1, keys=keys, heads=4, kv_heads=2, head_size=size, definition="fa2")
    assert splits == -(-keys // block)
    q, k, v = sample(1, keys, 4, 2, size)
    assert_same_bits(
        run(q, k, v, "fa2"), reference.split_attention(q, k, v, rows=64, block=block, splits=splits, fa2=True)
    )


def test_splits_depend_on_the_number_of_multiprocessors() -> None:
    q, k, v = sample(1, 1000, 12, 4, 64)
    few, many = (operators.attention([q], [k], [v], scale=0.125, sm_count=n)[0] for n in (16, 132))
    assert differing(few, many) > 0


@pytest.mark.parametrize("size", [64, 128])
@pytest.mark.parametrize("definition", ["fa2", "fa3"])
def test_up_to_so_many_keys_nothing_is_split(definition: str, size: int) -> None:
    whole = _core.attention_whole_keys(definition, size)

    def most(keys: int) -> int:
        return max(
            operators.attention_splits(
                queries=queries,
                keys=keys,
                heads=kv_heads * group,
                kv_heads=kv_heads,
                head_size=size,
                sm_count=sm_count,
                definition=definition,
            )
            for queries in (1, 2, 20, 65, 200, keys)
            if queries <= keys
            for kv_heads in (1, 2, 8)
            for group in (1, 3, 8)
            for sm_count in (1, 16, 108, 132)
        )

    assert all(most(keys) == 1 for keys in (1, 64, 65, 127, whole - 1, whole))
    assert most(whole + 1) > 1


def test_other_definitions_name_their_keys() -> None:
    assert _core.attention_whole_keys("fp32", 64) > 1 << 60
    assert _core.attention_whole_keys("unheard of", 64) == 0


def test_a_split_needs_the_logarithm() -> None:
    from qforensics._sfu import sfu_tables

    runtime = _core.OperatorRuntime("vllm-0.21-eager", 9, sfu_tables(), "portable", 1)
    q, k, v = (a.view(np.uint16) for a in sample(1, 800, 12, 4, 64))
    with pytest.raises(_core.CoreError, match="needs the special-function unit's lg2 tables"):
        runtime.attention("fp16", [q], [k], [v], 0.125, 132, 16, 25, -133, [])
