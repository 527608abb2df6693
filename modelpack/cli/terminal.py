"""Where a command speaks: results on standard output, everything else on standard error.

Imported by `modelpack --help`, so what only some commands need is imported where it is used.
"""

from __future__ import annotations

import io
import os
import signal
import sys
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any, NamedTuple

from modelpack.errors import InputError, ModelpackError

if TYPE_CHECKING:
    from rich.console import Console

_LOG_LINES = 20
_PIPE_WIDTH = 200
INTERRUPTED = 130  # 128 + SIGINT, as shells report it
_SIGNALLED = 128  # plus the signal's number, as shells report it


class Manner(NamedTuple):
    """How a command speaks: the common options of all commands."""

    json: bool = False
    quiet: bool = False
    verbose: bool = False
    debug: bool = False


def stdout() -> Console:
    """A console on standard output; without colours where NO_COLOR or a pipe says so."""
    from rich.console import Console

    class Stdout(Console):
        def on_broken_pipe(self) -> None:
            """Let the caller know, where rich would exit with 1."""
            raise BrokenPipeError

    # Without a terminal there is no width to fit: tables keep each row on one line.
    width = None if sys.stdout.isatty() else _PIPE_WIDTH
    return Stdout(width=width, highlight=False, markup=False)


def stderr() -> Console:
    """A console on standard error."""
    from rich.console import Console

    return Console(stderr=True, soft_wrap=True, highlight=False, markup=False)


def print_json(document: Any) -> None:
    """Print one JSON document on standard output; NaN and infinity become null."""
    import msgspec

    text = msgspec.json.format(msgspec.json.encode(document), indent=2).decode()
    sys.stdout.write(text + "\n")


def report_error(error: ModelpackError, manner: Manner) -> int:
    """Say what went wrong, and return the exit code."""
    console = stderr()
    if manner.debug:
        import traceback

        traceback.print_exception(error)
    if manner.json:
        kind = type(error).__name__
        details = {
            "type": kind,
            "message": error.message,
            "hint": error.hint,
            "exit_code": error.exit_code,
        }
        print_json({"error": details})
    if error.log and not manner.verbose:
        console.print("last output of the worker:", style="dim")
        for line in error.log.splitlines()[-_LOG_LINES:]:
            console.print(f"  {line}", style="dim")
    console.print(f"error: {error.message}", style="bold red")
    if error.hint:
        console.print(f"hint: {error.hint}")
    return error.exit_code


def report_bug(error: Exception, manner: Manner) -> int:
    """Say that this is a defect of modelpack, and return its exit code."""
    message = f"internal error: {type(error).__name__}: {error}"
    hint = "this is a defect of modelpack: please report it with the output of --debug"
    return report_error(ModelpackError(message, hint=hint), manner)


def usage_error(error: Any, *, as_json: bool) -> int:
    """Report a usage error of the option parser, and return its exit code."""
    context = getattr(error, "ctx", None)
    hint = f"see {context.command_path} --help" if context is not None else ""
    return report_error(InputError(error.format_message(), hint=hint), Manner(json=as_json))


def tolerate_encodings() -> None:
    """Write what an encoding lacks as escapes: a name must not break a message."""
    if sys.stdout is None or sys.stderr is None:  # closed by the caller
        nowhere = Path(os.devnull).open("w", encoding="utf-8")  # noqa: SIM115 - open to the end
        sys.stdout, sys.stderr = sys.stdout or nowhere, sys.stderr or nowhere
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def stop_on_sigterm() -> None:
    """Let SIGTERM and SIGHUP unwind the stack, so that workers end and scratch files go."""

    def stop(number: int, frame: FrameType | None) -> None:
        raise SystemExit(_SIGNALLED + number)

    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, stop)
