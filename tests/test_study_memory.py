"""Out of memory in the middle of a study: that variant fails, with sizes in the message, and the others do not."""

from __future__ import annotations

import functools
import re
import resource

import pytest
import torch

import forensics_doubles as doubles
import qforensics as qf
from family_models import write_model
from memory_limits import WIDE, load_limited, long_reference
from qforensics import StudyVariant

IDS = 1100
TENSOR = (IDS + 1) * 64 * 128 * 4
"""Bytes of a layer's keys: the cache has room for one more token."""


@pytest.fixture(scope="module")
def wide(tmp_path_factory):
    path = tmp_path_factory.mktemp("wide") / "m"
    write_model(path, "qwen3", torch.float16, **WIDE)
    return str(path)


@pytest.mark.parametrize("gpus", [(), (0, 0)])
def test_a_variant_that_runs_out_of_memory_fails_alone(wide, tmp_path, gpus):
    """The short reference fits in what the long one's keys do not; a later variant has its memory."""
    references = {"one": [doubles.load_one().teacher_force(long_reference(4))], "long": [long_reference(IDS)]}
    variants = [
        StudyVariant("one", doubles.load_one),
        StudyVariant("large", functools.partial(load_limited, wide, TENSOR // 2)),
        StudyVariant("long", doubles.load_other_kernel),
    ]
    before = resource.getrlimit(resource.RLIMIT_AS)
    result = qf.study(variants, work_dir=tmp_path, references=references, repeats=0, gpus=gpus)
    assert resource.getrlimit(resource.RLIMIT_AS) == before
    (error,) = result.errors
    assert (error.variant, error.stage) == ("large", "replay")
    refused = re.search(r"you tried to allocate (\d+) bytes", error.error)
    assert refused, error.error
    assert int(refused[1]) >= TENSOR  # the first that does not fit, which depends on what the process holds already
    assert "\n" not in error.error
    cells = {(cell.claimed, cell.verified) for cell in result.cells}
    assert cells == {(claim, v) for claim in references for v in ("one", "long")} | {("one", "large")}
    assert {verdict.claim: verdict.outcome for verdict in result.verdicts}["one"] == "match"


def test_with_memory_nothing_fails(wide, tmp_path):
    """The control: the same study with room for the keys."""
    load = functools.partial(load_limited, wide, 1 << 40)
    variants = [StudyVariant("long", doubles.load_one), StudyVariant("large", load)]
    result = qf.study(variants, work_dir=tmp_path, references={"long": [long_reference(IDS)]}, repeats=0)
    assert result.errors == ()
    assert {cell.verified for cell in result.cells} == {"long", "large"}
