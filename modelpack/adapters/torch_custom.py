"""Custom PyTorch ops that other distributions write in ONNX."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from modelpack import plugins

_GROUP = "modelpack.torch_ops"


def translations() -> dict[Any, Callable[..., Any]]:
    """What writes each custom op in ONNX: functions of ONNX Script, as `torch.onnx` takes them.

    Raises:
        ModelpackError: a plug-in cannot be loaded.
    """
    ops = {name: _op(name) for name in plugins.names(_GROUP)}
    return {op: plugins.load(_GROUP, name) for name, op in ops.items() if op is not None}


def _op(name: str) -> Any:
    """The op ``namespace.op`` or ``namespace.op.overload``; None where nothing defines it."""
    namespace, _, rest = name.partition(".")
    op, _, overload = rest.partition(".")
    return getattr(getattr(getattr(torch.ops, namespace), op, None), overload or "default", None)
