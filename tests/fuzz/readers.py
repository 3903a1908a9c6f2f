"""libFuzzer targets (atheris), one per reader: hostile bytes end in the reader's own error or in a valid object.

    python tests/fuzz/readers.py READER [libFuzzer options]      --list prints the readers

A seed is a small valid file; an input patches it: pairs of (position, byte) over all of it, and a length to cut at.
"""

import contextlib
import json
import sys
import tempfile
from pathlib import Path

import atheris

sys.path.insert(0, str(Path(__file__).parents[1]))

with atheris.instrument_imports(include=["qforensics"]):
    import qforensics as qf
    from qforensics.checkpoints import CheckpointError, load
    from qforensics.quantize import quantize_checkpoint

from checkpoint_files import CONFIG, dense_tensors, write_directory

RUNS = Path(__file__).parents[1] / "data" / "traces" / "vllm-0.21.0-h200"


def _directory(method: str | None) -> Path:
    root = Path(tempfile.mkdtemp())
    dense = write_directory(root / "hf", CONFIG, dense_tensors(CONFIG))
    if method is None:
        return dense
    quantize_checkpoint(dense, root / method, method=method, group_size=32)
    return root / method


def _trace_file() -> Path:
    file = Path(tempfile.mkdtemp()) / "seed.qftrace"
    qf.import_trace(RUNS / "awq.json", 0).save(file)
    return file


def _recording() -> Path:
    data = json.loads((RUNS / "awq.json").read_text())
    trace = data["traces"][0]
    for key in ("prompt_ids", "prompt", "ids", "decode"):
        trace[key] = trace[key][:3]
    data["traces"] = [trace]
    file = Path(tempfile.mkdtemp()) / "seed.json"
    file.write_text(json.dumps(data))
    return file


def _read_checkpoint(directory: Path) -> None:
    checkpoint = load(directory)
    for name in checkpoint.linear_names:
        checkpoint.linear(name)
    for name in checkpoint.names:
        checkpoint.tensor(name)


READERS = {
    "hf": (lambda: _directory(None), "model.safetensors", _read_checkpoint),
    "hf-config": (lambda: _directory(None), "config.json", _read_checkpoint),
    "awq": (lambda: _directory("awq"), "model.safetensors", _read_checkpoint),
    "gptq": (lambda: _directory("gptq"), "model.safetensors", _read_checkpoint),
    "gptq-config": (lambda: _directory("gptq"), "config.json", _read_checkpoint),
    "compressed-tensors": (lambda: _directory("compressed-tensors"), "model.safetensors", _read_checkpoint),
    "torchao": (lambda: _directory("pytorch_int4"), "model.safetensors", _read_checkpoint),
    "openvino": (lambda: _directory("openvino"), "openvino_model.xml", _read_checkpoint),
    "trace": (_trace_file, None, qf.Trace.load),
    "recording": (_recording, None, lambda path: qf.import_trace(path, 0)),
}
EXPECTED = (CheckpointError, qf.ContainerError, qf.ImportFormatError)


def target(name: str):
    make, inner, read = READERS[name]
    path = make()
    file = path / inner if inner else path
    seed = file.read_bytes()

    def one_input(data: bytes) -> None:
        source = atheris.FuzzedDataProvider(data)
        mutated = bytearray(seed[: source.ConsumeIntInRange(0, len(seed))] if source.ConsumeBool() else seed)
        header = min(len(mutated), 4096)  # most structure lies in front
        while source.remaining_bytes() > 2 and mutated:
            limit = header if source.ConsumeBool() else len(mutated)
            mutated[source.ConsumeIntInRange(0, limit - 1)] = source.ConsumeIntInRange(0, 255)
        file.write_bytes(mutated)
        with contextlib.suppress(*EXPECTED):
            read(path)

    return one_input


if __name__ == "__main__":
    if sys.argv[1:] == ["--list"]:
        print("\n".join(READERS))
    else:
        name = sys.argv.pop(1)
        atheris.Setup(sys.argv, target(name))
        atheris.Fuzz()
