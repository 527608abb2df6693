"""The op table: which function lowers which version of which ONNX op.

An entry is keyed by domain, op type and *since-version*: the opset in which the schema that
a node follows was introduced. What a model's opset means is looked up in the schemas of
the onnx package; there is no "nearest version", since a later version may mean something
else.

A lowering's Python signature is the op's specification: positional parameters are the
op's inputs in order (optional ones default to None, variadic ones are ``*args``), and
keyword-only parameters are its attributes with ONNX's defaults. A first parameter called
``ctx`` receives the `modelpack.lowering.context.Context` of the node.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, TypeVar

import onnx.defs

F = TypeVar("F", bound=Callable[..., Any])

MICROSOFT = "com.microsoft"
"""Domain of the ops that ONNX Runtime adds."""

OWN = "modelpack"
"""Domain of ops without a name in ONNX, which no file has."""

# Domains without schemas in the onnx package: their ops have one version.
RUNTIME_DOMAINS = (MICROSOFT, OWN)


@dataclass(frozen=True, slots=True)
class OpKey:
    """A version of an op. The default domain ``ai.onnx`` is the empty string, as in files."""

    domain: str
    op_type: str
    since: int

    def __str__(self) -> str:
        return f"{self.domain or 'ai.onnx'}::{self.op_type} (since {self.since})"


@dataclass(frozen=True, slots=True)
class Lowering:
    """How one version of an op is lowered.

    Attributes:
        key: the op.
        function: takes `Value` inputs and Python attributes; returns a `Value`, a tensor,
            an array, or a tuple of them.
        takes_context: whether the function's first parameter is the node's context.
        builtin: whether it has a form of TFLite built-in ops.
        folds: whether a node whose inputs are all constants is evaluated at once.
    """

    key: OpKey
    function: Callable[..., Any]
    takes_context: bool
    builtin: bool
    folds: bool


_TABLE: dict[OpKey, Lowering] = {}


def lowers(
    op_type: str, *since: int, domain: str = "", builtin: bool = True, folds: bool = True
) -> Callable[[F], F]:
    """Register a function for versions of an op; stack it to register several ops.

    Args:
        op_type: the op, as ONNX spells it.
        since: the since-versions that the function is right for.
        domain: empty for ``ai.onnx``.
        builtin: False if no composition of TFLite built-in ops computes it, whatever the
            node's inputs and attributes are.
        folds: False where evaluating at once would be wrong or wasteful: random numbers,
            weights that are kept quantized.

    Raises:
        ValueError: a version is registered already.
    """
    if not since:
        raise ValueError(f"{op_type} needs at least one since-version")

    def register(function: F) -> F:
        parameters = list(inspect.signature(function).parameters)
        takes_context = parameters[:1] == ["ctx"]
        for version in since:
            key = OpKey(domain, op_type, version)
            if key in _TABLE:
                raise ValueError(f"{key} is lowered by {_TABLE[key].function.__name__} already")
            _TABLE[key] = Lowering(key, function, takes_context, builtin, folds)
        return function

    return register


def lookup(domain: str, op_type: str, opset: int) -> Lowering | None:
    """Return the lowering of the op that ``op_type`` means in ``opset``; None if there is none."""
    key = key_of(domain, op_type, opset)
    return None if key is None else _TABLE.get(key)


def key_of(domain: str, op_type: str, opset: int) -> OpKey | None:
    """Return the version of an op that an opset means; None if no known op set has it."""
    domain = "" if domain == "ai.onnx" else domain
    if domain in RUNTIME_DOMAINS:
        return OpKey(domain, op_type, 1)
    try:
        schema = onnx.defs.get_schema(op_type, max_inclusive_version=opset, domain=domain)
    except onnx.defs.SchemaError:
        return None
    return OpKey(domain, op_type, schema.since_version)


def entries() -> Iterator[Lowering]:
    """Every lowering, by domain, op and version."""
    yield from (
        _TABLE[key] for key in sorted(_TABLE, key=lambda key: (key.domain, key.op_type, key.since))
    )
