"""PyTorch: `torch.nn.Module` and exported programs.

Loading and its dangers are in `torch_loading`, signatures in `torch_signature`, the way to ONNX
in `torch_exporting`.
"""

from __future__ import annotations

import contextlib
import hashlib
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import torch
from torch.export import ExportedProgram

from modelpack.adapters import torch_loading
from modelpack.adapters.torch_calling import callable_for, native, signature_of, weights_of
from modelpack.adapters.torch_exporting import to_onnx
from modelpack.adapters.torch_loading import load
from modelpack.adapters.torch_scan import scan
from modelpack.adapters.torch_signature import (
    FlatModel,
    FlatProgram,
    program_bounds,
    to_array,
    to_tensor,
)
from modelpack.adapters.torch_transformers import length_limit
from modelpack.adapters.torch_wide import widen
from modelpack.artifact import Encoding, ModelRef
from modelpack.dependencies import versions
from modelpack.errors import InputError
from modelpack.judging.noise import flip_last_bits
from modelpack.samples import read_cases, write_cases
from modelpack.signature import Signature, for_inputs, own_names, requested
from modelpack.steps import Description, RunOptions, RunResult, timed

__all__ = ["describe", "run", "scan", "to_onnx"]

# --- describing ----------------------------------------------------------------------


def describe(ref: ModelRef) -> Description:
    """Describe a PyTorch model. A module is run on made-up inputs to learn its outputs.

    Raises:
        InputError: the inputs of a module are not described, or it does not run with them.
        UntrustedSourceError: loading would run code of the file, and it is not trusted.
    """
    model = load(ref)
    own, own_ranges = native(ref)
    signature = requested(own, ref.inputs, ref.outputs)
    tensors = weights_of(model)
    return Description(
        signature,
        framework="torch",
        versions=_libraries(ref),
        ops=_ops(model),
        parameters=sum(tensor.numel() for tensor in tensors),
        precision=_precision(tensors),
        bindings=own_names(signature, own),
        ranges=for_inputs(own_ranges, own, signature),
        dim_bounds=_bounds(model, own, signature),
        fingerprint=_fingerprint(model) if ref.encoding is Encoding.PYTHON else "",
    )


def _bounds(
    model: torch_loading.Model, own: Signature, signature: Signature
) -> dict[str, tuple[int, int]]:
    """The limits of dynamic dims, under the names in force."""
    if not isinstance(model, ExportedProgram):
        limit = length_limit(model) if hasattr(model, "get_input_embeddings") else None
        return dict.fromkeys(_lengths(signature), (1, limit)) if limit else {}
    limits = program_bounds(model)
    return {
        new: limits[old]
        for before, after in zip(own.inputs, signature.inputs, strict=True)
        for old, new in zip(before.shape or (), after.shape or (), strict=True)
        if isinstance(old, str) and isinstance(new, str) and old in limits
    }


def _lengths(signature: Signature) -> list[str]:
    """The dims that count tokens, of a model of transformers."""
    second = [(spec.shape or ())[1:2] for spec in signature.inputs if spec.name.endswith("_ids")]
    return [axis[0] for axis in second if axis and isinstance(axis[0], str)]


def _libraries(ref: ModelRef) -> dict[str, str]:
    more = ("transformers",) if ref.encoding is Encoding.TRANSFORMERS else ()
    return versions("torch", *more)


def _fingerprint(model: torch_loading.Model) -> str:
    """Digest of names and bytes of all weights and buffers, in order."""
    digest = hashlib.sha256()
    for name, tensor in model.state_dict().items():
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        digest.update(tensor.detach().contiguous().flatten().view(torch.uint8).numpy().tobytes())
    return f"sha256:{digest.hexdigest()}"


def _ops(model: torch_loading.Model) -> dict[str, int]:
    if isinstance(model, ExportedProgram):
        names = [str(node.target) for node in model.graph.nodes if node.op == "call_function"]
    else:
        leaves = [layer for layer in model.modules() if next(layer.children(), None) is None]
        names = [getattr(layer, "original_name", type(layer).__name__) for layer in leaves]
    return dict(sorted(Counter(names).items()))


def _precision(tensors: list[torch.Tensor]) -> str:
    """The floating-point dtype that most weights have."""
    counts: Counter[str] = Counter()
    for tensor in tensors:
        if tensor.is_floating_point():
            counts[str(tensor.dtype).removeprefix("torch.")] += tensor.numel()
    return counts.most_common(1)[0][0] if counts else "float32"


# --- running -------------------------------------------------------------------------


def run(ref: ModelRef, cases: str, outputs: str, options: RunOptions) -> RunResult:
    """Run the model itself, in eager mode; see `modelpack.adapters`.

    Raises:
        InputError: a feed does not fit the model.
    """
    signature = signature_of(ref)
    call = callable_for(ref, signature)
    options.refuse("runtime")
    feeds = [
        tuple(to_tensor(case[spec.name], spec) for spec in signature.inputs)
        for case in read_cases(Path(cases), signature.inputs)
    ]
    if options.wide:
        _check_can_widen(load(ref))
        feeds = [tuple(_widened(tensor) for tensor in feed) for feed in feeds]
    names = [spec.name for spec in signature.outputs]
    with torch.no_grad(), _changed(load(ref), call, options):
        try:
            results = [call(*feed) for feed in feeds]
        except (RuntimeError, IndexError, ValueError, TypeError) as error:
            raise InputError(
                f"'{ref.display}' does not run on the data: {error}",
                hint=_OUT_OF_TABLE if isinstance(error, IndexError) else "",
            ) from error
        latency = timed(lambda: call(*feeds[0]), options.repeat)
    write_cases(
        Path(outputs),
        [dict(zip(names, map(to_array, result), strict=True)) for result in results],
    )
    return RunResult(f"torch {torch.__version__}", latency)


_OUT_OF_TABLE = (
    "where the data was made up, a whole number in it is no row of an embedding: give inputs "
    "that the model takes with --data"
)

# Weights of 1 GB: in float64 they take two more.
_MOST_WIDENED = 1 << 28


def _widened(tensor: torch.Tensor) -> torch.Tensor:
    return tensor.double() if tensor.is_floating_point() else tensor


@contextlib.contextmanager
def _changed(
    model: torch_loading.Model, call: FlatModel | FlatProgram, options: RunOptions
) -> Iterator[None]:
    """The model under the options, for a while; on leaving it is bit by bit what it was.

    Raises:
        InputError: it has no form that computes in float64.
    """
    torch.set_num_threads(options.threads)
    try:
        _flip(weights_of(model), options.nudge)
        if options.wide and isinstance(model, ExportedProgram):
            widen(model, call.module)
        elif options.wide:
            model.double()
        yield
    finally:
        if options.wide and not isinstance(model, ExportedProgram):
            model.float()
        _flip(weights_of(model), options.nudge)
        torch.set_num_threads(1)


def _check_can_widen(model: torch_loading.Model) -> None:
    is_program = isinstance(model, ExportedProgram)
    tensors = weights_of(model) if is_program else [*model.parameters(), *model.buffers()]
    if any(tensor.is_floating_point() and tensor.dtype != torch.float32 for tensor in tensors):
        raise InputError("only a module of float32 alone can be made to compute in float64")
    if sum(tensor.numel() for tensor in tensors) > _MOST_WIDENED:
        raise InputError("the model is too large to compute in float64")


def _flip(weights: list[torch.Tensor], seed: int) -> None:
    """Flip last bits in place, of tensors that share no memory with an earlier one."""
    seen: set[int] = set()
    for index, tensor in enumerate(weights if seed else ()):
        if not tensor.is_floating_point() or tensor.data_ptr() in seen:
            continue
        seen.add(tensor.data_ptr())
        dense = tensor.detach().contiguous()
        flip_last_bits(to_array(dense), seed, index)
        if not tensor.is_contiguous():
            tensor.detach().copy_(dense)
