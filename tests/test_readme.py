"""README's Python block runs and says what it says."""

import re
import subprocess
import sys
from pathlib import Path

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
