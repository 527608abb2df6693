"""What can run an ONNX file: ONNX Runtime, onnx's own reference evaluator, OpenVINO."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from onnx import numpy_helper

from modelpack import onnx_graph
from modelpack.artifact import ModelRef
from modelpack.dependencies import installed
from modelpack.errors import InputError, MissingDependencyError, first_line
from modelpack.judging.noise import flip_last_bits
from modelpack.samples import Array, Case
from modelpack.signature import TensorSpec
from modelpack.steps import RunOptions


@dataclass(frozen=True)
class Runner:
    """A loaded file, which several threads may call at once where ``concurrent``.

    Attributes:
        title: name and version of the runtime, with what is special about it.
        inputs: the file's own names, in order.
        outputs: likewise.
        call: takes arrays by input name, returns the outputs in order.
        concurrent: whether the runtime's documentation says that threads may share it.
    """

    title: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    call: Callable[[Case], list[Any]]
    concurrent: bool = False


def load(ref: ModelRef, options: RunOptions) -> Runner:
    """Load a file into the runtime that ``options`` names.

    Raises:
        InputError: the runtime cannot load it, or there is none of this name.
        MissingDependencyError: the runtime is not installed.
    """
    loader = _LOADERS.get(options.runtime)
    if loader is None:
        known = ", ".join(filter(None, _LOADERS))
        raise InputError(f"unknown runtime '{options.runtime}' for ONNX", hint=f"use {known}")
    return loader(ref, options)


def calling(ref: ModelRef, runner: Runner) -> Callable[[Case], Case]:
    """A function of feeds and answers by the names of ``ref.signature``."""
    assert ref.signature is not None
    feed_of = bound(ref.signature.inputs, runner.inputs)
    output_of = bound(ref.signature.outputs, runner.outputs)

    def call(case: Case) -> Case:
        answers = runner.call({feed_of[name]: array for name, array in case.items()})
        values = dict(zip(runner.outputs, answers, strict=True))
        return {name: np.asarray(values[native]) for name, native in output_of.items()}

    return call


def bound(specs: tuple[TensorSpec, ...], names: tuple[str, ...]) -> dict[str, str]:
    """Map signature names to the file's: by name where all are known, else by position."""
    if {spec.name for spec in specs} <= set(names):
        return {spec.name: spec.name for spec in specs}
    return {spec.name: name for spec, name in zip(specs, names, strict=True)}


# --- the runtimes ------------------------------------------------------------------------


def _onnxruntime(ref: ModelRef, options: RunOptions) -> Runner:
    import onnxruntime

    settings = onnxruntime.SessionOptions()
    settings.intra_op_num_threads = options.threads
    settings.inter_op_num_threads = 1
    settings.log_severity_level = 3
    if options.runtime == "plain":
        settings.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    try:
        session = onnxruntime.InferenceSession(
            _nudged(ref.path, options.nudge) if options.nudge else ref.location,
            settings,
            providers=["CPUExecutionProvider"],
        )
    except Exception as error:  # ONNX Runtime raises a class per status code, with no base
        raise _unloadable("ONNX Runtime", ref, error) from None
    outputs = tuple(item.name for item in session.get_outputs())
    plain = " without optimizations" if options.runtime else ""
    return Runner(
        f"onnxruntime {onnxruntime.__version__}{plain}",
        tuple(item.name for item in session.get_inputs()),
        outputs,
        lambda feed: session.run(outputs, feed),
        concurrent=True,
    )


def _reference(ref: ModelRef, options: RunOptions) -> Runner:
    import onnx
    from onnx.reference import ReferenceEvaluator

    model = onnx_graph.load(ref.path)
    _flip(model, options.nudge)
    try:
        evaluator = ReferenceEvaluator(model)
    except Exception as error:  # whatever the Python of an op raises
        raise _unloadable("the ONNX reference evaluator", ref, error) from None
    weights = {tensor.name for tensor in model.graph.initializer}
    outputs = tuple(value.name for value in model.graph.output)
    return Runner(
        f"onnx {onnx.__version__} reference evaluator",
        tuple(value.name for value in model.graph.input if value.name not in weights),
        outputs,
        lambda feed: evaluator.run(outputs, feed),
    )


def _openvino(ref: ModelRef, options: RunOptions) -> Runner:
    if not installed("openvino"):
        raise MissingDependencyError(
            "the runtime openvino is not installed", hint="pip install openvino"
        )
    import openvino

    # OpenVINO computes in bfloat16 or float16 by default where the processor can.
    settings = {"INFERENCE_PRECISION_HINT": "f32", "INFERENCE_NUM_THREADS": options.threads}
    try:
        core = openvino.Core()
        model = core.read_model(_nudged(ref.path, options.nudge) if options.nudge else ref.location)
        request = core.compile_model(model, "CPU", settings).create_infer_request()
    except Exception as error:  # OpenVINO raises RuntimeError and others of its own
        raise _unloadable("OpenVINO", ref, error) from None
    inputs = tuple(port.any_name for port in model.inputs)
    outputs = tuple(port.any_name for port in model.outputs)

    def call(feed: Case) -> list[Array]:
        answers = request.infer([feed[name] for name in inputs])
        return [np.array(answers[index]) for index in range(len(outputs))]

    return Runner(f"openvino {openvino.__version__}", inputs, outputs, call)


_LOADERS: dict[str, Callable[[ModelRef, RunOptions], Runner]] = {
    "": _onnxruntime,
    "plain": _onnxruntime,
    "reference": _reference,
    "openvino": _openvino,
}


def _unloadable(what: str, ref: ModelRef, error: Exception) -> InputError:
    return InputError(f"{what} cannot load '{ref.path.name}': {first_line(error)}")


# --- changed weights ----------------------------------------------------------------------

# Weights of 1 GB: a changed model is held three times.
_MOST_NUDGED = 1 << 28


def _nudged(path: Path, seed: int) -> bytes:
    """The model with the last bits of its weights changed.

    Single numbers are left alone: they are constants of formulas more often than weights, and
    a power of 3.0000002 is not what rounding makes of a cube.
    """
    model = onnx_graph.load(path)
    _flip(model, seed)
    return bytes(model.SerializeToString())


def _flip(model: Any, seed: int) -> None:
    if not seed:
        return
    sizes = (int(np.prod(list(tensor.dims), dtype=np.int64)) for tensor in model.graph.initializer)
    if sum(sizes) > _MOST_NUDGED:
        raise InputError("the model is too large to change its weights in memory")
    for index, tensor in enumerate(model.graph.initializer):
        array = np.array(numpy_helper.to_array(tensor), order="C")
        if array.size == 1:
            continue
        flip_last_bits(array, seed, index)
        tensor.CopyFrom(numpy_helper.from_array(array, tensor.name))
