"""README's Python block runs and says what it says."""

import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from qforensics.cli import app

ROOT = Path(__file__).parents[1]


def test_the_python_example(demo_model):
    (block,) = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), flags=re.DOTALL)
    done = subprocess.run([sys.executable, "-c", block], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "Verdict(awq on h200: match; 0 of 1,396 logprobs differ)"


def test_every_file_that_readme_names_exists():
    text = (ROOT / "README.md").read_text()
    for name in re.findall(r"\]\(([^)#]+)\)|`((?:tests|benchmarks|notebooks|docs)/[\w./-]+)`", text):
        path = next(part for part in name if part)
        assert path.startswith("http") or list(ROOT.glob(f"{path}*")), path


COMMANDS = [
    command for command in re.findall(r"`qforensics ([^`|]*)`", (ROOT / "README.md").read_text()) if " " in command
]


@pytest.mark.slow
@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_that_readme_shows(demo_model, monkeypatch, command):
    assert len(COMMANDS) >= 2
    monkeypatch.chdir(ROOT)
    words = shlex.split(command)
    short = ["--steps", "1"] if words[0] == "verify" else []
    done = CliRunner().invoke(app, [*words, *short])
    assert done.exit_code == 0, (done.stdout, done.stderr)
