"""The model of a reference as a function of tensors, its signature and its weights."""

from __future__ import annotations

from dataclasses import replace
from functools import lru_cache

import torch
from torch.export import ExportedProgram

from modelpack.adapters.torch_loading import Model, load
from modelpack.adapters.torch_signature import (
    FlatModel,
    FlatProgram,
    module_signature,
    program_signature,
)
from modelpack.adapters.torch_transformers import default_inputs
from modelpack.artifact import Encoding, ModelRef
from modelpack.signature import Signature, requested
from modelpack.steps import Range


def signature_of(ref: ModelRef) -> Signature:
    """The signature in force: the given one, or the model's own with what was asked for."""
    return ref.signature or requested(native(ref)[0], ref.inputs, ref.outputs)


def native(ref: ModelRef) -> tuple[Signature, dict[str, Range]]:
    """The model's own signature, and the ranges of its inputs of whole numbers."""
    return _native(replace(ref.loading, inputs=ref.inputs))


@lru_cache
def _native(ref: ModelRef) -> tuple[Signature, dict[str, Range]]:
    model = load(ref)
    if isinstance(model, ExportedProgram):
        return program_signature(model)
    if ref.encoding is Encoding.TRANSFORMERS and not ref.inputs:
        ref = replace(ref, inputs=default_inputs(model, ref.path))
    return module_signature(model, ref)


def callable_for(ref: ModelRef, signature: Signature) -> FlatModel | FlatProgram:
    """The model as a function of tensors in the order of the signature's inputs."""
    model = load(ref)
    if isinstance(model, ExportedProgram):
        return FlatProgram(model)
    return FlatModel(model, [spec.name for spec in signature.inputs])


def weights_of(model: Model) -> list[torch.Tensor]:
    """Parameters and buffers, and an exported program's constants."""
    state = model.state_dict if isinstance(model, ExportedProgram) else model.state_dict()
    return [tensor for tensor in state.values() if isinstance(tensor, torch.Tensor)]
