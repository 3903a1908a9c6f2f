"""Device profiles: names as people and drivers write them, and the numbers of the sources."""

import pytest

from qforensics.devices import MatrixUnit, device, devices


@pytest.mark.parametrize(
    ("spoken", "name"),
    [
        ("h200", "h200"),
        ("NVIDIA H200", "h200"),
        ("A100", "a100-sxm4-80gb"),
        ("a100-sxm4-80gb", "a100-sxm4-80gb"),
        ("NVIDIA A100-SXM4-80GB", "a100-sxm4-80gb"),
        ("a100 40gb", "a100-sxm4-40gb"),
        ("A100-PCIE-40GB", "a100-pcie-40gb"),
        ("NVIDIA A100 80GB PCIe", "a100-pcie-80gb"),
        ("NVIDIA H100 80GB HBM3", "h100-sxm5-80gb"),
        ("h100 sxm", "h100-sxm5-80gb"),
        ("H100_PCIe", "h100-pcie-80gb"),
        ("h100nvl", "h100-nvl-94gb"),
        ("Tesla V100-SXM2-16GB", "v100-sxm2-32gb"),
        ("Tesla T4", "t4"),
        ("rtx4090", "rtx-4090"),
        ("4090", "rtx-4090"),
        ("NVIDIA GeForce RTX 4090", "rtx-4090"),
        ("a2", "a2"),
        ("A10", "a10"),
        ("a30", "a30"),
        ("L4", "l4"),
        ("l40s", "l40s"),
        ("B200", "b200"),
        ("NVIDIA B200", "b200"),
        ("a100 80gb pcie", "a100-pcie-80gb"),
        ("A100-80G", "a100-sxm4-80gb"),
        ("a100_40", "a100-sxm4-40gb"),
        ("80GB A100 SXM", "a100-sxm4-80gb"),
        ("H100 80GB HBM3", "h100-sxm5-80gb"),
        ("NVIDIA H200 NVL", "h200"),
        ("NVIDIA H200 141GB HBM3e", "h200"),
        ("Tesla V100-PCIE-32GB", "v100-sxm2-32gb"),
        ("V100S", "v100s-pcie-32gb"),
        ("Tesla V100S-PCIE-32GB", "v100s-pcie-32gb"),
        ("L40", "l40"),
        ("NVIDIA L40S", "l40s"),
        ("RTX 1000", "rtx-1000-ada"),
        ("rtx1000", "rtx-1000-ada"),
        ("Ada RTX-1000", "rtx-1000-ada"),
        ("NVIDIA RTX 1000 Ada Generation Laptop GPU", "rtx-1000-ada"),
        ("RTX 4000 Ada", "rtx-4000-ada"),
        ("NVIDIA RTX 4000 SFF Ada Generation", "rtx-4000-ada"),
        ("rtx6000-ada", "rtx-6000-ada"),
        ("NVIDIA RTX 6000 Ada Generation", "rtx-6000-ada"),
    ],
)
def test_names_are_matched_forgivingly(spoken: str, name: str) -> None:
    assert device(spoken).name == name


@pytest.mark.parametrize(
    ("spoken", "close"),
    [
        ("h300", "h100-sxm5-80gb"),
        ("a1000", "a100-sxm4-80gb"),
        ("rtx 3090", "rtx-4090"),
        ("RTX 6000", "rtx-6000-ada"),  # Quadro (Turing), Ada, or PRO (Blackwell)
        ("RTX 4000", "rtx-4000-ada"),
        ("NVIDIA RTX 4000 Ada Generation Laptop GPU", "rtx-4000-ada"),  # 58 SMs, not 48
        ("NVIDIA GeForce RTX 4090 Laptop GPU", "rtx-4090"),  # 76 SMs, not 128
        ("NVIDIA RTX PRO 6000 Blackwell", "rtx-6000-ada"),
        ("GB200", "b200"),
        ("GH200", "h200"),
        ("NVIDIA H20", "h200"),
        ("NVIDIA A10G", "a100-sxm4-80gb"),
        ("h200\N{LATIN SMALL LETTER E WITH ACUTE}", "h200"),
    ],
)
def test_unknown_names_are_refused_with_close_matches(spoken: str, close: str) -> None:
    with pytest.raises(ValueError, match=rf"unknown device '{spoken}'; closest: [^.]*{close}"):
        device(spoken)


@pytest.mark.parametrize(
    "spoken", ["", "80gb", "nvidia", "gpu", "a", "1000", "ada", "sxm4 80", "h200 mig", "h100,h200", "a100" * 100]
)
def test_a_name_without_its_model_is_refused(spoken: str) -> None:
    with pytest.raises(ValueError, match="unknown device"):
        device(spoken)


def test_a_name_must_be_text() -> None:
    with pytest.raises(TypeError, match="expected a string, found int"):
        device(4090)  # type: ignore[arg-type]


def test_sizes() -> None:
    sizes = {d.name: (d.sm_count, d.shared_memory_per_block // 1024, d.compute_capability) for d in devices()}
    assert len(sizes) == 22
    assert sizes["a100-sxm4-80gb"] == (108, 163, (8, 0))
    assert sizes["h100-sxm5-80gb"] == sizes["h200"] == (132, 227, (9, 0))
    assert sizes["h100-pcie-80gb"] == (114, 227, (9, 0))
    assert sizes["t4"] == (40, 64, (7, 5))
    assert sizes["l40s"] == sizes["l40"] == sizes["rtx-6000-ada"] == (142, 99, (8, 9))
    assert sizes["rtx-4000-ada"] == (48, 99, (8, 9))
    assert sizes["rtx-1000-ada"] == (20, 99, (8, 9))
    assert all(d.source for d in devices())


def test_units() -> None:
    a100 = device("a100").unit("fp16")
    assert a100.unit == MatrixUnit(products=8, fraction_bits=24, rounding="fp32_toward_zero", zero_exponent=-132)
    h200 = device("h200").unit("fp16", out="fp16")
    assert h200.unit == MatrixUnit(products=16, fraction_bits=25, rounding="fp16_nearest_even", zero_exponent=-21)
    assert device("h200").unit("e4m3").method == "through_fp16"
    assert device("h200").unit("e4m3").step == 32
    assert device("h200").unit("e4m3", path="wgmma").unit.fraction_bits == 13
    assert all(unit.source for d in devices() for unit in d.units)
    with pytest.raises(ValueError, match="v100-sxm2-32gb has no matrix unit 'mma' from bf16 to fp32; it has: "):
        device("v100").unit("bf16")
    with pytest.raises(ValueError, match="unknown input format 'fp12'; one of: fp16, bf16"):
        device("v100").unit("fp12")
    assert repr(device("h200")) == "<DeviceProfile h200: hopper 9.0, 132 SMs>"


def test_the_order_of_another_gpu() -> None:
    both = device("h200").ordered_as("a100")
    assert (both.sm_count, both.shared_memory_per_block) == (108, 163 * 1024)
    assert both.unit("bf16") == device("h200").unit("bf16")
    assert both.name == "h200-ordered-as-a100-sxm4-80gb"
    assert device("h200").sm_count == 132
