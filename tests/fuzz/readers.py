"""libFuzzer targets (atheris), one per reader: hostile bytes end in the reader's own error or in a valid object.

    python tests/fuzz/readers.py READER [libFuzzer options]      --list prints the readers

A seed is a small valid file; an input edits it: bytes, lengths of eight bytes, tokens of JSON and XML, and where to cut
it off. The address space may grow by `ALLOWANCE` beyond what the imports took: the files are
below 1 MB, so that an allocation which a header asks for ends in a MemoryError, which no reader may raise.
"""

import json
import re
import resource
import shutil
import sys
import tempfile
from pathlib import Path

import atheris
import numpy as np

TESTS = Path(__file__).parents[1]
sys.path.insert(0, str(TESTS))

with atheris.instrument_imports(include=["qforensics"]):
    from gguf.constants import GGMLQuantizationType as GgmlType

    import forensics_doubles as doubles
    import qforensics as qf
    from checkpoint_files import CONFIG, dense_tensors, write_directory
    from qforensics._json import JsonFileError, read_json
    from qforensics.checkpoints import CheckpointError, load
    from qforensics.container import write_container
    from qforensics.quantize import quantize_checkpoint
    from qforensics.seeds_format import check_variant_record, variant_record
    from qforensics.trace import _ARRAYS as ARRAYS
    from test_checkpoints_gguf import write_gguf

RUNS = TESTS / "data" / "traces" / "vllm-0.21.0-h200"
ALLOWANCE = 256 << 20
EXTREMES = [0, 1, 2**31, 2**32 - 1, 2**40, 2**63, 2**64 - 1]
TOKEN = re.compile(rb'"[^"]*"|-?[0-9][0-9.eE+-]*|true|false|null')
HOSTILE = [
    b"0", b"1", b"-1", b"1.5", b"1e999", b"-0.0", b"9" * 20, b"9" * 5000, b"null", b"true", b"[]", b"{}", b"[null]",
    b"[" * 200 + b"]" * 200, b"[" * 960 + b"]" * 960, b'{"a":' * 2000, b'""', b'"x"', b'"0"', b'"-1"', b'"4294967296"',
    b'"' + b"9" * 20 + b'"', b'"\\ud800"', b'"\\u0000"', b'"1,1,1"', b'"9,9,9"', b'"../x"', b'"' + b"x" * 3000 + b'"',
]  # fmt: skip


def _new() -> Path:
    return Path(tempfile.mkdtemp())


def _directory(method: str | None) -> Path:
    root = _new()
    dense = write_directory(root / "hf", CONFIG, dense_tensors(CONFIG))
    if method is None:
        return dense
    quantize_checkpoint(dense, root / method, method=method, group_size=32)
    return root / method


def _sharded() -> Path:
    """A directory whose index names one shard."""
    path = _directory(None)
    (path / "model.safetensors").rename(path / "part.safetensors")
    names = dict.fromkeys(dense_tensors(CONFIG), "part.safetensors")
    (path / "model.safetensors.index.json").write_text(json.dumps({"weight_map": names}))
    return path


def _recorded_ir() -> Path:
    """An IR that OpenVINO's own tools wrote."""
    return Path(shutil.copytree(TESTS / "data" / "openvino" / "llama-asym", _new() / "ir"))


def _gguf(kind: GgmlType) -> Path:
    file = _new() / "seed.gguf"
    write_gguf(file, CONFIG, kind)
    return file


def _trace_file() -> Path:
    file = _new() / "seed.qftrace"
    qf.import_trace(RUNS / "awq.json", 0).save(file)
    return file


def _trace_parts() -> Path:
    """What a trace file holds, as JSON: behind the digests, which no mutated file gets past."""
    trace = qf.import_trace(RUNS / "awq.json", 0).head(2)
    arrays = {name: array.tolist() for name, array in trace._arrays().items()}
    file = _new() / "parts.json"
    file.write_text(json.dumps({"arrays": arrays, "fields": {"top_k": trace.top_k, "provenance": trace.provenance}}))
    return file


def _read_trace_parts(path: Path) -> None:
    try:
        parts = json.loads(path.read_bytes())
        arrays = {name: np.array(parts["arrays"][name], spec.dtype) for name, spec in ARRAYS.items()}
        fields, file = dict(parts["fields"]), Path(f"{path}.qftrace")
        write_container(file, kind="trace", version=1, fields=fields, arrays=arrays)
    except (KeyError, OverflowError, TypeError, ValueError, RecursionError, AttributeError):  # these parts make no file
        return
    trace = qf.Trace.load(file)
    repr(trace), trace.digest, trace.prefill.target_logprobs()


def _recording() -> Path:
    data = json.loads((RUNS / "awq.json").read_text())
    trace = data["traces"][0]
    for key in ("prompt_ids", "prompt", "ids", "decode"):
        trace[key] = trace[key][:3]
    data["traces"] = [trace]
    file = _new() / "seed.json"
    file.write_text(json.dumps(data))
    return file


def _study() -> Path:
    work = _new()
    variants = [qf.StudyVariant("one", doubles.load_one), qf.StudyVariant("broken", doubles.load_broken)]
    result = qf.study(variants, [[1, 2, 3]], work_dir=work, max_new_tokens=2, repeats=2, processes=1)
    result.save(work / "study.json")
    return work / "study.json"


def _variant_file() -> Path:
    runs = [doubles.load_racing().generate([1, 2, 3], max_new_tokens=3) for _ in range(2)]
    file = _new() / "variant.json"
    file.write_text(json.dumps(variant_record("awq", runs, timestamp="2026-11-21T00:00:00+00:00", config={})))
    return file


def _read_checkpoint(path: Path) -> None:
    checkpoint = load(path)
    for name in checkpoint.linear_names:
        checkpoint.linear(name)
    for name in checkpoint.names:
        checkpoint.tensor(name)
    checkpoint.digest()


def _read_study(path: Path) -> None:
    result = qf.StudyResult.load(path)
    result.to_json()
    repr(result)


READERS = {
    "hf": (lambda: _directory(None), "model.safetensors", _read_checkpoint),
    "hf-config": (lambda: _directory(None), "config.json", _read_checkpoint),
    "hf-index": (_sharded, "model.safetensors.index.json", _read_checkpoint),
    "awq": (lambda: _directory("awq"), "model.safetensors", _read_checkpoint),
    "gptq": (lambda: _directory("gptq"), "model.safetensors", _read_checkpoint),
    "gptq-config": (lambda: _directory("gptq"), "config.json", _read_checkpoint),
    "compressed-tensors": (lambda: _directory("compressed-tensors"), "model.safetensors", _read_checkpoint),
    "torchao": (lambda: _directory("pytorch_int4"), "model.safetensors", _read_checkpoint),
    "openvino": (lambda: _directory("openvino"), "openvino_model.xml", _read_checkpoint),
    "openvino-recorded": (_recorded_ir, "openvino_model.xml", _read_checkpoint),
    "openvino-bin": (lambda: _directory("openvino"), "openvino_model.bin", _read_checkpoint),
    "gguf-q4": (lambda: _gguf(GgmlType.Q4_1), None, _read_checkpoint),
    "gguf-q8": (lambda: _gguf(GgmlType.Q8_0), None, _read_checkpoint),
    "trace": (_trace_file, None, qf.Trace.load),
    "trace-inside": (_trace_parts, None, _read_trace_parts),
    "recording": (_recording, None, lambda path: qf.import_trace(path, 0)),
    "study": (_study, None, _read_study),
    "variant-file": (_variant_file, None, lambda path: check_variant_record(read_json(path, limit=1 << 26), path)),
}
REFUSALS = (CheckpointError, qf.ContainerError, qf.ImportFormatError, JsonFileError)


def _tokens(seed: bytes) -> list[bytes]:
    """Strings, numbers and literals of a JSON or XML file; empty for a binary one."""
    return [] if b"\0" in seed else list(dict.fromkeys(TOKEN.findall(seed)))


def mutated(seed: bytes, tokens: list[bytes], data: bytes) -> bytearray:
    source = atheris.FuzzedDataProvider(data)
    out = bytearray(seed[: source.ConsumeIntInRange(0, len(seed))] if source.ConsumeIntInRange(0, 7) == 0 else seed)
    while source.remaining_bytes() > 2 and out:
        limit = min(len(out), 4096) if source.ConsumeBool() else len(out)  # most structure lies in front
        at = source.ConsumeIntInRange(0, limit - 1)
        kind = source.ConsumeIntInRange(0, 7)
        if kind == 0:
            del out[at : at + source.ConsumeIntInRange(1, 16)]
        elif kind == 1:
            out[at:at] = source.ConsumeBytes(4)
        elif kind < 6 and tokens:  # another of the file's own tokens, or a hostile one, in place of the next
            found = TOKEN.search(out, at)
            if found:
                out[found.start() : found.end()] = source.PickValueInList(tokens if kind == 2 else HOSTILE)
        elif kind < 4:  # a length, count or offset
            out[at : at + 8] = source.PickValueInList(EXTREMES).to_bytes(8, "little")
        else:
            out[at] = source.ConsumeIntInRange(0, 255)
    return out


def target(name: str):
    make, inner, read = READERS[name]
    path = make()
    file = path / inner if inner else path
    seed = file.read_bytes()
    tokens = _tokens(seed)
    read(path)  # the seed is valid, and what is imported late is imported

    def one_input(data: bytes) -> None:
        file.write_bytes(mutated(seed, tokens, data))
        try:
            read(path)
        except REFUSALS as error:
            if str(path) not in str(error) or len(str(error)) > 2000:
                raise AssertionError("a refusal names its file, briefly") from error

    pages = int(Path("/proc/self/statm").read_text().split()[0])
    limit = pages * resource.getpagesize() + ALLOWANCE
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    return one_input


if __name__ == "__main__":
    if sys.argv[1:] == ["--list"]:
        print("\n".join(READERS))
    else:
        atheris.Setup([sys.argv[0], *sys.argv[2:]], target(sys.argv[1]))
        atheris.Fuzz()
