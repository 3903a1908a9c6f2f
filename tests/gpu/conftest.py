"""GPU tests run where a GPU is. Elsewhere they are skipped, unless QFORENSICS_REQUIRE_GPU wants one."""

import os

import pytest

from qforensics import _core


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    here = [item for item in items if "tests/gpu/" in item.nodeid or item.nodeid.startswith("gpu/")]
    for item in here:
        item.add_marker(pytest.mark.gpu)
    if _core.gpu_count() > 0 or os.environ.get("QFORENSICS_REQUIRE_GPU"):
        return
    for item in here:
        item.add_marker(pytest.mark.skip(reason=f"no GPU: {_core.why_no_gpu()}"))
