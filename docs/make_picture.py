"""docs/hypotheses.png from the study that the demo saved:  python docs/make_picture.py [STUDY.json]"""

import sys
from pathlib import Path

import matplotlib

matplotlib.use("Agg")

from matplotlib import pyplot

from qforensics.study_result import StudyResult

source = Path(sys.argv[1] if len(sys.argv) > 1 else "results/demo/recorded/results/study.json")
figure, axes = pyplot.subplots(figsize=(9, 4.2), layout="constrained")
StudyResult.load(source).plot(axes, phase="prefill")
axes.set_title("differing prefill logprobs: recorded vLLM runs (rows) under every hypothesis (columns)", fontsize=10)
figure.savefig(Path(__file__).parent / "hypotheses.png", dpi=110)
