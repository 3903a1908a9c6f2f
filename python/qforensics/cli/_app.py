"""What all commands share: the application, exit codes, errors in one sentence, tables and progress."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from enum import IntEnum
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import typer
from typer.core import TyperCommand, TyperGroup

if TYPE_CHECKING:
    from rich.console import Console

    from qforensics.study import Progress

__all__ = [
    "Bar",
    "ExitCode",
    "ListCommand",
    "app",
    "finish",
    "out",
    "print_json",
    "print_table",
    "progress_bar",
    "study_progress",
]


class ExitCode(IntEnum):
    """What scripts may rely on."""

    MATCH = 0
    MISMATCH = 1
    USAGE = 2
    INCONCLUSIVE = 3
    FAILURE = 4


EXIT_HELP = "Exit codes: 0 match or success, 1 mismatch, 2 usage, 3 inconclusive, 4 bad input, failure or interrupt."


def _sentence(error: Exception) -> str:
    """What an exception says; the system's own errors name the file first."""
    if isinstance(error, OSError) and error.filename is not None and error.strerror:
        return f"{error.filename}: {error.strerror}"
    return str(error)


class _Group(TyperGroup):
    """Turns exceptions into one sentence on stderr and exit code 4; ``--debug`` lets them through to `run`."""

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except (KeyboardInterrupt, typer.Abort):  # typer's own code for them is 1, a mismatch's
            print("interrupted", file=sys.stderr)
            raise typer.Exit(ExitCode.FAILURE) from None
        except Exception as error:
            if hasattr(error, "exit_code") or ctx.params.get("debug"):
                raise
            known = isinstance(error, (ValueError, OSError, ImportError, IndexError, TypeError, RuntimeError))
            text = " ".join(_sentence(error).split()) or type(error).__name__
            hint = "" if known else " (unexpected: --debug shows where)"
            print(f"error: {text if known else f'{type(error).__name__}: {text}'}{hint}", file=sys.stderr)
            raise typer.Exit(ExitCode.FAILURE) from None


class ListCommand(TyperCommand):
    """Lets the options in `lists` take several values after one name, as in ``--variants awq gptq``.

    A further value that is a file's name is none of them but the command's argument; ``--`` ends a list as well.
    """

    lists = ("--variants", "--hypotheses", "--claimed", "--devices")

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        spread: list[str] = []
        option: str | None = None
        for arg in args:
            if arg in self.lists:
                option = arg
                spread.append(arg)
            elif option is None or arg.startswith("-") or (spread[-1] != option and Path(arg).is_file()):
                option = None
                spread.append(arg)
            else:  # the first value follows the option's name; later ones get it repeated
                spread += [arg] if spread[-1] == option else [option, arg]
        return super().parse_args(ctx, spread)


app = typer.Typer(
    cls=_Group,
    name="qforensics",
    help="Which weights, kernel and GPU made these tokens?",
    epilog=EXIT_HELP,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _version(asked: bool) -> None:
    if asked:
        import qforensics

        print(qforensics.__version__)
        raise typer.Exit()


@app.callback()
def main(
    debug: bool = typer.Option(False, "--debug", help="Show the traceback of an error."),
    version: bool = typer.Option(False, "--version", callback=_version, is_eager=True, help="Print the version."),
) -> None:
    """Which weights, kernel and GPU made these tokens?"""


def finish(code: ExitCode) -> NoReturn:
    """End the command."""
    raise typer.Exit(int(code))


def out(*, stderr: bool = False) -> Console:
    """A console; in pipes it is wide enough not to fold tables."""
    from rich.console import Console

    console = Console(stderr=stderr, highlight=False)
    return console if console.is_terminal else Console(stderr=stderr, highlight=False, width=160)


def print_json(value: Any) -> None:
    """One JSON document on stdout."""
    print(json.dumps(value, indent=2, allow_nan=False, ensure_ascii=False))


def print_table(title: str, head: Sequence[str], rows: Sequence[Sequence[Any]], *, notes: Sequence[str] = ()) -> None:
    """A table on stdout; cells are text, or rich renderables."""
    from rich.table import Table
    from rich.text import Text

    console = out()
    table = Table(*head, show_header=any(head))
    for row in rows:
        table.add_row(*(cell if isinstance(cell, Text) else Text(str(cell)) for cell in row))
    console.print(Text(title, style="bold"))  # a table's own title is folded to its width
    console.print(table)
    for note in notes:
        console.print(Text(note))


Bar = Callable[[float, int, str], None]
"""Called with steps done, steps in all, and what is being done."""


def study_progress(bar: Bar) -> Callable[[Progress], None]:
    """A study's progress on a bar; a cell under way counts by its part."""
    return lambda p: bar(p.done + (p.part or 0.0), p.total, p.cell)


@contextmanager
def progress_bar(title: str) -> Iterator[Bar]:
    """A bar with the remaining time on stderr; silent where stderr is no terminal."""
    from rich.progress import BarColumn, ProgressColumn, Task, TaskProgressColumn, TextColumn
    from rich.progress import Progress as Bars
    from rich.text import Text

    class Times(ProgressColumn):
        max_refresh = 0.5

        def render(self, task: Task) -> Text:
            past = f"{timedelta(seconds=int(task.elapsed or 0))} so far"
            left = task.time_remaining
            return Text(past if left is None else f"{timedelta(seconds=int(left))} left, {past}", style="cyan")

    console = out(stderr=True)
    columns = (TextColumn("{task.description}"), BarColumn(), TaskProgressColumn(), Times())
    with Bars(*columns, console=console, transient=True, disable=not console.is_terminal) as progress:
        task = progress.add_task(title, total=None)

        def bar(done: float, total: int, what: str) -> None:
            progress.update(task, completed=done, total=total, description=f"{title}: {what}" if what else title)

        yield bar
