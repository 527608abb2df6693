"""TFLite files: described, and run by LiteRT."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from modelpack.adapters import checking
from modelpack.adapters.tflite_file import op_counts, parsed, unrunnable, weights
from modelpack.adapters.tflite_quantization import quantize
from modelpack.adapters.tflite_signatures import with_one_signature
from modelpack.artifact import ModelRef
from modelpack.dependencies import versions
from modelpack.errors import InputError, first_line
from modelpack.samples import Array, Case, numpy_dtype, read_cases, write_cases
from modelpack.signature import (
    DType,
    TensorSpec,
    bound_names,
    in_order_of,
    refuse_swapped,
    requested,
)
from modelpack.steps import CheckRequest, Description, Finding, RunOptions, RunResult, timed

__all__ = ["check", "describe", "quantize", "run"]


def describe(ref: ModelRef) -> Description:
    """Describe the file's ``serving_default``, or else its first signature, without a runtime.

    Raises:
        InputError: the file is damaged, or has tensors that models cannot exchange.
    """
    file = parsed(ref)
    native = file.signature
    signature = in_order_of(native, ref.signature)
    if ref.signature is None:
        refuse_swapped(native, ref.outputs)
        signature = requested(native, ref.inputs, ref.outputs)
    precision, parameters = weights(file.model)
    return Description(
        signature=signature,
        framework="tflite",
        versions=versions("ai-edge-litert"),
        ops=op_counts(file.model),
        parameters=parameters,
        precision=precision,
        bindings={
            name: file.tensors[own]
            for given, own_specs in (
                (signature.inputs, native.inputs),
                (signature.outputs, native.outputs),
            )
            for name, own in sorted(bound_names(given, own_specs).items())
        },
        other_signatures=file.others,
        unrunnable=unrunnable(file.model, file.subgraph),
    )


def run(ref: ModelRef, cases: str, outputs: str, options: RunOptions) -> RunResult:
    """Run each case with LiteRT, bound by names.

    A quantized tensor that the signature calls a float is quantized on the way in and
    dequantized on the way out. The runtime "plain" is LiteRT without XNNPACK.

    Raises:
        InputError: the cases do not fit the model, or LiteRT cannot run it.
    """
    options.refuse("nudge", "wide")
    runner = _Runner(ref, options)
    feeds = read_cases(Path(cases), runner.signature.inputs)
    write_cases(Path(outputs), [runner(feed) for feed in feeds])
    latency = timed(lambda: runner(feeds[0]), options.repeat)
    return RunResult(_title(options), latency)


def check(ref: ModelRef, request: CheckRequest) -> list[Finding]:
    """Allocate the tensors of the file, which finds a kernel for each op, and call it repeatedly.

    Its offsets were checked when it was described. Each thread has an interpreter of its own:
    one is not made to be shared.
    """
    options = RunOptions(runtime=ref.runtime)
    title = _title(options)
    found = [Finding("checker", True, "every offset lies in the file")]
    try:
        with with_one_signature(ref) as one:  # the memory of a file's first graph is planned
            _interpreter(one, options, allocate=True)
        runner = _Runner(ref, options)
    except InputError as error:
        return [*found, Finding("ops", False, error.message)]
    found.append(Finding("ops", True, f"{title} has a kernel for each"))
    return [
        *found,
        *checking.called(runner.signature, request, runner, lambda: _Runner(ref, options)),
    ]


# --- running -------------------------------------------------------------------------------------


# By name: LiteRT's resolver, and what the report adds to the version.
_RUNTIMES = {
    "": ("AUTO", ""),
    "plain": ("BUILTIN_WITHOUT_DEFAULT_DELEGATES", " without XNNPACK"),
}


def _title(options: RunOptions) -> str:
    version = versions("ai-edge-litert").get("ai-edge-litert", "")
    return f"LiteRT {version}{_RUNTIMES[options.runtime][1]}"


def _interpreter(ref: ModelRef, options: RunOptions, *, allocate: bool = False) -> Any:
    """LiteRT with the file; where asked, with the memory of all its tensors planned.

    Raises:
        InputError: LiteRT has no kernel for an op, or shapes do not fit each other.
    """
    from ai_edge_litert.interpreter import Interpreter, OpResolverType

    try:
        made = Interpreter(
            model_path=ref.location,
            num_threads=options.threads,
            experimental_op_resolver_type=OpResolverType[_RUNTIMES[options.runtime][0]],
        )
        if allocate:
            made.allocate_tensors()
    except (ValueError, RuntimeError) as error:
        raise InputError(f"LiteRT cannot load '{ref.display}': {first_line(error)}") from error
    return made


class _Runner:
    """Calls the model by the names of ``ref.signature``."""

    def __init__(self, ref: ModelRef, options: RunOptions) -> None:
        self._file = parsed(ref)
        self.signature = ref.signature or self._file.signature
        native = self._file.signature
        self._inputs = bound_names(self.signature.inputs, native.inputs)
        self._outputs = bound_names(self.signature.outputs, native.outputs)
        self._interpreter = _interpreter(ref, options)
        try:
            if self._file.key:
                self._call = self._interpreter.get_signature_runner(self._file.key)
                self._details = {
                    **{f"in/{k}": v for k, v in self._call.get_input_details().items()},
                    **{f"out/{k}": v for k, v in self._call.get_output_details().items()},
                }
            else:
                self._details = self._details_by_index()
        except (ValueError, RuntimeError) as error:
            raise InputError(f"LiteRT cannot load '{ref.display}': {str(error).strip()}") from error

    def _details_by_index(self) -> dict[str, Any]:
        details = {
            item["index"]: item
            for item in (
                *self._interpreter.get_input_details(),
                *self._interpreter.get_output_details(),
            )
        }
        return {name: details[index] for name, index in self._file.indices.items()}

    def __call__(self, feed: Case) -> Case:
        missing = [spec.name for spec in self.signature.inputs if spec.name not in feed]
        if missing:
            raise InputError(f"the samples have no input '{missing[0]}'")
        native = {}
        for spec in self.signature.inputs:
            own = self._inputs[spec.name]
            native[own] = entering(feed[spec.name], spec, self._details[f"in/{own}"])
        try:
            answer = self._call(**native) if self._file.key else self._invoke(native)
        except (ValueError, RuntimeError) as error:
            raise InputError(f"LiteRT cannot run the model: {str(error).strip()}") from error
        return {
            spec.name: leaving(answer[own], spec, self._details[f"out/{own}"])
            for spec in self.signature.outputs
            for own in (self._outputs[spec.name],)
        }

    def _invoke(self, native: Case) -> Case:
        indices = self._file.indices
        for name, array in native.items():
            self._interpreter.resize_tensor_input(indices[f"in/{name}"], array.shape)
        self._interpreter.allocate_tensors()
        for name, array in native.items():
            self._interpreter.set_tensor(indices[f"in/{name}"], array)
        self._interpreter.invoke()
        return {
            spec.name: self._interpreter.get_tensor(indices[f"out/{spec.name}"])
            for spec in self._file.signature.outputs
        }


def entering(array: Array, spec: TensorSpec, detail: Any) -> Array:
    """What a tensor holds for values of the signature: quantized, where it is."""
    if spec.dtype is DType.STRING:
        return np.array([str(item).encode() for item in array.flat]).reshape(array.shape)
    held = np.dtype(detail["dtype"])
    scale, zero_point = detail["quantization"]
    if spec.dtype.is_float and held.kind in "iu" and scale:
        limits = np.iinfo(held)
        steps = np.round(array.astype(np.float64) / scale) + zero_point
        clipped: Array = np.clip(steps, limits.min, limits.max).astype(held)
        return clipped
    return np.asarray(array, order="C")  # keeps a scalar one


def leaving(array: Array, spec: TensorSpec, detail: Any) -> Array:
    """What the signature has for what a tensor holds."""
    scale, zero_point = detail["quantization"]
    if spec.dtype.is_float and array.dtype.kind in "iu" and scale:
        real: Array = (array.astype(np.float64) - zero_point) * scale
        return np.asarray(real, numpy_dtype(spec.dtype))
    return np.array(array)
