"""PyTorch models from the inside: what every operation answers."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import torch
from torch.utils import _pytree as pytree
from torch.utils._python_dispatch import TorchDispatchMode

from modelpack.adapters.torch_calling import callable_for
from modelpack.adapters.torch_loading import load
from modelpack.adapters.torch_signature import to_array, to_tensor
from modelpack.artifact import ModelRef
from modelpack.bisection.traces import INPUT, Probe, TraceWriter
from modelpack.errors import InputError
from modelpack.samples import read_cases

# A loop runs its operations at every step; nothing is told apart beyond this.
_MOST = 4096


def trace(ref: ModelRef, cases: str, target: str) -> list[Probe]:
    """Run the model on the first case and write what its operations answer, as they do.

    Raises:
        InputError: the feed does not fit the model.
    """
    assert ref.signature is not None
    call = callable_for(ref, ref.signature)
    feed = read_cases(Path(cases), ref.signature.inputs)[0]
    tensors = [to_tensor(feed[spec.name], spec) for spec in ref.signature.inputs]
    with TraceWriter(Path(target)) as writer:
        for name, array in feed.items():
            writer.add(Probe(name, INPUT), array)
        recorder = _Recorder(writer)
        with torch.no_grad(), recorder.layers(load(ref)), recorder:
            try:
                call(*tensors)
            except (RuntimeError, IndexError, ValueError, TypeError) as error:
                raise InputError(f"'{ref.display}' does not run on the data: {error}") from error
    return writer.probes


class _Recorder(TorchDispatchMode):  # type: ignore[misc]  # torch is not type-checked
    """Writes the results of operations, under the name of the innermost layer that runs."""

    def __init__(self, writer: TraceWriter) -> None:
        super().__init__()
        self._writer = writer
        self._within: list[str] = []

    def __torch_dispatch__(
        self,
        func: Callable[..., Any],
        types: object,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        result = func(*args, **(kwargs or {}))
        op = str(func).removeprefix("aten.").partition(".")[0]
        layer = self._within[-1] if self._within else ""
        for tensor in pytree.tree_leaves(result):
            if isinstance(tensor, torch.Tensor) and len(self._writer.probes) < _MOST:
                name = self._writer.free_name(f"{layer}/{op}" if layer else op)
                self._writer.add(Probe(name, op, layer), to_array(tensor))
        return result

    @contextmanager
    def layers(self, model: Any) -> Iterator[None]:
        """Know which layer runs. An exported program has none, a script module tells of none."""
        is_told = isinstance(model, torch.nn.Module) and not isinstance(
            model, torch.jit.ScriptModule
        )
        with ExitStack() as stack:
            for name, layer in model.named_modules() if is_told else ():
                before = layer.register_forward_pre_hook(self._entering(name))
                after = layer.register_forward_hook(self._leaving, always_call=True)
                stack.callback(before.remove)
                stack.callback(after.remove)
            yield

    def _entering(self, name: str) -> Callable[..., None]:
        return lambda layer, inputs: self._within.append(name)

    def _leaving(self, layer: object, inputs: object, output: object) -> None:
        self._within.pop()
