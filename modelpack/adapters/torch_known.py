"""Whole numbers that modules keep in tensors: known while PyTorch traces, not made symbolic.

A buffer without dimensions, as a stride or a padding, is a value of the graph to
``torch.export``: code that decides on it, or pads by it, decides on a value and is refused.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Set
from typing import Any

import torch
from torch.utils import _pytree as pytree
from torch.utils._python_dispatch import _disable_current_modes

from modelpack.errors import ConversionError


def whole_numbers(model: torch.nn.Module) -> list[tuple[torch.nn.Module, str]]:
    """The buffers without dimensions of a model's parts that hold whole numbers."""
    return [
        (part, name)
        for part in model.modules()
        if not type(part).__module__.startswith("torch.")
        for name, buffer in part._buffers.items()
        if buffer is not None and buffer.dim() == 0 and not buffer.dtype.is_floating_point
    ]


@contextlib.contextmanager
def known_numbers(model: torch.nn.Module) -> Iterator[None]:
    """Let whole numbers in buffers of a model's parts be constants, for a while.

    Raises:
        ConversionError: the code puts another number there.
    """
    buffers = [(part, name, part._buffers[name]) for part, name in whole_numbers(model)]
    try:
        for part, name, buffer in buffers:
            del part._buffers[name]
            vars(part)[name] = Known(buffer.item(), buffer.dtype)
        with _kept({(id(part), name) for part, name, _ in buffers}):
            yield
    finally:
        for part, name, buffer in buffers:
            vars(part).pop(name, None)
            part._buffers[name] = buffer


@contextlib.contextmanager
def _kept(places: Set[tuple[int, str]]) -> Iterator[None]:
    """Refuse other values for these attributes; the exporter itself undoes such changes."""
    original = torch.nn.Module.__setattr__

    def watched(part: torch.nn.Module, name: str, value: Any) -> None:
        if (id(part), name) in places and value is not vars(part).get(name):
            raise _changed(name)
        original(part, name, value)

    torch.nn.Module.__setattr__ = watched
    try:
        yield
    finally:
        torch.nn.Module.__setattr__ = original


class Known:
    """A tensor without dimensions whose value is known: what is computed of it alone is, too.

    Together with other tensors, or with symbolic sizes, it is a constant of the graph.

    Args:
        value: the number.
        dtype: the tensor's dtype.
    """

    def __init__(self, value: Any, dtype: torch.dtype) -> None:
        self.value = value
        self.dtype = dtype

    @classmethod
    def __torch_function__(
        cls, func: Callable[..., Any], types: object, args: Any = (), kwargs: Any = None
    ) -> Any:
        return _applied(func, args, kwargs or {})

    def __getattr__(self, name: str) -> Any:
        if name.endswith("_"):
            raise _changed(name)
        method = getattr(torch.Tensor, name)
        if not callable(method):
            return getattr(self.tensor(), name)
        return lambda *args, **kwargs: _applied(method, (self, *args), kwargs)

    def __bool__(self) -> bool:
        return bool(self.value)

    def __int__(self) -> int:
        return int(self.value)

    def __float__(self) -> float:
        return float(self.value)

    def __index__(self) -> int:
        return self.value.__index__()

    def tensor(self) -> torch.Tensor:
        """The tensor: of a real value, or a constant of the graph while PyTorch traces."""
        return torch.tensor(self.value, dtype=self.dtype)


def _changed(name: str) -> ConversionError:
    return ConversionError(
        f"the code decides on a number in a buffer that it changes ('{name}')",
        hint="keep the number in an attribute, or decide with torch.where or torch.cond",
    )


def _arithmetic(name: str) -> Callable[..., Any]:
    method = getattr(torch.Tensor, name)
    return lambda self, *args: _applied(method, (self, *args), {})


def _refused(name: str) -> Callable[..., Any]:
    def refuse(_self: Known, _other: Any) -> Any:
        raise _changed(name)

    return refuse


_BINARY = ("add", "sub", "mul", "truediv", "floordiv", "mod", "pow", "and", "or", "xor")
_IN_PLACE = [f"__i{name}__" for name in (*_BINARY, "lshift", "rshift")]
_NAMES = [f"__{side}{name}__" for name in _BINARY for side in ("", "r")]
_NAMES += [f"__{name}__" for name in ("eq", "ne", "lt", "le", "gt", "ge", "neg", "abs", "invert")]
for _name in _NAMES:
    setattr(Known, _name, _arithmetic(_name))
for _name in _IN_PLACE:
    setattr(Known, _name, _refused(_name))


def _applied(func: Callable[..., Any], args: Any, kwargs: dict[str, Any]) -> Any:
    """Call a function of PyTorch: on values where all are known, else on the graph's."""
    leaves, structure = pytree.tree_flatten((args, kwargs))

    def called() -> Any:
        tensors = [leaf.tensor() if isinstance(leaf, Known) else leaf for leaf in leaves]
        made, options = pytree.tree_unflatten(tensors, structure)
        return func(*made, **options)

    if not any(isinstance(leaf, _OF_THE_GRAPH) for leaf in leaves):
        with _disable_current_modes(), torch._C.DisableTorchFunction():
            result = called()
            if not isinstance(result, torch.Tensor):
                return result
            if result.dim() == 0:
                return Known(result.item(), result.dtype)
    return called()


_OF_THE_GRAPH = (torch.Tensor, torch.SymInt, torch.SymFloat, torch.SymBool)
