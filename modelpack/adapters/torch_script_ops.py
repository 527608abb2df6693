"""What the ops of TorchScript compute, on tensors and on the plain values that Python has.

Sizes stay numbers, which the exporter follows, where a trace keeps them as tensors. Numbers that
come from values stay tensors, so that a branch on them is seen.
"""

from __future__ import annotations

import math
import operator
import re
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from typing import Any

import torch
from torch.utils import _pytree as pytree

from modelpack.errors import ConversionError


def source_line(node: Any) -> str:
    """The source line of a node, as the file remembers it: `` at net.py:12: y = x[n]``."""
    text = str(node.sourceRange())
    found = re.search(r'File "([^"]+)", line (\d+)', text)
    marked = re.search(r"^(.*)\n[ ~]*~+ <--- HERE", text, re.MULTILINE)
    line = f": {marked[1].strip()}" if marked else ""
    return f" at {found[1]}:{found[2]}{line}" if found else line.replace(":", " at", 1)


@lru_cache(maxsize=4096)
def schema_of(text: str) -> Any:
    """Parse the schema of an op: names, types and aliases of its arguments."""
    return torch._C.parse_schema(text)


def call(node: Any, args: list[Any]) -> Any:
    """Compute a node.

    Raises:
        NotImplementedError: there is no such op here; the message names it.
    """
    namespace, _, name = node.kind().partition("::")
    if node.schema() == "(no schema)":
        raise NotImplementedError(f"'{node.kind()}'")
    schema = schema_of(node.schema())
    takes_tensors = any("Tensor" in str(item.type) for item in schema.arguments)
    has_tensors = any(isinstance(leaf, torch.Tensor) for leaf in pytree.tree_leaves(args))
    if name in _PLAIN and not (takes_tensors and has_tensors):
        return _PLAIN[name](*args)
    if node.kind() in _OF_TENSORS:
        return _OF_TENSORS[node.kind()](*args)
    if namespace not in {"aten", "torchvision", "prims"}:
        raise NotImplementedError(f"'{node.kind()}'")
    op = getattr(getattr(getattr(torch.ops, namespace), name), schema.overload_name or "default")
    positional, keywords = [], {}
    for argument, value in zip(schema.arguments, args, strict=True):
        fitting = _fitting(value, str(argument.type))
        if argument.kwarg_only:
            keywords[argument.name] = fitting
        else:
            positional.append(fitting)
    return op(*positional, **keywords)


def _fitting(value: Any, kind: str) -> Any:
    """The value as an op takes it: sizes that a trace keeps as tensors are numbers here."""
    if kind in {"Tensor", "Optional[Tensor]"} and not isinstance(value, torch.Tensor | None):
        return as_tensor(value)
    if kind == "Device":
        return torch.device("cpu")
    if kind == "Optional[Device]":
        return None
    return value


def as_tensor(value: Any) -> torch.Tensor:
    """A number as a scalar tensor, of the dtype that TorchScript gives it."""
    if isinstance(value, torch.Tensor):
        return value
    if isinstance(value, bool):
        return torch.scalar_tensor(value, dtype=torch.bool)
    whole = isinstance(value, int | torch.SymInt)
    return torch.scalar_tensor(value, dtype=torch.int64 if whole else torch.float64)


def _whole(value: Any) -> Any:
    if isinstance(value, torch.Tensor):
        return value.item()
    return value if isinstance(value, int | torch.SymInt) else torch.sym_int(value)


def _float(value: Any) -> Any:
    # A number that depends on values stays a tensor, so that a branch on it can be told.
    return value.double() if isinstance(value, torch.Tensor) else torch.sym_float(value)


def _divided(one: Any, other: Any, rounding_mode: str | None = None) -> Any:
    if rounding_mode is None:
        return one / other
    return one // other if rounding_mode == "floor" or one >= 0 else -(-one // other)


def _not(value: Any) -> Any:
    return torch.logical_not(value) if isinstance(value, torch.Tensor) else not value


def _is(one: Any, other: Any) -> bool:
    return one is other or (one is not None and other is not None and bool(one == other))


def _sliced(items: Any, start: Any = None, end: Any = None, step: int = 1) -> Any:
    return items[start:end:step]


def _index(items: Any, key: Any) -> Any:
    return items[key]


def _extremum(better: Callable[..., Any]) -> Callable[..., Any]:
    def choose(*args: Any) -> Any:
        items = args[0] if len(args) == 1 else args
        chosen = items[0]
        for item in items[1:]:
            chosen = better(chosen, item)
        return chosen

    return choose


def _ignore(*args: Any) -> None:
    return None


_PLAIN: Mapping[str, Callable[..., Any]] = {
    "add": lambda one, other, alpha=1: one + other * alpha if alpha != 1 else one + other,
    "sub": lambda one, other, alpha=1: one - other * alpha,
    "mul": operator.mul,
    "div": _divided,
    "floordiv": operator.floordiv,
    "floor_divide": operator.floordiv,
    "remainder": operator.mod,
    "pow": operator.pow,
    "neg": operator.neg,
    "abs": abs,
    "lt": operator.lt,
    "gt": operator.gt,
    "le": operator.le,
    "ge": operator.ge,
    "eq": operator.eq,
    "ne": operator.ne,
    "__and__": operator.and_,
    "__or__": operator.or_,
    "__xor__": operator.xor,
    "__not__": _not,
    "__is__": _is,
    "__isnot__": lambda one, other: not _is(one, other),
    "__contains__": operator.contains,
    "__getitem__": _index,
    "len": len,
    "list": list,
    "slice": _sliced,
    "append": lambda items, item: (items.append(item), items)[1],
    "extend": lambda items, more: items.extend(more),
    "insert": lambda items, place, item: items.insert(place, item),
    "pop": lambda items, *key: items.pop(*key),
    "_set_item": operator.setitem,
    "reverse": lambda items: items.reverse(),
    "keys": list,
    "values": lambda items: list(items.values()),
    "items": lambda items: list(items.items()),
    "get": lambda items, *key: items.get(*key),
    "Int": _whole,
    "IntImplicit": _whole,
    "Float": _float,
    "FloatImplicit": _float,
    "ScalarImplicit": lambda value: value,
    "Bool": lambda value: value if isinstance(value, torch.Tensor) else bool(value),
    "floor": lambda value: torch.sym_int(value // 1),
    "ceil": lambda value: -torch.sym_int(-value // 1),
    "sqrt": torch.sym_sqrt,
    "log": math.log,
    "exp": math.exp,
    "max": _extremum(torch.sym_max),
    "min": _extremum(torch.sym_min),
    "rangelist": lambda count: list(range(count)),
    "str": str,
    "format": lambda text, *values: text.format(*values),
    "warn": _ignore,
    # As if training: what fused layers of inference compute has no counterpart in a graph.
    "is_grad_enabled": lambda: True,
    "is_scripting": lambda: True,
    "type": lambda device: device.type,
}

_OF_TENSORS: Mapping[str, Callable[..., Any]] = {
    "aten::size": lambda tensor, axis=None: (
        list(tensor.shape) if axis is None else tensor.shape[axis]
    ),
    # The last four say how a backend computes it, not what.
    "aten::_convolution": lambda *args: torch.ops.aten.convolution.default(*args[:9]),
    "aten::dim": lambda tensor: tensor.dim(),
    "aten::len": lambda items: items.shape[0] if isinstance(items, torch.Tensor) else len(items),
    "aten::numel": lambda tensor: tensor.numel(),
    "aten::Int": _whole,
    "aten::IntImplicit": _whole,
    "aten::Float": _float,
    "aten::FloatImplicit": _float,
    "aten::ScalarImplicit": lambda tensor: tensor,
    "aten::Bool": lambda tensor: tensor,
    "aten::__getitem__": _index,
    "aten::append": _PLAIN["append"],
    "aten::extend": _PLAIN["extend"],
    "aten::insert": _PLAIN["insert"],
    "aten::pop": _PLAIN["pop"],
    "aten::_set_item": _PLAIN["_set_item"],
    "aten::list": list,
    "aten::slice": lambda items, *rest: (
        torch.ops.aten.slice.Tensor(items, *rest)
        if isinstance(items, torch.Tensor)
        else _sliced(items, *rest)
    ),
    "aten::__is__": _is,
    "aten::__isnot__": lambda one, other: not _is(one, other),
    "aten::is_floating_point": lambda tensor: tensor.is_floating_point(),
    "prim::dtype": lambda tensor: tensor.dtype,
    "prim::device": lambda tensor: tensor.device,
    "prim::layout": lambda tensor: tensor.layout,
    "prim::data": lambda tensor: tensor.detach(),
    "prim::requires_grad": lambda tensor: True,
    "prim::is_cuda": lambda tensor: False,
    "prim::is_cpu": lambda tensor: True,
    "prim::is_mkldnn": lambda tensor: False,
    "prim::is_quantized": lambda tensor: tensor.is_quantized,
    "prim::is_nested": lambda tensor: False,
    "prim::is_sparse": lambda tensor: False,
    "prim::unchecked_unwrap_optional": lambda value: value,
}


def _raised(args: list[Any], node: Any) -> list[Any]:
    raise ConversionError(f"the model raises an error{source_line(node)}: {args[0]}")


def _typed(args: list[Any], node: Any) -> list[Any]:
    return [args[0]]


# Nodes that put values together and take them apart: (inputs, node) to outputs.
STRUCTURE: Mapping[str, Callable[[list[Any], Any], Sequence[Any]]] = {
    "prim::ListConstruct": lambda args, node: [list(args)],
    "prim::TupleConstruct": lambda args, node: [tuple(args)],
    "prim::DictConstruct": lambda args, node: [dict(zip(args[::2], args[1::2], strict=True))],
    "prim::ListUnpack": lambda args, node: list(args[0]),
    "prim::TupleUnpack": lambda args, node: list(args[0]),
    "prim::TupleIndex": lambda args, node: [args[0][args[1]]],
    "prim::TupleSlice": lambda args, node: [args[0][node.i("beg") : node.i("end")]],
    "prim::NumToTensor": _typed,
    "prim::unchecked_cast": _typed,
    "prim::Uninitialized": lambda args, node: [None],
    "prim::Print": lambda args, node: [],
    "prim::RaiseException": _raised,
}
