"""Custom PyTorch ops that other distributions write in ONNX."""

from __future__ import annotations

from collections.abc import Callable
from importlib.metadata import entry_points
from typing import Any

import torch

from modelpack.errors import ModelpackError

_GROUP = "modelpack.torch_ops"


def translations() -> dict[Any, Callable[..., Any]]:
    """What writes each custom op in ONNX: functions of ONNX Script, as `torch.onnx` takes them.

    Raises:
        ModelpackError: a plug-in cannot be loaded.
    """
    found = {}
    for point in entry_points(group=_GROUP):
        try:
            function = point.load()
        except Exception as error:  # whatever the import of somebody's module raises
            raise ModelpackError(
                f"the plug-in '{point.name}' of {_GROUP} cannot be loaded: {error}",
                hint="repair or uninstall the distribution that brings it",
            ) from error
        op = _op(point.name)
        if op is not None:
            found[op] = function
    return found


def _op(name: str) -> Any:
    """The op ``namespace.op`` or ``namespace.op.overload``; None where nothing defines it."""
    namespace, _, rest = name.partition(".")
    op, _, overload = rest.partition(".")
    return getattr(getattr(getattr(torch.ops, namespace), op, None), overload or "default", None)
