"""Why PyTorch could not export a model: in its own words, at the line of the model's code.

The exporter wraps what happened in advice on debugging PyTorch. What a user needs is in the
innermost error, in the frames of its traceback that are the model's, and in the graph's nodes,
which remember the lines that made them.
"""

from __future__ import annotations

import linecache
import re
import sysconfig
import traceback
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch

from modelpack.errors import ConversionError, ModelpackError, UnsupportedOpsError

_COLOUR = re.compile(r"\x1b\[[0-9;]*m")
_FRAME = re.compile(r'File "([^"\n]+)", line (\d+), in ')
_LONGEST = 500  # characters of a message that are shown

_SITE = Path(torch.__file__).resolve().parent.parent

# Where code is not the model's: PyTorch, its exporter, what these compute shapes with, and
# modelpack. Python's own library is not either, but what is installed below it can be.
_TOOLS = ("torch", "onnxscript", "onnx", "onnx_ir", "sympy", "mpmath", "networkx", "numpy")
_OWN = str(Path(__file__).resolve().parent.parent)
_FOREIGN = (*(_SITE / name for name in _TOOLS), Path(_OWN))
_STANDARD = Path(sysconfig.get_path("stdlib")).resolve()


def refusal(what: str, error: BaseException) -> ModelpackError:
    """The error to raise when PyTorch cannot export ``what``; our own where there is one."""
    chain = list(_chain(error))
    for item in chain:
        if isinstance(item, ModelpackError):
            return item
    missing = _missing_ops(chain)
    if missing:
        return UnsupportedOpsError(
            f"PyTorch has no ONNX form of {len(missing)} ops of '{what}': {'; '.join(missing)}",
            hint="compute them with other ops of PyTorch, before or after the model, or add a "
            "plug-in that writes them (modelpack.torch_ops)",
        )
    where = place_of(error)
    says, hint = _explained(chain[-1])
    return ConversionError(f"PyTorch cannot export '{what}'{where}: {says}", hint=hint)


def cause(error: BaseException) -> str:
    """The innermost error in one line, without colours and advice."""
    last = list(_chain(error))[-1]
    lines = [line.strip() for line in _COLOUR.sub("", str(last)).splitlines() if line.strip()]
    return f"{type(last).__name__}: {lines[0][:_LONGEST] if lines else 'no message'}"


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__


def _explained(error: BaseException) -> tuple[str, str]:
    """What an error means, and what to do."""
    text = cause(error)
    if "data-dependent" in text or "GuardOnDataDependent" in text:
        return (
            "the code decides on values of a tensor, which a graph cannot follow",
            "write the branch with torch.where or torch.cond; or save the model with "
            "torch.jit.script, which keeps both sides, and convert that file",
        )
    if "FakeTensor" in text and _passes(error, "rnn.py"):
        return (
            "a packed sequence has no graph",
            "call the recurrent layer on the padded sequence, without pack_padded_sequence",
        )
    if "Unsupported attribute type" in text and "SymbolicTensor" in text:
        return (
            "a setting of an op is computed of dynamic sizes, as the groups of a convolution",
            "give the dimensions that it is computed of numbers: --input 'x:float32[1,3,64,64]'",
        )
    if "complex-valued" in text:
        return (
            f"ONNX has no complex numbers, and PyTorch writes no others for these: {text}",
            "compute with their real and imaginary parts, as torch.view_as_real gives them",
        )
    if "onstraint" in text or "specialized" in text:
        return text, "a dimension that was named is fixed inside of the model: give it a number"
    return text, ""


def _passes(error: BaseException, file: str) -> bool:
    frames = traceback.extract_tb(error.__traceback__)
    return any(Path(frame.filename).name == file for frame in frames)


# --- where -----------------------------------------------------------------------------


def place_of(failure: BaseException) -> str:
    """The innermost line of the model's code: `` at net.py:7 (y = x[n])``; or nothing."""
    chain = list(_chain(failure))
    for error in reversed(chain):
        place = _place_in(traceback.extract_tb(error.__traceback__))
        if place:
            return place
    for error in reversed(chain):  # a later step: the message quotes the trace of the graph's node
        quoted = [(file, int(line)) for file, line in _FRAME.findall(_COLOUR.sub("", str(error)))]
        place = _innermost(quoted) or _place_of_translation(error)
        if place:
            return place
    return ""


def _place_of_translation(error: BaseException) -> str:
    """The line of the node that the exporter was at when it failed to write it in ONNX."""
    for frame, _ in traceback.walk_tb(error.__traceback__):
        node = frame.f_locals.get("node")
        if frame.f_code.co_name == "_translate_fx_graph" and node is not None:
            return place_of_node(node)
    return ""


def place_here() -> str:
    """The line of the model's code that runs now, as `place_of` says it; or nothing."""
    stack = traceback.extract_stack()
    files = [str(Path(frame.filename).resolve()) for frame in stack]
    called = next((index for index, file in enumerate(files) if file.startswith(_OWN)), 0)
    return _place_in(stack[called:])  # what calls modelpack is not the model's


def place_of_node(node: Any) -> str:
    """The line of the model's code that made a node of a graph, as `place_of` says it."""
    frames = _FRAME.findall(node.meta.get("stack_trace") or "")
    return _innermost([(file, int(line)) for file, line in frames])


def _place_in(stack: list[traceback.FrameSummary]) -> str:
    return _innermost([(frame.filename, frame.lineno or 0) for frame in stack])


def _innermost(frames: list[tuple[str, int]]) -> str:
    """The innermost frame of the user's own code, and of a library's that it calls, not PyTorch."""
    known = [(file, line) for file, line in frames if _is_model_code(file)]
    own = [(file, line) for file, line in known if not _is_library(file)]
    if not known:
        return ""
    inner = _quoted(*known[-1])
    return (
        f" at {_quoted(*own[-1])}, in {inner}" if own and own[-1] != known[-1] else f" at {inner}"
    )


def _is_model_code(file: str) -> bool:
    path = Path(file).resolve()
    is_standard = path.is_relative_to(_STANDARD) and "site-packages" not in path.parts
    is_foreign = any(path.is_relative_to(place) for place in _FOREIGN)
    return path.is_file() and not is_standard and not is_foreign


def _is_library(file: str) -> bool:
    return Path(file).resolve().is_relative_to(_SITE)


def _quoted(file: str, line: int) -> str:
    path = Path(file)
    roots = [Path.cwd(), _SITE]
    shown = next((path.relative_to(root) for root in roots if path.is_relative_to(root)), path)
    source = linecache.getline(file, line).strip()
    return f"{shown}:{line}" + (f" ({source})" if source else "")


# --- missing ops -------------------------------------------------------------------------


def _missing_ops(chain: list[BaseException]) -> list[str]:
    """Every op of the graph without an ONNX form, with its line; nothing for other failures."""
    if type(chain[-1]).__name__ != "DispatchError":
        return []
    for error in chain:
        for frame, _ in traceback.walk_tb(error.__traceback__):
            graph, registry = frame.f_locals.get("fx_graph"), frame.f_locals.get("registry")
            if graph is not None and registry is not None:
                return _without_form(graph, registry)
    return []


def _without_form(graph: Any, registry: Any) -> list[str]:
    found: dict[str, str] = {}
    for node in graph.nodes:
        is_op = isinstance(node.target, torch._ops.OpOverload)
        if node.op == "call_function" and is_op and not registry.is_registered(node.target):
            found.setdefault(f"{node.target}", place_of_node(node))
    return [f"{op}{place}" for op, place in sorted(found.items())]
