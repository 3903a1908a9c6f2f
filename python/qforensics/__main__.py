"""``python -m qforensics``: the command line."""

from qforensics.cli import app

if __name__ == "__main__":
    app(prog_name="qforensics")
