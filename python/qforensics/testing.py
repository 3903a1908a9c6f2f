"""pytest plugin: replay a stored trace and assert equal bits, or an envelope, with a readable difference.

Example
-------
>>> def test_my_kernel(qf_replay):  # doctest: +SKIP
...     qf_replay(load_my_model(), "tests/golden/awq.trace")
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from qforensics.comparison import Comparison, PhaseComparison
    from qforensics.trace import Trace

__all__ = ["assert_replay", "qf_replay"]


def _phase_report(name: str, phase: PhaseComparison, reference: Trace) -> str:
    lines = [f"{name}: {phase.differing:,} of {phase.compared:,} logprobs differ in {phase.rows:,} rows"]
    if phase.missing:
        lines.append(f"  {phase.missing:,} ids of the reference are absent from the replay")
    if phase.skipped:
        lines.append(f"  {phase.skipped:,} rows were not compared (other contexts, or in one trace only)")
    if (first := phase.first_difference) is not None:
        position = first.row + (1 if name == "prefill" else reference.prompt_ids.size)
        lines.append(f"  first difference: predicting position {position}, {first}")
    if phase.max_abs is not None:
        lines.append(f"  largest |difference|: {phase.max_abs:.9g}")
    return "\n".join(lines)


def _inside(comparison: Comparison, max_abs: float) -> bool:
    """Whether everything was compared, every id found, and no value is further off than the envelope."""
    phases = (comparison.prefill, comparison.decode)
    complete = comparison.compared > 0 and all(p.missing == 0 and p.skipped == 0 for p in phases)
    return complete and all(p.max_abs <= max_abs for p in phases if p.max_abs is not None)


def assert_replay(model: Any, trace: Trace | str | os.PathLike[str], *, max_abs: float | None = None) -> Comparison:
    """Replay a trace and assert that the replay agrees.

    Parameters
    ----------
    model
        Anything with ``teacher_force(trace) -> Trace``.
    trace
        A trace or the path of a stored one.
    max_abs
        Envelope for |difference| of logprobs (natural logarithm); equality of bits when None.

    Returns
    -------
    Comparison
        For further assertions.

    Raises
    ------
    AssertionError
        Naming the first differing position, token, both values and their bits.
    """
    __tracebackhide__ = True  # pytest shows the test's own line

    from qforensics.comparison import compare
    from qforensics.trace import Trace as TraceType

    reference = trace if isinstance(trace, TraceType) else TraceType.load(trace)
    if max_abs is not None and not max_abs >= 0:
        raise ValueError(f"max_abs: expected a number of at least 0, found {max_abs!r}")
    comparison = compare(reference, model.teacher_force(reference))
    if comparison.exact or (max_abs is not None and _inside(comparison, max_abs)):
        return comparison
    wanted = "equal bits" if max_abs is None else f"|difference| <= {max_abs:.9g}"
    parts = [_phase_report(name, getattr(comparison, name), reference) for name in ("prefill", "decode")]
    raise AssertionError("\n".join([f"replay of {reference!r}: expected {wanted}", *parts]))


@pytest.fixture
def qf_replay() -> Callable[..., Comparison]:
    """`assert_replay`: ``qf_replay(model, trace, *, max_abs=None)``."""
    return assert_replay
