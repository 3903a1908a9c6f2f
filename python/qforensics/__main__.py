"""The command line: ``qforensics`` and ``python -m qforensics``."""

import sys
import traceback

FAILURE = 4  # `ExitCode.FAILURE`, needed where importing it fails


def main() -> None:
    """Run the command line; a traceback's exit code is that of a failure, not Python's 1, which says mismatch."""
    try:
        from qforensics.cli import app

        app(prog_name="qforensics")
    except (Exception, KeyboardInterrupt):
        traceback.print_exc()
        sys.exit(FAILURE)


if __name__ == "__main__":
    main()
