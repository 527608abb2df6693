"""What a command says while it works: a spinner on a terminal, plain lines elsewhere."""

from __future__ import annotations

import contextlib
import logging
import os
from collections.abc import Iterator
from typing import TYPE_CHECKING

from modelpack.cli.terminal import Manner, stderr

if TYPE_CHECKING:
    from rich.console import Console
    from rich.progress import Progress


@contextlib.contextmanager
def speaking(manner: Manner) -> Iterator[None]:
    """Show what the verbs log while the body runs."""
    logger = logging.getLogger("modelpack")
    logger.setLevel(logging.DEBUG if manner.verbose else logging.INFO)
    console = stderr()
    with _progress(console, manner) as progress:
        handler = _Lines(console, manner, progress)
        logger.addHandler(handler)
        try:
            yield
        finally:
            logger.removeHandler(handler)


@contextlib.contextmanager
def _progress(console: Console, manner: Manner) -> Iterator[Progress | None]:
    if manner.quiet or manner.verbose or not console.is_terminal or os.environ.get("CI"):
        yield None
        return
    from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

    columns = (SpinnerColumn(), TextColumn("{task.description}"), TimeElapsedColumn())
    with Progress(*columns, console=console, transient=True) as progress:
        progress.add_task("starting", total=None)
        yield progress


class _Lines(logging.Handler):
    """Warnings as lines; progress as the spinner's text, or as lines where there is none."""

    def __init__(self, console: Console, manner: Manner, progress: Progress | None) -> None:
        super().__init__()
        self._console = console
        self._quiet = manner.quiet
        self._progress = progress

    def emit(self, record: logging.LogRecord) -> None:
        message = record.getMessage()
        if record.levelno >= logging.WARNING:
            self._console.print(f"warning: {message}", style="yellow")
        elif self._progress is not None:
            self._progress.update(self._progress.task_ids[0], description=message)
        elif not self._quiet:
            self._console.print(message, style="dim")
