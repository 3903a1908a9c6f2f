"""The first notebook runs from its first to its last cell, and its two forms are one."""

from __future__ import annotations

import base64
import os
import re
from pathlib import Path

import nbclient
import nbformat
import pytest

FOLDER = Path(__file__).parent.parent / "notebooks"
PACKAGE = Path(__file__).parent.parent / "python"


def _source(path: Path) -> list[tuple[str, str]]:
    import jupytext

    cells = jupytext.read(path).cells
    return [(cell.cell_type, cell.source) for cell in cells]


def test_the_pair_is_one_notebook():
    assert _source(FOLDER / "01_first_verdict.ipynb") == _source(FOLDER / "01_first_verdict.py")


def test_only_public_names():
    import qforensics as qf

    text = (FOLDER / "01_first_verdict.py").read_text()
    used = set(re.findall(r"\bqf\.(\w+)", text))
    assert "study" in used
    assert used <= {*qf.__all__}
    assert "from qforensics" not in text


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # the client's own, about event loops and sockets
def test_first_verdict(monkeypatch):
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(PACKAGE), os.environ.get("PYTHONPATH", "")]))
    notebook = nbformat.read(FOLDER / "01_first_verdict.ipynb", as_version=4)
    client = nbclient.NotebookClient(
        notebook, timeout=600, kernel_name="python3", resources={"metadata": {"path": str(FOLDER)}}
    )
    client.execute()
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", [])]
    shown = [output.data for output in outputs if "data" in output]
    pictures = [base64.b64decode(data["image/png"]) for data in shown if "image/png" in data]
    assert len(pictures) == 3
    assert all(picture.startswith(b"\x89PNG") and len(picture) > 10_000 for picture in pictures)
    text = "".join(output.get("text", "") for output in outputs) + "".join(d.get("text/plain", "") for d in shown)
    assert "Comparison(prefill 0 of 756 differ, decode 0 of 120 differ)" in text
    assert "Comparison(prefill 756 of 756 differ, decode 120 of 120 differ)" in text
    assert "NoiseFloor(racing atomics (exllama)" in text
    assert "Verdict(gptq@h200: inconclusive" in text
