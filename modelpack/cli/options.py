"""Options shared by several commands, and the parsing of their values.

Imported by `modelpack --help`, so the types of the values are imported where they are made.
"""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from modelpack.errors import InputError

if TYPE_CHECKING:
    from modelpack.signature import TensorSpec
    from modelpack.worker import Limits

Model = Annotated[
    str,
    typer.Argument(
        metavar="MODEL",
        help="A model file or directory, or a Python reference module:attribute or "
        "file.py:attribute.",
        show_default=False,
    ),
]
Artifact = Annotated[
    str,
    typer.Argument(
        metavar="MODEL",
        help="An .onnx or .tflite file, or a modelpack directory.",
        show_default=False,
    ),
]
Output = Annotated[
    Path,
    typer.Option("--out", "-o", metavar="OUT", help="A directory, or one file such as m.onnx."),
]
To = Annotated[
    list[str] | None,
    typer.Option("--to", metavar="FORMAT", help="onnx, tflite or savedmodel; repeatable."),
]
Inputs = Annotated[
    list[str] | None,
    typer.Option(
        "--input",
        metavar="SPEC",
        help="An input as 'name:dtype[dim,...]'; a named dim is dynamic. Repeatable.",
    ),
]
Outputs = Annotated[
    list[str] | None,
    typer.Option("--output", metavar="NAME", help="Name of an output, in order; repeatable."),
]
Weights = Annotated[
    Path | None,
    typer.Option("--weights", metavar="FILE", help="State dict for a Python reference."),
]
FactoryArgs = Annotated[
    str,
    typer.Option(
        "--factory-args",
        metavar="JSON",
        help="What a Python reference is called with: an object of keywords, or an array.",
    ),
]
Imports = Annotated[
    list[str] | None,
    typer.Option(
        "--import",
        metavar="MODULE",
        help="A module, or file.py, to import first: it registers custom classes. Repeatable.",
    ),
]
Trust = Annotated[
    bool,
    typer.Option("--trust", help="Load a file even if that runs code it contains."),
]
VersionDrift = Annotated[
    bool,
    typer.Option(
        "--allow-version-drift",
        help="Load a file that another version of scikit-learn saved.",
    ),
]
InputForm = Annotated[
    str,
    typer.Option(
        "--inputs",
        metavar="FORM",
        help="columns: an input per column of a table; tensor: one. For scikit-learn models.",
    ),
]
SignatureName = Annotated[
    str,
    typer.Option(
        "--signature",
        metavar="NAME",
        help="Which signature of a SavedModel or TFLite file; serving_default, or the only one, "
        "by default.",
    ),
]
Signatures = Annotated[
    list[str] | None,
    typer.Option(
        "--signature",
        metavar="NAME",
        help="A signature of a SavedModel or TFLite file, or all; serving_default, or the only "
        "one, by default. Repeatable.",
    ),
]
Data = Annotated[
    Path | None,
    typer.Option(
        "--data",
        metavar="DATA",
        help="Samples: .npz, .npy, .csv, .parquet or a directory of .npz.",
    ),
]
Seed = Annotated[int, typer.Option("--seed", help="Seed of generated samples.")]
Bench = Annotated[bool, typer.Option("--bench", help="Measure latency and memory of one call.")]

Bisect = Annotated[
    Path | None,
    typer.Option(
        "--bisect",
        metavar="DIR",
        help="On failure, find the first tensor that departs; write a reproduction to DIR.",
    ),
]
Report = Annotated[
    Path | None,
    typer.Option("--report", metavar="FILE", help="Write an HTML page with figures."),
]
Junit = Annotated[
    Path | None,
    typer.Option("--junit", metavar="FILE", help="Write JUnit XML, for a build server."),
]
Strict = Annotated[
    bool | None,
    typer.Option(
        "--strict/--no-strict",
        help="Whether an inconclusive comparison fails too; it does where CI is set.",
    ),
]

Json = Annotated[
    bool,
    typer.Option("--json", help="One JSON document on standard output."),
]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="Only warnings and errors.")]
Verbose = Annotated[
    bool,
    typer.Option("--verbose", "-v", help="Also what the libraries print."),
]
Debug = Annotated[bool, typer.Option("--debug", help="Tracebacks of errors.")]
Timeout = Annotated[
    float | None,
    typer.Option(
        "--timeout",
        min=0.001,
        metavar="SECONDS",
        help="Limit of each step; 3600 by default.",
    ),
]
MemoryLimit = Annotated[
    str,
    typer.Option(
        "--memory-limit",
        metavar="SIZE",
        help="Limit of each step, such as 4G; what is free by default.",
    ),
]

_UNITS = {"": 1, "K": 1 << 10, "M": 1 << 20, "G": 1 << 30, "T": 1 << 40}


def limits(timeout: float | None, memory_limit: str) -> Limits:
    """Build the limits of each step.

    Raises:
        InputError: the memory limit is no size.
    """
    from modelpack.worker import Limits

    given = Limits(memory=parse_size(memory_limit) if memory_limit else None)
    return given if timeout is None else Limits(timeout, given.memory)


def parse_size(text: str) -> int:
    """Parse bytes with an optional binary unit: ``512M``, ``4G``, ``4GiB``.

    Raises:
        InputError: the text is no size above zero.
    """
    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([KMGT]?)(?:i?B)?", text.strip(), re.IGNORECASE)
    size = int(float(match[1]) * _UNITS[match[2].upper()]) if match else 0
    if not size:
        raise InputError(f"'{text}' is no memory size", hint="write for example 512M or 4G")
    return size


def specs(texts: list[str] | None) -> tuple[TensorSpec, ...]:
    """Parse ``--input`` options.

    Raises:
        InputError: one of them is malformed.
    """
    from modelpack.signature import TensorSpec

    return tuple(TensorSpec.parse(text) for text in texts or ())


def is_strict(asked: bool | None) -> bool:
    """What ``--strict`` asks for; by default that of a build server, which sets ``CI``."""
    return bool(os.environ.get("CI")) if asked is None else asked
