"""The conversion graph: formats are nodes, converters are edges, a route is a path.

Planning imports no converter: entries are strings, resolved in a worker when a step runs.
Other distributions add formats and converters through the entry point groups
``modelpack.formats`` and ``modelpack.converters``, whose objects are a `Format` or a
`Converter`.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cache
from typing import TypeVar

from modelpack import plugins
from modelpack.errors import InputError, ModelpackError, NoRouteError

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Format:
    """A node of the conversion graph.

    Attributes:
        name: as users write it.
        adapter: module that loads, describes and runs models of this format.
        extra: the extra that brings what the adapter imports; empty for the base install.
        artifact: default file or directory name of an artifact; empty for a format that
            is only a source.
        suffixes: file suffixes that say ``-o model<suffix>`` means this format.
        can_run_code: whether loading may run code, so that the adapter offers ``scan``.
        quantizer: entry of the function that quantizes this format; empty if there is none.
        checks: whether the adapter offers ``check``.
        runtimes: names of what can run it, the usual one first.
        joiner: entry of the function that makes one file of files of one signature each; empty
            for formats that have one signature a file, or whose converters write several.
    """

    name: str
    adapter: str
    extra: str = ""
    artifact: str = ""
    suffixes: tuple[str, ...] = ()
    can_run_code: bool = False
    quantizer: str = ""
    checks: bool = False
    runtimes: tuple[str, ...] = ()
    joiner: str = ""


@dataclass(frozen=True, slots=True)
class Converter:
    """An edge of the conversion graph.

    Attributes:
        source: name of a format.
        target: likewise.
        entry: ``"module:function"``; the function takes ``(source: ModelRef, target: str,
            options: StepOptions)``, writes ``target`` and returns a `StepResult`.
        extra: the extra that brings what the entry imports; empty for the base install.
        joint: entry of a function that writes one ``target`` with the signature of each of
            several sources; it takes a list of them and returns a list of results. Empty where
            each signature becomes an artifact of its own, unless the format has a joiner.
    """

    source: str
    target: str
    entry: str
    extra: str = ""
    joint: str = ""

    def __str__(self) -> str:
        return f"{self.source} -> {self.target} ({self.entry})"


@dataclass(frozen=True, slots=True)
class Route:
    """The converters that lead from one format to another, in order."""

    steps: tuple[Converter, ...]

    def __str__(self) -> str:
        return " -> ".join([self.steps[0].source, *(step.target for step in self.steps)])


FORMATS = (
    Format("keras", "modelpack.adapters.keras", "keras", can_run_code=True),
    Format("torch", "modelpack.adapters.torch", "torch", can_run_code=True),
    Format("sklearn", "modelpack.adapters.sklearn", "sklearn", can_run_code=True),
    Format(
        "onnx",
        "modelpack.adapters.onnx",
        artifact="model.onnx",
        suffixes=(".onnx",),
        quantizer="modelpack.adapters.onnx_quantization:quantize",
        checks=True,
        runtimes=("onnxruntime", "plain", "reference", "openvino"),
    ),
    Format(
        "savedmodel",
        "modelpack.adapters.tensorflow",
        "keras",
        artifact="saved_model",
        can_run_code=True,
        checks=True,
        runtimes=("tensorflow",),
    ),
    Format(
        "tflite",
        "modelpack.adapters.tflite",
        "tflite",
        artifact="model.tflite",
        suffixes=(".tflite",),
        quantizer="modelpack.adapters.tflite:quantize",
        checks=True,
        runtimes=("litert", "plain"),
        joiner="modelpack.adapters.tflite_signatures:join",
    ),
    Format("server", "modelpack.adapters.server", checks=True),
)

CONVERTERS = (
    Converter("keras", "savedmodel", "modelpack.adapters.keras:to_savedmodel", "keras"),
    Converter("savedmodel", "onnx", "modelpack.adapters.tensorflow:to_onnx", "keras"),
    Converter("savedmodel", "tflite", "modelpack.adapters.savedmodel_tflite:to_tflite", "keras"),
    Converter("torch", "onnx", "modelpack.adapters.torch:to_onnx", "torch"),
    Converter("sklearn", "onnx", "modelpack.adapters.sklearn:to_onnx", "sklearn"),
    Converter("onnx", "onnx", "modelpack.adapters.onnx:to_onnx"),
    Converter(
        "onnx",
        "savedmodel",
        "modelpack.adapters.tensorflow_lowering:to_savedmodel",
        "keras",
        joint="modelpack.adapters.tensorflow_lowering:to_one_savedmodel",
    ),
    Converter("tflite", "onnx", "modelpack.adapters.tflite_onnx:to_onnx", "keras"),
    Converter("onnx", "tflite", "modelpack.adapters.tensorflow_lowering:to_tflite", "keras"),
)


@cache
def formats() -> Mapping[str, Format]:
    """Every known format by name, those of other distributions included."""
    return {item.name: item for item in (*FORMATS, *_plugins("modelpack.formats", Format))}


@cache
def converters() -> tuple[Converter, ...]:
    """Every known converter; ours first, so that they win between equally short routes."""
    return (*CONVERTERS, *_plugins("modelpack.converters", Converter))


def _plugins(group: str, kind: type[T]) -> list[T]:
    found = []
    for name in plugins.names(group):
        value = plugins.load(group, name)
        if not isinstance(value, kind):
            raise ModelpackError(f"entry point '{name}' of {group} is no {kind.__name__}")
        found.append(value)
    return found


def targets() -> tuple[str, ...]:
    """Names of the formats that can be written."""
    return tuple(item.name for item in formats().values() if item.artifact)


def format_named(name: str) -> Format:
    """Return a format that can be written.

    Raises:
        InputError: there is none of this name.
    """
    if name not in targets():
        raise InputError(f"unknown format '{name}'", hint=f"use one of {', '.join(targets())}")
    return formats()[name]


def find_route(source: str, target: str, edges: Iterable[Converter] | None = None) -> Route:
    """Return the shortest route from ``source`` to ``target``, at least one step long.

    Between equally short routes the one whose converters are listed first wins, so the
    answer does not depend on anything but the table.

    Raises:
        NoRouteError: there is none.
    """
    table = tuple(converters() if edges is None else edges)
    pending: deque[tuple[Converter, ...]] = deque(
        (edge,) for edge in table if edge.source == source
    )
    seen = {source}
    while pending:
        path = pending.popleft()
        here = path[-1].target
        if here == target:
            return Route(path)
        if here in seen:
            continue
        seen.add(here)
        pending.extend((*path, edge) for edge in table if edge.source == here)
    reachable = sorted(target for target in _reachable(source, table))
    raise NoRouteError(
        f"no route leads from {source} to {target}",
        hint=f"from {source} there are routes to: {', '.join(reachable) or 'nothing'}",
    )


def _reachable(source: str, table: tuple[Converter, ...]) -> set[str]:
    found: set[str] = set()
    pending = [source]
    while pending:
        here = pending.pop()
        fresh = {edge.target for edge in table if edge.source == here} - found
        found |= fresh
        pending.extend(fresh)
    return found
