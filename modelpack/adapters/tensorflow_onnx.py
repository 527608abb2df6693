"""TensorFlow functions to ONNX: frozen, then converted by tf2onnx, then checked and cleaned."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import onnx

from modelpack import onnx_graph
from modelpack.adapters import onnx_weights, tensorflow_onnx_ops
from modelpack.adapters.onnx_canonical import canonicalize
from modelpack.adapters.onnx_means import MEANS, by_rows
from modelpack.adapters.onnx_padding import keep_zeros
from modelpack.adapters.savedmodel_bytes import canonicalize_functions
from modelpack.adapters.tensorflow_freezing import Frozen, Reader, Unfrozen, frozen, rename
from modelpack.dependencies import versions
from modelpack.errors import ContractError, ConversionError, UnsupportedOpsError
from modelpack.signature import DType, Signature, TensorSpec
from modelpack.steps import StepOptions, StepResult

DEFAULT_OPSET = 17
_OPSETS = range(9, 19)


def write(
    unfrozen: Unfrozen, signature: Signature, target: Path, options: StepOptions
) -> StepResult:
    """Convert a graph whose tensors are in the order of the signature, and write the file.

    Raises:
        UnsupportedOpsError: ops have no ONNX form; the message lists every one.
        ConversionError: the opset cannot be written, an output is called as an input is, or the
            conversion failed.
        ContractError: a tensor of the signature was lost, or has another dtype.
    """
    opset = chosen_opset(options)
    names = [spec.name for spec in (*signature.inputs, *signature.outputs)]
    _refuse_repeated(names)
    made = _frozen(unfrozen)
    settings = {
        "opset": opset,
        "input_names": [*made.inputs, *made.weights],
        "output_names": made.outputs,
        "tensors_to_rename": dict(zip(made.inputs + made.outputs, names, strict=True)),
        "initialized_tables": dict(made.tables),
    }
    model = _convert(made.graph, settings)
    _finish(model, signature, options.name, made.weights)
    onnx_graph.save(model, target)
    return StepResult(tools=versions("tf2onnx", "tensorflow-cpu", "onnx"), options={"opset": opset})


def _refuse_repeated(names: list[str]) -> None:
    repeated = sorted({name for name in names if names.count(name) > 1})
    if repeated:
        raise ConversionError(
            f"'{repeated[0]}' is an input and an output, and in ONNX a name is one tensor",
            hint="give the outputs other names with --output",
        )


def chosen_opset(options: StepOptions) -> int:
    """The opset to write.

    Raises:
        ConversionError: tf2onnx cannot write the one that was asked for.
    """
    opset = options.opset or DEFAULT_OPSET
    if opset not in _OPSETS:
        raise ConversionError(
            f"TensorFlow graphs cannot be written as ONNX opset {opset}",
            hint=f"use an opset from {_OPSETS[0]} to {_OPSETS[-1]}",
        )
    return opset


def write_tflite(
    settings: Mapping[str, Any], signature: Signature, target: Path, options: StepOptions
) -> None:
    """Run tf2onnx on a TFLite file and write the ONNX file with the signature's names and dims.

    Args:
        settings: arguments of ``tf2onnx.tfonnx.process_tf_graph``, the file among them.
        signature: names, dtypes and dims to write.
        target: the file.
        options: of the step.

    Raises:
        UnsupportedOpsError, ConversionError, ContractError: as `write`.
    """
    model = _convert(None, settings)
    _finish(model, signature, options.name, {})
    onnx_graph.save(model, target)


def _frozen(unfrozen: Unfrozen) -> Frozen:
    made = frozen(unfrozen, with_weights=False)
    canonicalize_functions(made.graph)
    _name_captures(made.graph)
    return replace(made, graph=_optimized(made.graph, [*made.inputs, *made.weights], made.outputs))


def _name_captures(graph: Any) -> None:
    """Rename captured tensors, which TensorFlow calls by their number within the process.

    The order in which tf2onnx takes equal nodes depends on names.
    """
    numbered = [node.name for node in graph.node if node.name.isdigit()]
    rename(graph, {old: f"captured_{rank}" for rank, old in enumerate(sorted(numbered, key=int))})


def _optimized(graph: Any, inputs: list[str], outputs: list[str]) -> Any:
    """Fold constants with TensorFlow's own optimizer, which tf2onnx's rewriters expect."""
    import tensorflow as tf
    from tf2onnx import tf_loader

    graph = tf_loader.fix_freezing_errors_part2(graph)
    with tf.Graph().as_default():
        tf.import_graph_def(graph, name="")
        return tf_loader.tf_optimize(inputs, outputs, graph)


# --- conversion ----------------------------------------------------------------------------


@dataclass
class _Failures(logging.Handler):
    """Collects what tf2onnx only logs: (op, node) of every op that it could not convert."""

    missing: list[tuple[str, str]] = field(default_factory=list)
    failed: list[tuple[str, str]] = field(default_factory=list)

    def __post_init__(self) -> None:
        super().__init__(logging.ERROR)

    def emit(self, record: logging.LogRecord) -> None:
        """Take the node from the arguments of the two messages that name one."""
        arguments = record.args if isinstance(record.args, tuple) else ()
        if str(record.msg).startswith("Tensorflow op [") and len(arguments) == 2:
            self.missing.append((str(arguments[1]), str(arguments[0])))
        elif str(record.msg).startswith("Failed to convert node") and arguments:
            reason = record.exc_info[1] if record.exc_info else ""
            self.failed.append((str(arguments[0]), str(reason).strip().split("\n")[0]))

    __hash__ = logging.Handler.__hash__


def _convert(graph: Any, settings: Mapping[str, Any]) -> Any:
    """Run tf2onnx; its optimizers may fail, its conversion may not."""
    failures = _Failures()
    logger = logging.getLogger("tf2onnx.tfonnx")
    logger.addHandler(failures)
    try:
        model = _run_tf2onnx(graph, settings, keep_going=False)
    except Exception as error:
        _raise_unsupported(failures, error)
        raise ConversionError(f"tf2onnx failed: {type(error).__name__}: {error}") from error
    finally:
        logger.removeHandler(failures)
    _raise_unsupported(failures, None)
    unknown = sorted(
        {(node.op_type, node.name) for node in onnx_graph.nodes(model) if _unknown(node)}
    )
    if unknown:
        _raise_unsupported(_Failures(missing=unknown), None)
    return model


def _run_tf2onnx(definition: Any, settings: Mapping[str, Any], keep_going: bool) -> Any:
    import tensorflow as tf
    from tf2onnx import optimizer, tfonnx, utils

    from modelpack.adapters.tensorflow_onnx_transposes import optimizers

    # Names of new nodes carry a counter of the process.
    utils.INTERNAL_NAME = 1
    with tf.Graph().as_default() as graph:
        if definition is not None:
            tf.import_graph_def(definition, name="")
        converted = tfonnx.process_tf_graph(
            graph,
            continue_on_error=False,
            custom_op_handlers=tensorflow_onnx_ops.handlers(
                settings.get("initialized_tables", {}), settings["opset"]
            ),
            extra_opset=[onnx.helper.make_opsetid("ai.onnx.ml", 2)],
            **settings,
        )
    try:
        # Without the safety net tf2onnx does not copy the whole graph for each optimizer.
        with tensorflow_onnx_ops.kept_casts():
            optimized = optimizer.optimize_graph(converted, keep_going, optimizers())
    except Exception:
        if keep_going:
            raise
        return _run_tf2onnx(definition, settings, keep_going=True)
    model = optimized.make_model("", graph_name="model")
    for node in model.graph.node:
        if node.op_type in MEANS:
            model.graph.value_info.extend(_told(optimized, node.input[0]))
    return model


def _told(graph: Any, name: str) -> list[onnx.ValueInfoProto]:
    """Dtype and shape of a tensor, as far as tf2onnx knows them; it writes -1 for other sizes."""
    dtype, shape = graph.get_dtype(name), graph.get_shape(name)
    if not dtype or shape is None:
        return []
    known = [size if size >= 0 else None for size in shape]
    return [onnx.helper.make_tensor_value_info(name, dtype, known)]


def _raise_unsupported(failures: _Failures, cause: Exception | None) -> None:
    if not failures.missing and not failures.failed:
        return
    by_op: dict[str, list[str]] = {}
    for op, node in sorted(set(failures.missing)):
        by_op.setdefault(op, []).append(node)
    lines = [f"{op}: {', '.join(nodes)}" for op, nodes in by_op.items()]
    lines += [f"node {node}: {reason}" for node, reason in sorted(set(failures.failed))]
    raise UnsupportedOpsError(
        "these TensorFlow ops cannot be converted to ONNX:\n  " + "\n  ".join(lines),
        hint="move them out of the model (text processing, tables), or ship the SavedModel",
    ) from cause


# --- cleaning and checks -------------------------------------------------------------------


def _unknown(node: Any) -> bool:
    return not onnx.defs.has(node.op_type, node.domain)


def _finish(model: Any, signature: Signature, name: str, weights: Mapping[str, Reader]) -> None:
    """Give the graph the signature's inputs and outputs, and its weights.

    What tells of its making is dropped.
    """
    graph = model.graph
    tensorflow_onnx_ops.repair(graph)
    recipes = onnx_weights.detach(model, set(weights))
    initializers = {item.name for item in graph.initializer}
    extra = {item.name for item in graph.input} - initializers
    extra -= {spec.name for spec in signature.inputs}
    if extra:
        raise ContractError(f"the conversion left inputs that nobody can feed: {sorted(extra)}")
    _check_types(graph.output, signature.outputs)
    _check_types(graph.input, signature.inputs)
    _replace(graph.input, signature.inputs)
    _replace(graph.output, signature.outputs)
    by_rows(model)
    canonicalize(model)
    onnx_weights.attach(model, recipes, weights)
    graph.name = name
    onnx_graph.scrub(model)
    keep_zeros(model)
    for inner in onnx_graph.graphs(graph):
        for value in (*inner.input, *inner.output, *inner.value_info) if inner is not graph else ():
            _forget_made_up_dims(value)
    onnx_graph.drop_unused_opsets(model)


def _check_types(values: Any, specs: tuple[TensorSpec, ...]) -> None:
    found = {value.name: value.type.tensor_type.elem_type for value in values}
    for spec in specs:
        have = found.get(spec.name)
        if have is not None and have != _element_type(spec.dtype):
            raise ContractError(f"the conversion changed the dtype of '{spec.name}': {have}")


def _replace(values: Any, specs: tuple[TensorSpec, ...]) -> None:
    del values[:]
    for spec in specs:
        shape = None if spec.shape is None else list(spec.shape)
        values.append(
            onnx.helper.make_tensor_value_info(spec.name, _element_type(spec.dtype), shape)
        )


def _element_type(dtype: DType) -> int:
    names = {"float32": "FLOAT", "float64": "DOUBLE"}
    return int(onnx.TensorProto.DataType.Value(names.get(dtype.value, dtype.value.upper())))


def _forget_made_up_dims(value: Any) -> None:
    for dim in value.type.tensor_type.shape.dim:
        if dim.dim_param.startswith("unk__"):
            dim.ClearField("dim_param")
