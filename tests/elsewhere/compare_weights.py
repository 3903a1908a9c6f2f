"""The weights that another program makes of a checkpoint, against ours, bit for bit.

Run by hand, in an environment of its own: these programs are too heavy, or too particular about torch, to be pinned
beside the tests. Results: docs/elsewhere.md.

    pip install gptqmodel optimum accelerate && python tests/elsewhere/compare_weights.py gptqmodel CHECKPOINT
    pip install openvino && python tests/elsewhere/compare_weights.py openvino CHECKPOINT
"""

import argparse
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from qforensics.checkpoints import Checkpoint, load


def from_gptqmodel(checkpoint: Checkpoint) -> Iterator[tuple[str, np.ndarray, np.ndarray]]:
    """AWQ and GPTQ through transformers and GPTQModel's torch kernels: each layer's product with the unit matrix."""
    import torch
    from transformers import AutoModelForCausalLM, AwqConfig, GPTQConfig

    awq, group = checkpoint.format == "awq", checkpoint.quantization["group_size"]
    settings: Any = (
        AwqConfig(bits=4, group_size=group, backend="torch_awq")
        if awq
        else GPTQConfig(bits=4, group_size=group, backend="torch")
    )
    model = AutoModelForCausalLM.from_pretrained(
        checkpoint.path, dtype=torch.float16, quantization_config=settings, device_map="cpu"
    )
    for name in checkpoint.linear_names[:-1]:
        layer = model.get_submodule(name)
        if getattr(layer, "bias", None) is not None:
            layer.bias.data.zero_()
        ours = checkpoint.linear(name)
        with torch.inference_mode():
            theirs = layer(torch.eye(ours.in_features, dtype=torch.float16)).numpy().T
        yield name, theirs, ours.dequantize().astype(np.float16)


def from_openvino(checkpoint: Checkpoint) -> Iterator[tuple[str, np.ndarray, np.ndarray]]:
    """The weights that `quantize --method openvino` wrote, as OpenVINO's CPU plugin computes them."""
    import openvino

    core = openvino.Core()
    model = core.read_model(checkpoint.path / "openvino_model.xml")
    results = core.compile_model(model, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})([])
    for index, node in enumerate(model.get_results()):
        name = node.get_friendly_name()
        layer = name.removesuffix(".weight")
        packed = layer in checkpoint.linear_names
        ours = checkpoint.linear(layer).dequantize() if packed else checkpoint.tensor(name)
        yield name, np.asarray(results[index], np.float32), ours.astype(np.float32)


PROGRAMS = {"gptqmodel": from_gptqmodel, "openvino": from_openvino}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("program", choices=PROGRAMS)
    parser.add_argument("checkpoint", type=Path)
    arguments = parser.parse_args()
    differing = values = tensors = 0
    for name, theirs, ours in PROGRAMS[arguments.program](load(arguments.checkpoint)):
        theirs, ours = np.ascontiguousarray(theirs), np.ascontiguousarray(ours)
        assert (theirs.dtype, theirs.size) == (ours.dtype, ours.size), name
        bits = np.uint16 if ours.dtype.itemsize == 2 else np.uint32
        differing += int((theirs.reshape(-1).view(bits) != ours.reshape(-1).view(bits)).sum())
        values, tensors = values + ours.size, tensors + 1
    print(f"{arguments.program}: {differing} of {values} values of {tensors} tensors differ")


if __name__ == "__main__":
    main()
