"""What the exporter's ONNX file is called and shaped like: the signature's names, no traces."""

from __future__ import annotations

import re
from typing import Any

import onnx

from modelpack import onnx_graph
from modelpack.adapters.onnx_indices import widen_indices
from modelpack.adapters.onnx_means import by_rows
from modelpack.adapters.onnx_padding import keep_zeros
from modelpack.errors import ConversionError
from modelpack.signature import Signature, TensorSpec


def tidy(model: onnx.ModelProto, signature: Signature) -> None:
    """Bind the file's dimensions to the signature's names; remove paths and stack traces.

    Raises:
        ConversionError: a dimension is fixed in the file, but named in the signature.
    """
    onnx_graph.scrub(model)
    widen_indices(model)
    keep_zeros(model)
    by_rows(model)
    renamed: dict[str, str | int] = {}
    for value, spec in zip(model.graph.input, signature.inputs, strict=True):
        for have, want in zip(value.type.tensor_type.shape.dim, spec.shape or (), strict=True):
            if have.dim_param and want is not None:
                renamed[have.dim_param] = want
    for value in (*model.graph.input, *model.graph.output, *model.graph.value_info):
        for dim in value.type.tensor_type.shape.dim:
            _rename(dim, renamed)
    for value, spec in zip(
        (*model.graph.input, *model.graph.output),
        (*signature.inputs, *signature.outputs),
        strict=True,
    ):
        _bind(value, spec)


def _rename(dim: Any, renamed: dict[str, str | int]) -> None:
    """Put the signature's dimension in the place of the exporter's symbol."""
    symbols = re.findall(r"[A-Za-z_]\w*", dim.dim_param)
    if not any(symbol in renamed for symbol in symbols):
        return
    new = renamed.get(dim.dim_param)
    if isinstance(new, int):
        dim.dim_value = new
    elif isinstance(new, str):
        dim.dim_param = new
    elif any(isinstance(renamed.get(symbol), int) for symbol in symbols):
        dim.Clear()  # an expression of a size that is now fixed: left to shape inference
    else:
        dim.dim_param = re.sub(
            r"[A-Za-z_]\w*", lambda match: str(renamed.get(match[0], match[0])), dim.dim_param
        )


def _bind(value: Any, spec: TensorSpec) -> None:
    dims = value.type.tensor_type.shape.dim
    if spec.shape is None:
        return
    if len(dims) != len(spec.shape):
        raise ConversionError(
            f"PyTorch gave '{spec.name}' the rank {len(dims)}, but the model has {spec}"
        )
    for axis, (have, want) in enumerate(zip(dims, spec.shape, strict=True)):
        if isinstance(want, str) and have.HasField("dim_value"):
            raise ConversionError(
                f"PyTorch fixed axis {axis} of '{spec.name}' to {have.dim_value}, "
                f"but it is dynamic ('{want}') in the model",
                hint=f"give '{want}' a number, or change the code that depends on its size",
            )
        if isinstance(want, str):
            have.dim_param = want
        elif isinstance(want, int):
            have.dim_value = want
        elif not have.HasField("dim_value") and (
            not have.dim_param.isidentifier() or re.fullmatch(r"[su]\d+", have.dim_param)
        ):
            have.Clear()  # an expression, or a symbol of the exporter's own
