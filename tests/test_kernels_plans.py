"""Plans as data: schedules against an independent table, options, variants, words and pictures."""

import shutil
import subprocess
from collections import Counter
from pathlib import Path
from typing import Any

import matplotlib
import pytest
from cmake import CMAKE_BIN_DIR

from qforensics import kernels
from qforensics.plans import Plan

KERNELS = Path(__file__).parents[1] / "csrc" / "kernels"

# Slices per output tile that a reading of the public source gives (G = 128): layer, GPU -> rows -> tiles per count.
MARLIN_SLICES = {
    (6144, 4096, "a100"): {16: {3: 45, 4: 3}, 64: {2: 90, 3: 6}},
    (6144, 4096, "h200"): {16: {3: 32, 4: 16}, 64: {2: 96}},
    (4096, 4096, "a100"): {16: {4: 32}, 64: {2: 24, 3: 40}},
    (4096, 4096, "h200"): {16: {2: 64}, 64: {2: 64}},
    (24576, 4096, "a100"): {16: {1: 108, 2: 64, 3: 20}, 64: {2: 90, 3: 6}},
    (24576, 4096, "h200"): {16: {1: 132, 3: 56, 4: 4}, 64: {2: 96}},
    (4096, 12288, "a100"): {16: {4: 24, 5: 8}, 64: {2: 24, 3: 40}},
    (4096, 12288, "h200"): {16: {3: 63, 4: 1}, 64: {3: 63, 4: 1}},
}


def marlin_tile(plan: Plan) -> tuple[int, int]:
    words = plan.facts[0].split("tile k")[1].split(",")[0].split(" n")
    return int(words[0]), int(words[1])


@pytest.mark.parametrize(("n", "k", "device"), MARLIN_SLICES)
@pytest.mark.parametrize("rows", [16, 64])
def test_marlin_slices(n: int, k: int, device: str, rows: int) -> None:
    plan = kernels.plan("marlin", (rows, n, k), group_size=128, device=device)
    tile_k, tile_n = marlin_tile(plan)
    found: Counter[int] = Counter()
    for _, _, begin, end, tree in plan.regions:
        found[len(plan.trees[tree]["leaves"]) // (tile_k // 32)] += (end - begin) // tile_n
    assert found == MARLIN_SLICES[n, k, device][rows]


def test_marlin_launches_have_their_own_partition() -> None:
    plan = kernels.plan("marlin", (65, 4096, 4096), group_size=128, device="h200")
    assert [fact.split(":")[0] for fact in plan.facts] == ["rows 0..63", "rows 64..64"]


@pytest.mark.parametrize("kernel", kernels.names())
def test_every_plan_can_be_read_and_drawn(kernel: str) -> None:
    matplotlib.use("agg")
    plan = kernels.plan(kernel, (40, 1024, 2048), group_size=128, device="a100")
    text = str(plan)
    assert text.startswith(kernel)
    assert "tree 0" in text
    assert repr(plan).startswith(f"Plan({kernel}, 40x1024x2048, a100")
    figure = plan.plot()
    assert len(figure.axes) == 2
    figure.clear()


def test_switches_inside_a_kernel_show_what_runs() -> None:
    assert kernels.plan("awq", (255, 1024, 1024), group_size=128, device="h200").kernel == "awq"
    assert kernels.plan("awq", (256, 1024, 1024), group_size=128, device="h200").kernel == "cublas"
    assert kernels.plan("gptq", (50, 1024, 1024), group_size=128, device="h200").kernel == "exllama"
    assert kernels.plan("gptq", (51, 1024, 1024), group_size=128, device="h200").kernel == "hgemm"


def test_unconfirmed_plans_say_so() -> None:
    assert kernels.plan("machete", (16, 4096, 4096), group_size=128, device="h200").confirmed
    assert kernels.plan("gptq", (8, 4096, 4096), group_size=128, device="a100").confirmed  # no matrix unit, no SM count
    assert not kernels.plan("cublas", (300, 8192, 4096), group_size=128, device="h200", split="auto").confirmed
    a100 = kernels.plan("marlin", (16, 4096, 4096), group_size=128, device="a100")
    assert "108 SMs" in a100.unconfirmed[0]
    assert "unconfirmed" in repr(a100)


@pytest.mark.parametrize(
    ("variant", "device", "layer", "kernel"),
    [
        ("gptq_marlin", "h200", (768, 768, 128), "machete"),
        ("gptq_marlin", "h200", (768, 768, 32), "marlin"),  # Machete has no group size 32
        ("gptq_marlin", "h200", (192, 768, 64), "marlin"),  # nor a tile for N = 192
        ("gptq_marlin", "h200", (128, 576, 64), "machete"),
        ("gptq_marlin", "h200", (192, 576, 64), "exllama"),
        ("gptq_marlin", "a100", (128, 576, 64), "exllama"),
        ("awq_marlin", "h200", (768, 768, -1), "machete"),
        ("awq_marlin", "h200", (768, 768, 32), "marlin"),
        ("awq_marlin", "h200", (128, 576, 64), "awq"),  # asks first whether Marlin could
        ("awq_marlin", "a100", (576, 1536, 64), "marlin"),
        ("awq", "a100", (576, 576, 64), "awq"),
    ],
)
def test_variants_resolve_layer_by_layer(variant: str, device: str, layer: tuple[int, int, int], kernel: str) -> None:
    assert kernels.resolve(variant, device, layer=layer) == kernel


def test_machete_refuses_group_sizes_that_its_tile_does_not_divide() -> None:
    with pytest.raises(ValueError, match="group size 32"):
        kernels.plan("machete", (16, 768, 768), group_size=32, device="h200")


def test_variants_resolve_to_kernels() -> None:
    assert kernels.resolve("gptq_marlin", "h200") == "machete"
    assert kernels.resolve("awq_marlin", "h100") == "machete"
    assert kernels.resolve("awq_marlin", "a100") == "marlin"
    assert kernels.resolve("gptq_marlin", "l40s") == "marlin"
    assert kernels.resolve("fp16", "a100") == "cublas"
    assert {kernels.resolve(line[0], "a100") for line in kernels.variants()} <= set(kernels.names())
    with pytest.raises(ValueError, match=r"unknown variant 'gptq_marlim'.*gptq_marlin"):
        kernels.resolve("gptq_marlim", "a100")


@pytest.mark.parametrize(
    ("how", "message"),
    [
        ({"kernel": "marlim"}, r"unknown kernel 'marlim'; did you mean .*marlin"),
        ({"fp32_reduced": False}, r"unknown option of marlin 'fp32_reduced'; did you mean fp32_reduce"),
        ({"split": 2}, r"unknown option of marlin 'split'"),
        ({"group_size": 96}, r"K = 4096 is no multiple of the group size 96"),
        ({"group_size": 256}, r"marlin: group size must be -1, 32, 64 or 128, got 256"),
        ({"shape": (1, 4096, 4000), "group_size": -1}, r"marlin: no tile fits K = 4000, N = 4096"),
        ({"shape": (0, 4096, 4096)}, r"shape M = 0"),
        ({"device": "h2000000"}, r"h2000000"),
        ({"kernel": "tinygemm", "dtype": "fp16"}, r"tinygemm: takes bf16 activations, found fp16"),
    ],
)
def test_refusals_name_the_values(how: dict[str, Any], message: str) -> None:
    given: dict[str, Any] = {"kernel": "marlin", "shape": (1, 4096, 4096), "group_size": 128, "device": "h200", **how}
    with pytest.raises(ValueError, match=message):
        kernels.plan(given.pop("kernel"), given.pop("shape"), **given)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda folder: (folder / "plan_awq.cpp").unlink(), "kernels.def names 'awq'"),
        (lambda folder: (folder / "plan_new.cpp").touch(), "kernels.def has no line 'new'"),
        (lambda folder: (folder / "native" / "native_awq.cu").unlink(), "native.def names 'awq'"),
        (lambda folder: (folder / "native" / "native_new.cu").touch(), "native.def has no line 'new'"),
    ],
)
def test_table_and_files_must_agree(tmp_path: Path, change: Any, message: str) -> None:
    cmake = str(Path(CMAKE_BIN_DIR) / "cmake")  # the one that builds us
    for file in [*KERNELS.glob("plan_*.cpp"), KERNELS / "kernels.def", KERNELS / "check_table.cmake"]:
        shutil.copy(file, tmp_path)
    (tmp_path / "native").mkdir()
    for file in [*(KERNELS / "native").glob("native_*.cu"), KERNELS / "native" / "native.def"]:
        shutil.copy(file, tmp_path / "native")
    command = [cmake, "-P", str(tmp_path / "check_table.cmake")]
    assert subprocess.run(command, check=False).returncode == 0
    change(tmp_path)
    failed = subprocess.run(command, check=False, capture_output=True, text=True)
    assert failed.returncode != 0
    assert message in " ".join(failed.stderr.split())
