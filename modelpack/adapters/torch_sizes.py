"""Which sizes an export covers: PyTorch limits and fixes dimensions, and drops branches on them."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch.export import ExportedProgram

from modelpack.adapters import torch_guards
from modelpack.adapters.torch_calling import callable_for, native
from modelpack.adapters.torch_loading import load
from modelpack.adapters.torch_signature import (
    FlatModel,
    example_inputs,
    program_bounds,
    program_signature,
)
from modelpack.artifact import ModelRef
from modelpack.errors import ConversionError
from modelpack.signature import Signature, TensorSpec

# A limit above this is none in practice, and too large to try.
_LARGEST_TRIED = 100_000

# Of inputs at sizes where another branch may be taken: larger ones take too long.
_MOST_ELEMENTS = 1 << 24


class SizedModel(FlatModel):
    """A model whose dimensions of one name are one to PyTorch from the first line on.

    It knows else at the end alone, and what was computed of one and of the other differs.

    Args:
        model: the model.
        inputs: its inputs, in the order they are given here.
    """

    def __init__(self, model: torch.nn.Module, inputs: Sequence[TensorSpec]) -> None:
        super().__init__(model, [spec.name for spec in inputs])
        self._axes: dict[str, list[tuple[int, int]]] = {}
        for index, spec in enumerate(inputs):
            for axis, dim in enumerate(spec.shape or ()):
                if isinstance(dim, str):
                    self._axes.setdefault(dim, []).append((index, axis))

    def forward(self, *tensors: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """Call the model, as `FlatModel` does."""
        for (first, axis), *others in self._axes.values():
            for other, of_other in others:
                torch._check(tensors[first].shape[axis] == tensors[other].shape[of_other])
        return super().forward(*tensors)


def demand_dynamic(
    program: ExportedProgram, signature: Signature, places: torch_guards.Places
) -> None:
    """Check that the exporter kept dimensions open, which it may fix without a word.

    Args:
        program: what the exporter made.
        signature: the dimensions that have to be open have names in it.
        places: where sizes were decided on while it did.

    Raises:
        ConversionError: it fixed one.
    """
    for spec, traced in zip(signature.inputs, program_signature(program)[0].inputs, strict=True):
        for want, have in zip(spec.shape or (), traced.shape or (), strict=True):
            if isinstance(want, str) and isinstance(have, int):
                raise fixed(want, places.of(have), signature.inputs)


def fixed(dim: str, place: str, inputs: Sequence[TensorSpec]) -> ConversionError:
    """The error to raise where a model's code fixes a dimension that was to stay open."""
    static = Signature(tuple(inputs), ()).with_dims({dim: 1})
    words = " ".join(f"--input '{spec}'" for spec in static.inputs)
    return ConversionError(
        f"'{dim}' cannot stay open: the model's code makes a constant of it{place}",
        hint=f"change that code (a loop over '{dim}', int(...) or range(...) of a size), or "
        f"convert with a fixed size, for example: {words}",
    )


def limit_notes(
    source: ModelRef, program: ExportedProgram, signature: Signature
) -> tuple[str, ...]:
    """Say which sizes the program does not cover, which PyTorch limits without a word.

    Raises:
        ConversionError: the module itself takes a size that the program does not cover: its
            code depends on the size, and the artifact would answer there as if it did not.
    """
    if isinstance(load(source), ExportedProgram):
        return ()  # limits of a saved program are its author's
    native, bounds = program_signature(program)[0], program_bounds(program)
    names = {
        old: new
        for before, after in zip(native.inputs, signature.inputs, strict=True)
        for old, new in zip(before.shape or (), after.shape or (), strict=True)
        if isinstance(old, str) and isinstance(new, str)
    }
    notes = []
    for old, (low, high) in bounds.items():
        beyond = [size for size in (low - 1, high + 1) if 1 <= size <= _LARGEST_TRIED]
        for size in beyond if old in names else ():
            if _runs_at(source, signature, {names[old]: size}):
                raise ConversionError(
                    f"the model's code depends on the size of '{names[old]}': what PyTorch traced "
                    f"holds from {low} to {high} only, but the model also takes {size}",
                    hint=f"give '{names[old]}' a number, or use torch.cond for the branch",
                )
        if beyond and old in names:
            notes.append(f"'{names[old]}' can be from {low} to {high}")
    return tuple(notes)


def _runs_at(source: ModelRef, signature: Signature, sizes: dict[str, int]) -> bool:
    """Whether the module itself runs at these sizes (the other dims are small)."""
    call = callable_for(source, signature)
    return _answers(call, _tensors_at(source, signature, sizes)) is not None


def _tensors_at(
    source: ModelRef, signature: Signature, sizes: dict[str, int]
) -> list[torch.Tensor]:
    every = {name: 3 + index for index, name in enumerate(signature.dynamic_dims)} | sizes
    return list(example_inputs(signature.inputs, every, native(source)[1], seed=0))


def _answers(call: torch.nn.Module, tensors: list[torch.Tensor]) -> tuple[torch.Tensor, ...] | None:
    try:
        with torch.no_grad():
            return tuple(call(*tensors))
    except Exception:  # whatever the user's code raises at a size it does not take
        return None


def refuse_branches(source: ModelRef, traced: ExportedProgram, signature: Signature) -> None:
    """Refuse a module that takes another branch at sizes that its trace was not made for.

    Raises:
        ConversionError: it answers there, and otherwise than its trace.
    """
    names = _dims_by_symbol(traced, signature)
    for broken in torch_guards.broken_at(traced):
        sizes = {names[symbol]: size for symbol, size in broken.items() if symbol in names}
        if len(sizes) < len(broken):
            continue
        tensors = _tensors_at(source, signature, sizes)
        if sum(tensor.numel() for tensor in tensors) > _MOST_ELEMENTS:
            continue
        own = _answers(callable_for(source, signature), tensors)
        made = _answers(torch_guards.without_assertions(traced), tensors)
        if own is not None and (made is None or not _alike(own, made)):
            listing = ", ".join(f"{name}={size}" for name, size in sizes.items())
            raise ConversionError(
                f"the model's code depends on its sizes: at {listing} it answers otherwise than "
                "what PyTorch traced",
                hint="give these dimensions numbers, or use torch.cond for the branch",
            )


def _dims_by_symbol(program: ExportedProgram, signature: Signature) -> dict[str, str]:
    """The signature's names of dims, by the symbols of a program with the same inputs."""
    values = {node.name: node.meta.get("val") for node in program.graph.nodes}
    shapes = [
        getattr(values.get(str(name)), "shape", ()) for name in program.graph_signature.user_inputs
    ]
    return {
        str(size): dim
        for spec, shape in zip(signature.inputs, shapes, strict=False)
        for dim, size in zip(spec.shape or (), shape, strict=False)
        if isinstance(dim, str)
    }


def _alike(own: tuple[torch.Tensor, ...], made: tuple[torch.Tensor, ...]) -> bool:
    """Whether answers are those of one branch: no judgement of accuracy, which comes later."""
    return len(own) == len(made) and all(
        one.shape == other.shape
        and torch.allclose(one.double(), other.double(), rtol=1e-3, atol=1e-5, equal_nan=True)
        for one, other in zip(own, made, strict=True)
    )
