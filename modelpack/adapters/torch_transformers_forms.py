"""Functions of transformers in equal forms that PyTorch can export with dynamic sizes.

Each replaces one method of one class, of instances and for the time of an export alone. It
computes the same numbers; the artifact is compared with the library's own form.
"""

from __future__ import annotations

import contextlib
import types
from collections.abc import Callable, Iterator
from typing import Any

import torch


def _axial_positions(layer: Any, position_ids: torch.Tensor) -> torch.Tensor:
    """Reformer's embeddings of positions [batch, length], looked up all at once.

    The library's form picks rows in a loop over the batch, from as many columns as the highest
    position needs.
    """
    shape = tuple(layer.axial_pos_shape)
    weights = [weight.expand(*shape, -1) for weight in layer.weights]
    table = torch.cat(weights, dim=-1).flatten(0, len(shape) - 1)
    return torch.nn.functional.embedding(position_ids, table)


# Class, method and form; the class by its name, for the library need not be there.
_FORMS: dict[str, dict[str, Callable[..., Any]]] = {
    "transformers.models.reformer.modeling_reformer.AxialPositionEmbeddings": {
        "forward": _axial_positions
    },
}


@contextlib.contextmanager
def transformers_forms(model: torch.nn.Module) -> Iterator[None]:
    """Put the forms in the places of the methods of a model's parts, for a while."""
    placed: list[tuple[torch.nn.Module, str]] = []
    try:
        for part in model.modules():
            name = f"{type(part).__module__}.{type(part).__qualname__}"
            for method, form in _FORMS.get(name, {}).items():
                vars(part)[method] = types.MethodType(form, part)
                placed.append((part, method))
        yield
    finally:
        for part, method in placed:
            del vars(part)[method]
