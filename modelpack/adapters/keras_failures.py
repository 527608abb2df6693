"""What is wrong with a Keras model, in the words of the error, at the line of the user's code."""

from __future__ import annotations

import re
import sysconfig
import traceback
from collections.abc import Iterator
from pathlib import Path

from modelpack.errors import first_line, lines_of

# Lines of TensorFlow's messages that say where an error was seen, not what it is.
_TRACEBACK = ("Detected at node", "File ", "Graph execution error", "in user code:", "<stack")

_CALLING = "Exception encountered when calling"
_FRAME = re.compile(r'File "([^"\n]+)", line (\d+), in ')

# Where code is not the user's: libraries, Python itself, and modelpack.
_FOREIGN = (
    *(Path(sysconfig.get_path(name)).resolve() for name in ("stdlib", "purelib", "platlib")),
    Path(__file__).resolve().parent.parent,
)


def reason(error: BaseException) -> str:
    """What is wrong; of an error within a layer also which layer it is, and the line of code."""
    return _said(error) + _place(error)


def _said(error: BaseException) -> str:
    lines = lines_of(error)
    for index, line in enumerate(lines):
        if _CALLING in line and index + 1 < len(lines):
            within = line[line.index(_CALLING) :].removesuffix(".")
            return f"{within}: {_cause(lines[index + 1 :])}"
    if lines and lines[0].startswith(_TRACEBACK):
        return _cause(lines)
    inner = [line for line in lines if line.startswith("Exception encountered: ")]
    if inner:  # what goes before only says that an object of the file could not be made
        return inner[-1].removeprefix("Exception encountered: ").partition(" Full object")[0]
    return first_line(error).partition(" Full object config:")[0]


def _cause(lines: list[str]) -> str:
    """The line that names the error: the first one, or the one behind a traceback."""
    ends = [i for i, line in enumerate(lines) if line.startswith("Arguments received by")]
    lines = lines[: ends[0]] if ends else lines
    if any(line.startswith("in user code:") for line in lines):
        return lines[-1]
    told = [line for line in lines if not line.startswith(_TRACEBACK)]
    return told[0] if told else lines[-1]


# --- where -----------------------------------------------------------------------------


def _place(error: BaseException) -> str:
    """The innermost line of the user's own code, as `` (net.py, line 7)``; or nothing."""
    chain = list(_chain(error))
    frames = [
        (frame.filename, frame.lineno or 0)
        for item in chain
        for frame in traceback.extract_tb(item.__traceback__)
    ]
    # Code that TensorFlow rewrote is known by its message alone.
    frames += [(file, int(line)) for item in chain for file, line in _FRAME.findall(str(item))]
    own = [(file, line) for file, line in frames if _is_own(file)]
    return f" ({Path(own[-1][0]).name}, line {own[-1][1]})" if own else ""


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


def _is_own(file: str) -> bool:
    path = Path(file).resolve()
    if not path.is_file() or "__autograph_generated_file" in path.name:
        return False
    return not any(path.is_relative_to(place) for place in _FOREIGN)
