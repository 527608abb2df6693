"""The typed errors of modelpack and their exit codes.

    ModelpackError                 1   a bug of ours, and the root of the tree
    ├── InputError                 2   bad usage, unreadable or unsuitable input
    ├── ManifestError              3   the manifest or a digest does not hold
    ├── MissingDependencyError     4   an extra is not installed
    ├── ConversionError            5   cannot convert
    │   ├── NoRouteError               no chain of converters between the formats
    │   ├── UnsupportedOpsError        ops nobody can convert, all listed at once
    │   └── ContractError              a converter lost a name, dtype, rank or dimension
    ├── QuantizationError          6   cannot quantize, or the accuracy gate closed
    ├── ParityError                7   the artifact disagrees with its reference
    ├── PackagingError             8   a layout cannot be written
    ├── UntrustedSourceError       9   loading the file would run code it contains
    └── WorkerError               10   a worker crashed, ran out of memory or of time

This module imports nothing of modelpack: everything else may import it.
"""

from __future__ import annotations

import re

_COLOUR = re.compile(r"\x1b\[[0-9;]*m")


class ModelpackError(Exception):
    """Something modelpack could not do.

    Args:
        message: what happened, where and why, in one or a few lines.
        hint: what to do next; empty when there is nothing to advise.
        log: output of the worker that failed; empty when no worker was involved.
    """

    exit_code = 1

    def __init__(self, message: str, *, hint: str = "", log: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint
        self.log = log

    def say_about(self, what: str) -> None:
        """Put before the message what it is about."""
        self.message = f"{what}: {self.message}"
        self.args = (self.message,)


class InputError(ModelpackError):
    """Bad usage, or an input that cannot be read or used."""

    exit_code = 2


class ManifestError(ModelpackError):
    """The manifest breaks its schema, or a file does not have its recorded digest."""

    exit_code = 3


class MissingDependencyError(ModelpackError):
    """A library is not installed. The hint names the extra that brings it."""

    exit_code = 4


class ConversionError(ModelpackError):
    """The model cannot be converted."""

    exit_code = 5


class NoRouteError(ConversionError):
    """No chain of converters leads from the source's format to the wanted one."""


class UnsupportedOpsError(ConversionError):
    """The model holds ops that cannot be converted. The message lists every one."""


class ContractError(ConversionError):
    """A converter changed a name, a dtype, a rank or a dimension of the signature."""


class QuantizationError(ModelpackError):
    """The model cannot be quantized, or the quantized model lost too much accuracy."""

    exit_code = 6


class ParityError(ModelpackError):
    """A candidate's numbers disagree with its reference's."""

    exit_code = 7


class PackagingError(ModelpackError):
    """The artifacts cannot be laid out or archived as asked."""

    exit_code = 8


class UntrustedSourceError(ModelpackError):
    """Loading the file would run code that it contains, and it is not trusted."""

    exit_code = 9


class WorkerError(ModelpackError):
    """A worker process crashed, exceeded its memory or ran out of its time."""

    exit_code = 10


def error_types() -> dict[str, type[ModelpackError]]:
    """Return every error class by its name, the root included."""
    found: dict[str, type[ModelpackError]] = {}
    pending: list[type[ModelpackError]] = [ModelpackError]
    while pending:
        kind = pending.pop()
        found[kind.__name__] = kind
        pending.extend(kind.__subclasses__())
    return found


def first_line(error: BaseException) -> str:
    """The first line of an error's message that says something, or else the error's class."""
    return next(iter(lines_of(error)), type(error).__name__)


def lines_of(error: BaseException) -> list[str]:
    """The lines of an error's message that say something.

    Without the colours that some libraries give their messages.
    """
    lines = (line.strip() for line in _COLOUR.sub("", str(error)).splitlines())
    return [line for line in lines if line]
