"""What every benchmark's JSON says of where it was measured: the commit, the machine, and how busy that was."""

from __future__ import annotations

import os
import statistics
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from qforensics.environment import capture_environment

HERE = Path(__file__).parent
RESULTS = HERE / "results"


def provenance() -> dict[str, Any]:
    """Commit (with `-dirty` where files differ from it), environment, and the load before the run."""
    command = ["git", "describe", "--always", "--dirty", "--abbrev=40", "--exclude", "*"]
    done = subprocess.run(command, cwd=HERE, capture_output=True, text=True, check=False)
    return {
        "commit": done.stdout.strip() or None,
        "environment": capture_environment().to_json(),
        "load_before": os.getloadavg()[0],
    }


def spread(values: Sequence[float]) -> dict[str, float]:
    """Median, smallest and largest."""
    return {"median": statistics.median(values), "min": min(values), "max": max(values)}
