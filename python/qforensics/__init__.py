"""qforensics: which weights, kernel and GPU made these tokens?"""

__version__ = "0.1.0"

from qforensics.comparison import Comparison, compare
from qforensics.container import ContainerError
from qforensics.environment import capture_environment, validate_environment
from qforensics.importing import import_trace
from qforensics.trace import LogprobRows, Trace

__all__ = [
    "Comparison",
    "ContainerError",
    "LogprobRows",
    "Trace",
    "capture_environment",
    "compare",
    "import_trace",
    "validate_environment",
]
