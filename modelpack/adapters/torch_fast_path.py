"""PyTorch's fused transformer layer, a shortcut of inference that answers otherwise."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from typing import Any

import torch
from torch.export import ExportedProgram

from modelpack.adapters.torch_calling import callable_for, native
from modelpack.adapters.torch_loading import load
from modelpack.adapters.torch_signature import example_inputs
from modelpack.artifact import ModelRef
from modelpack.signature import Signature

_FAST_PATH_NOTE = (
    "PyTorch's fused transformer layer, which eager inference uses by itself, answers zero at "
    "padded positions; the artifact and its reference compute the layers as they are written"
)


def fast_path_notes(source: ModelRef, signature: Signature) -> tuple[str, ...]:
    """Tell when PyTorch's own inference shortcut answers something else than the layers."""
    model = load(source)
    if isinstance(model, ExportedProgram) or not any(
        isinstance(layer, torch.nn.TransformerEncoder | torch.nn.TransformerEncoderLayer)
        for layer in model.modules()
    ):
        return ()
    sizes = {name: 3 + index for index, name in enumerate(signature.dynamic_dims)}
    tensors = example_inputs(signature.inputs, sizes, native(source)[1], seed=0)
    call = callable_for(source, signature)
    same = all(_same_by_fast_path(call, feed) for feed in _padded(tensors))
    return () if same else (_FAST_PATH_NOTE,)


def _same_by_fast_path(call: Any, feed: tuple[torch.Tensor, ...]) -> bool:
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")
        plain = call(*feed)
        torch.backends.mha.set_fastpath_enabled(True)
        try:
            fast = call(*feed)
        finally:
            torch.backends.mha.set_fastpath_enabled(False)
    return all(
        one.shape == other.shape and torch.allclose(one, other, 1e-3, 1e-4, equal_nan=True)
        for one, other in zip(plain, fast, strict=True)
    )


def _padded(tensors: tuple[torch.Tensor, ...]) -> Iterator[tuple[torch.Tensor, ...]]:
    """Yield feeds whose second row ends early, in either sense that a mask may have."""
    for body, end in ((1, 0), (0, 1)):
        feed = []
        for tensor in tensors:
            padded = tensor
            is_mask = tensor.dim() == 2 and not tensor.is_floating_point()
            if is_mask and min(tensor.shape) > 1:
                padded = torch.full_like(tensor, body)
                padded[1, -1] = end
            feed.append(padded)
        yield tuple(feed)
