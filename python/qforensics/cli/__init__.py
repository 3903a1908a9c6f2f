"""The command line: ``qforensics``. One module per group of commands; `app` is the entry point."""

from qforensics.cli import demo, judging, models, runs, tables  # noqa: F401  (each adds its commands)
from qforensics.cli._app import app

__all__ = ["app"]
