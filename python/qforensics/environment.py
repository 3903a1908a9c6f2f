"""What a run depends on besides its inputs: machine, software, flags.

Only this module reads environment variables (the process of a repeat is handed all of them).
"""

from __future__ import annotations

import functools
import hashlib
import importlib.util
import os
import platform
import sys
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

from qforensics import _core, _html, _libtorch

__all__ = [
    "Environment",
    "EnvironmentCheck",
    "EnvironmentItem",
    "capture_environment",
    "code_digests",
    "selected_isa",
    "selected_threads",
    "setting",
    "validate_environment",
]

CRITICAL = ("vllm", "torch", "cuda", "qforensics", "engine", "profile")
"""Facts that must agree: they choose the arithmetic."""

EXPECTED = ("gpu", "hostname", "os", "cpu_model", "cpu_flags", "isa", "threads", "compiler", "python", "numpy")
"""Facts that a replay may differ in: exact arithmetic does not depend on them."""


@functools.cache
def code_digests() -> dict[str, str]:
    """SHA-256 of the extension modules that are installed, by name: the code that computes."""
    found = {}
    for name in ("_core", "_engine"):
        spec = importlib.util.find_spec(f"qforensics.{name}")
        if spec is not None and spec.origin is not None:
            with open(spec.origin, "rb") as file:
                found[name] = hashlib.file_digest(file, "sha256").hexdigest()
    return found


def setting(name: str) -> str | None:
    """The environment variable ``QFORENSICS_<name>``; None where it is unset or empty."""
    return os.environ.get(f"QFORENSICS_{name}") or None


def selected_isa() -> str:
    """Instruction set of the CPU executors: ``QFORENSICS_ISA``, or the best one of this machine.

    Raises
    ------
    ValueError
        When the variable names one that is unknown or that this machine lacks.
    """
    return _core.check_isa(setting("ISA") or _core.best_isa())


def selected_threads(threads: int | None = None) -> int:
    """The number of threads asked for, or else the CPUs that this process may use."""
    return threads or len(os.sched_getaffinity(0))


@dataclass(frozen=True)
class Environment:
    """Record of where numbers were made; `None` and empty tuples mean that a thing is absent."""

    qforensics: str
    python: str
    numpy: str
    torch: str | None
    cuda: str | None
    compiler: str
    os: str
    hostname: str
    cpu_model: str | None
    cpu_flags: tuple[str, ...]
    isa: str
    threads: int
    gpu: tuple[str, ...]

    def to_json(self) -> dict[str, Any]:
        """JSON-able form."""
        return {key: list(value) if isinstance(value, tuple) else value for key, value in asdict(self).items()}

    def __repr__(self) -> str:
        return f"Environment(qforensics {self.qforensics}, {self.cpu_model}, isa {self.isa}, {self.threads} threads)"

    def _repr_html_(self) -> str:
        return _html.section("Environment", _html.table(self.to_json().items()))


def _cpu_info() -> tuple[str | None, tuple[str, ...]]:
    """Model name and the flags that decide arithmetic paths (Linux; absent elsewhere)."""
    try:
        text = Path("/proc/cpuinfo").read_text()
    except OSError:
        return platform.processor() or None, ()
    found: dict[str, str] = {}
    for line in text.splitlines():
        key, _, value = line.partition(":")
        found.setdefault(key.strip(), value.strip())
    wanted = ("avx", "fma", "f16c", "sse", "amx", "vnni")
    flags = sorted({flag for flag in found.get("flags", "").split() if flag.startswith(wanted)})
    return found.get("model name"), tuple(flags)


def _gpus() -> tuple[str, ...]:
    """Names of NVIDIA GPUs as the kernel driver lists them."""
    names = []
    for file in sorted(Path("/proc/driver/nvidia/gpus").glob("*/information")):
        try:
            lines = file.read_text().splitlines()
        except OSError:
            continue
        names += [line.partition(":")[2].strip() for line in lines if line.startswith("Model:")]
    return tuple(names)


def capture_environment(*, isa: str | None = None, threads: int | None = None) -> Environment:
    """Record this process's environment.

    Parameters
    ----------
    isa, threads
        What the run uses; by default `selected_isa()` and `selected_threads()`.
    """
    torch, cuda = _libtorch.version()
    cpu_model, cpu_flags = _cpu_info()
    return Environment(
        qforensics=str(sys.modules["qforensics"].__version__),
        python=platform.python_version(),
        numpy=metadata.version("numpy"),
        torch=torch,
        cuda=cuda,
        compiler=str(_core.build_info["compiler"]),
        os=platform.platform(),
        hostname=platform.node(),
        cpu_model=cpu_model,
        cpu_flags=cpu_flags,
        isa=isa or selected_isa(),
        threads=selected_threads(threads),
        gpu=_gpus(),
    )


@dataclass(frozen=True)
class EnvironmentItem:
    """One fact on both sides; `None` where a side did not record it."""

    name: str
    reference: Any
    verifier: Any

    @property
    def equal(self) -> bool:
        """Whether both sides recorded the same."""
        return bool(self.reference == self.verifier)


@dataclass(frozen=True)
class EnvironmentCheck:
    """Differences that matter (`critical`) and those that a replay allows for (`expected`)."""

    critical: tuple[EnvironmentItem, ...]
    expected: tuple[EnvironmentItem, ...]

    @property
    def ok(self) -> bool:
        """Whether every critical fact agrees."""
        return all(item.equal for item in self.critical)

    def to_json(self) -> dict[str, Any]:
        """JSON-able form."""
        return {
            name: [asdict(item) | {"equal": item.equal} for item in getattr(self, name)]
            for name in ("critical", "expected")
        }

    def __repr__(self) -> str:
        wrong = [item.name for item in self.critical if not item.equal]
        return f"EnvironmentCheck({'ok' if self.ok else 'critical differences: ' + ', '.join(wrong)})"

    def _repr_html_(self) -> str:
        rows = [
            (kind, i.name, i.reference, i.verifier, "=" if i.equal else "≠")
            for kind in ("critical", "expected")
            for i in getattr(self, kind)
        ]
        return _html.section("Environment check", _html.table(rows, head=("", "fact", "reference", "verifier", "")))


def validate_environment(
    reference: Environment | Mapping[str, Any], verifier: Environment | Mapping[str, Any]
) -> EnvironmentCheck:
    """Compare two environment records fact by fact, as the prior experiment did (seed 004).

    Facts that neither side recorded are left out; a fact that one side lacks counts as different.
    """
    first, second = (e.to_json() if isinstance(e, Environment) else dict(e) for e in (reference, verifier))

    def items(names: tuple[str, ...]) -> tuple[EnvironmentItem, ...]:
        pairs = ((name, first.get(name), second.get(name)) for name in names)
        return tuple(EnvironmentItem(*pair) for pair in pairs if pair[1] is not None or pair[2] is not None)

    return EnvironmentCheck(critical=items(CRITICAL), expected=items(EXPECTED))
