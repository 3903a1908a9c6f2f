"""From `QuantizedLinear` to the tensors of each safetensors format: the inverse of its reader."""

import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import ml_dtypes
import numpy as np
import numpy.typing as npt

from qforensics.checkpoints import QuantizedLinear
from qforensics.checkpoints._bits import AWQ_ORDER, pack_bits
from qforensics.checkpoints._torchao import pack_tiles, padded_features
from qforensics.checkpoints._types import Array

__all__ = ["CONTAINERS", "Container", "pack_awq", "pack_compressed_tensors", "pack_gptq", "pack_torchao"]

Tensors = dict[str, Array]


def _refuse(condition: bool, what: str) -> None:
    if condition:
        raise ValueError(f"this layer cannot be packed: {what}")


def _with_bias(tensors: Tensors, linear: QuantizedLinear) -> Tensors:
    return tensors if linear.bias is None else {**tensors, "bias": linear.bias}


def pack_awq(linear: QuantizedLinear) -> Tensors:
    """Pack for AWQ (gemm): ``qweight`` int32 [K, N/8], ``qzeros`` int32 [K/G, N/8], ``scales`` float16 [K/G, N],
    ``bias``.

    Raises
    ------
    ValueError
        Not 4 bits, an activation order, offsets, scales that are not float16, N not a multiple of 8.
    """
    _refuse(linear.bits != 4 or linear.out_features % 8 != 0, "AWQ needs 4 bits and N a multiple of 8")
    _refuse(
        linear.group_index is not None or linear.offsets is not None, "AWQ has neither activation order nor offsets"
    )
    _refuse(linear.scales.dtype != np.float16, "AWQ needs float16 scales")
    words, zeros = pack_bits(linear.codes, order=AWQ_ORDER), pack_bits(linear.zeros, order=AWQ_ORDER)
    return _with_bias({"qweight": words, "qzeros": zeros, "scales": linear.scales}, linear)


def pack_gptq(linear: QuantizedLinear, *, version: int = 1) -> Tensors:
    """Pack for GPTQ: ``qweight`` int32 [K bits/32, N], ``qzeros`` int32 [K/G, N bits/32], ``scales``, ``g_idx`` int32
    [K].

    `version` 1 stores zero - 1, 2 stores zero.

    Raises
    ------
    ValueError
        Offsets, scales that are not float16, a zero point of 0 in version 1, K not a multiple of 32.
    """
    _refuse(version not in (1, 2), f"GPTQ version 1 or 2, not {version}")
    _refuse(linear.offsets is not None or linear.scales.dtype != np.float16, "GPTQ needs float16 scales and no offsets")
    _refuse(linear.in_features % 32 != 0 or linear.out_features * linear.bits % 32 != 0, "K and N must fill words")
    _refuse(version == 1 and not linear.zeros.all(), "GPTQ version 1 cannot store a zero point of 0")
    k, n = linear.codes.shape
    if linear.bits == 4:
        eights = linear.codes.reshape(k // 8, 8, n)
        octets = np.empty((k // 8, n, 4), np.uint8)
        for byte in range(4):
            octets[..., byte] = eights[:, 2 * byte] | eights[:, 2 * byte + 1] << 4
        words: npt.NDArray[np.int32] = octets.reshape(k // 8, n * 4).view(np.int32)
    else:
        words = np.ascontiguousarray(pack_bits(np.ascontiguousarray(linear.codes.T), linear.bits).T)
    index = (
        linear.group_index
        if linear.group_index is not None
        else (np.arange(k) // linear.rows_per_group).astype(np.int32)
    )
    zeros = pack_bits(linear.zeros - np.uint8(2 - version), linear.bits)
    return _with_bias({"qweight": words, "qzeros": zeros, "scales": linear.scales, "g_idx": index}, linear)


def pack_compressed_tensors(linear: QuantizedLinear, *, symmetric: bool = True) -> Tensors:
    """Pack for compressed-tensors: ``weight_packed``, ``weight_scale`` [N, K/G], ``weight_shape``, and where they apply
    ``weight_zero_point`` (not `symmetric`) and ``weight_g_idx``.

    Raises
    ------
    ValueError
        Neither 4 nor 8 bits, offsets, `symmetric` with other zero points, K or N that do not fill words.
    """
    _refuse(
        linear.bits not in (4, 8) or linear.offsets is not None, "compressed-tensors needs 4 or 8 bits and no offsets"
    )
    _refuse(symmetric and bool((linear.zeros != 1 << (linear.bits - 1)).any()), "its zero points are not symmetric")
    k, n = linear.codes.shape
    _refuse(k * linear.bits % 32 != 0 or (not symmetric and n * linear.bits % 32 != 0), "K and N must fill words")
    tensors: Tensors = {
        "weight_packed": pack_bits(np.ascontiguousarray(linear.codes.T), linear.bits),
        "weight_scale": np.ascontiguousarray(linear.scales.T),
        "weight_shape": np.array([n, k], np.int64),
    }
    if not symmetric:
        tensors["weight_zero_point"] = np.ascontiguousarray(pack_bits(linear.zeros, linear.bits).T)
    if linear.group_index is not None:
        tensors["weight_g_idx"] = linear.group_index
    return _with_bias(tensors, linear)


def pack_torchao(linear: QuantizedLinear) -> Tensors:
    """Pack for torchao's tile-packed INT4: ``_weight_qdata``, ``_weight_scale_and_zero``; K and N padded as torchao
    pads.

    The padding is code 0 with zero = 8 scale: weights of exactly 0, whatever the scale.

    Raises
    ------
    ValueError
        Not 4 bits, no offsets or zeros other than 8, scales that are not bfloat16, a group that does not divide the
        padding.
    """
    _refuse(linear.bits != 4 or linear.group_index is not None, "torchao needs 4 bits in order")
    _refuse(linear.offsets is None or bool((linear.zeros != 8).any()), "torchao needs offsets and zero points of 8")
    _refuse(linear.scales.dtype != ml_dtypes.bfloat16, "torchao needs bfloat16 scales")
    assert linear.offsets is not None
    k, n = linear.codes.shape
    n_stored, k_stored = padded_features(n, k)
    _refuse(k_stored % linear.rows_per_group != 0, f"the group size must divide the padded K = {k_stored}")
    codes = np.zeros((k_stored, n_stored), np.uint8)
    codes[:k, :n] = linear.codes
    pairs = np.empty((k_stored // linear.rows_per_group, n_stored, 2), ml_dtypes.bfloat16)
    scale = np.float32(1e-5 / 15).astype(ml_dtypes.bfloat16)
    pairs[...] = [scale, scale * 8]
    pairs[: linear.scales.shape[0], :n, 0] = linear.scales
    pairs[: linear.scales.shape[0], :n, 1] = linear.offsets
    return _with_bias({"_weight_qdata": pack_tiles(codes), "_weight_scale_and_zero": pairs}, linear)


@dataclass(frozen=True)
class Container:
    """How a method's directory looks: packing, dtype of the dense tensors, ``quantization_config``, header metadata."""

    pack: Callable[[QuantizedLinear], Tensors]
    dense_dtype: str
    settings: Callable[[int], dict[str, Any]]


def _awq_settings(group_size: int) -> dict[str, Any]:
    return {"quant_method": "awq", "bits": 4, "group_size": group_size, "zero_point": True, "version": "gemm"}


def _gptq_settings(group_size: int) -> dict[str, Any]:
    order = {"desc_act": False, "sym": True, "checkpoint_format": "gptq"}
    return {"quant_method": "gptq", "bits": 4, "group_size": group_size, **order}


def _compressed_settings(group_size: int) -> dict[str, Any]:
    strategy = {"strategy": "channel"} if group_size == -1 else {"strategy": "group", "group_size": group_size}
    weights = {"num_bits": 4, "type": "int", "symmetric": True, "dynamic": False, "actorder": None, **strategy}
    group = {"targets": ["Linear"], "weights": weights, "input_activations": None, "output_activations": None}
    head = {"quant_method": "compressed-tensors", "format": "pack-quantized", "quantization_status": "compressed"}
    return {**head, "config_groups": {"group_0": group}, "ignore": ["lm_head"]}


def _torchao_settings(group_size: int) -> dict[str, Any]:
    data = {
        "group_size": group_size,
        "int4_packing_format": {"_type": "Int4PackingFormat", "_data": "TILE_PACKED_TO_4D"},
        "int4_choose_qparams_algorithm": {"_type": "Int4ChooseQParamsAlgorithm", "_data": "TINYGEMM"},
        "set_inductor_config": True,
    }
    default = {"_type": "Int4WeightOnlyConfig", "_version": 2, "_data": data}
    return {"quant_method": "torchao", "quant_type": {"default": default}, "modules_to_not_convert": ["lm_head"]}


def torchao_metadata(
    linears: dict[str, tuple[int, int]], tensors: list[str], group_size: dict[str, int]
) -> dict[str, str]:
    """Header metadata of a torchao file: one JSON object per tensor, and the list of them."""
    result = {name: json.dumps({"_type": "Tensor"}) for name in tensors}
    for name, shape in linears.items():
        data = {"block_size": [1, group_size[name]], "shape": list(shape)}
        names = ["qdata", "scale_and_zero"]
        result[name + ".weight"] = json.dumps(
            {"_type": "Int4TilePackedTo4dTensor", "_data": data, "_tensor_data_names": names}
        )
    return {**result, "tensor_names": json.dumps(sorted(result))}


#: Container of each method that is written as safetensors.
CONTAINERS: dict[str, Container] = {
    "awq": Container(pack_awq, "F16", _awq_settings),
    "gptq": Container(pack_gptq, "F16", _gptq_settings),
    "compressed-tensors": Container(pack_compressed_tensors, "F16", _compressed_settings),
    "pytorch_int4": Container(pack_torchao, "BF16", _torchao_settings),
}
