"""qforensics: which weights, kernel and GPU made these tokens?"""

__version__ = "0.1.0"

from qforensics.comparison import Comparison, compare
from qforensics.container import ContainerError
from qforensics.environment import Environment, capture_environment, validate_environment
from qforensics.importing import ImportFormatError, import_trace
from qforensics.model import Model, load_model
from qforensics.noise import NoiseFloor, noise_floor
from qforensics.report import report_html, report_text
from qforensics.study import StudyVariant, study
from qforensics.study_result import StudyResult
from qforensics.trace import LogprobRows, Trace
from qforensics.verdict import Verdict, judge

__all__ = [
    "Comparison",
    "ContainerError",
    "Environment",
    "ImportFormatError",
    "LogprobRows",
    "Model",
    "NoiseFloor",
    "StudyResult",
    "StudyVariant",
    "Trace",
    "Verdict",
    "capture_environment",
    "compare",
    "import_trace",
    "judge",
    "load_model",
    "noise_floor",
    "report_html",
    "report_text",
    "study",
    "validate_environment",
]
