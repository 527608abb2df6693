"""ONNX files from the inside: every tensor of a run, runs from the middle, and pieces of them.

All of it without ONNX Runtime's graph optimizations, so that tensors are the file's own.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from pathlib import Path
from typing import Any

import onnx
from onnx.external_data_helper import load_external_data_for_model

from modelpack import onnx_graph
from modelpack.adapters.onnx_runtimes import bound
from modelpack.artifact import ModelRef
from modelpack.bisection.traces import INPUT, Probe, TraceWriter
from modelpack.errors import InputError, first_line
from modelpack.samples import Case, read_cases, write_cases

# Tensors that one run keeps; a further run computes the next ones.
_AT_ONCE = 64

_SIZES = {"Shape", "Size"}


def trace(ref: ModelRef, cases: str, target: str) -> list[Probe]:
    """Run the file on the first case and write every tensor that a node of its graph gives.

    Nodes inside of loops and branches run any number of times, and are not looked into.

    Raises:
        InputError: ONNX Runtime cannot load or run the file.
    """
    model = onnx_graph.load(ref.path, weights=False)
    feed = _feed(ref, model, cases)
    probes = _probes(model.graph)
    with TraceWriter(Path(target)) as writer:
        for name, array in feed.items():
            writer.add(Probe(name, INPUT), array)
        for begin in range(0, len(probes), _AT_ONCE):
            chunk = probes[begin : begin + _AT_ONCE]
            names = [probe.name for probe in chunk]
            _set_outputs(model.graph, names)
            values = _run(model, ref.path, names, feed)
            for probe in chunk:
                writer.add(probe, values[probe.name])
    return writer.probes


def replay(ref: ModelRef, cases: str, given: str, outputs: str) -> None:
    """Run the first case with some tensors given instead of computed.

    Args:
        ref: the file.
        cases: feeds, as for `modelpack.adapters.onnx.run`.
        given: ``.npz`` with one case: values by tensor name, as in the trace. May be empty.
        outputs: gets one case, with the names of the signature.
    """
    assert ref.signature is not None
    model = onnx_graph.load(ref.path, weights=False)
    feed = _feed(ref, model, cases)
    values = next(iter(read_cases(Path(given))), {})
    native = [item.name for item in model.graph.output]
    names = bound(ref.signature.outputs, tuple(native))
    _cut(model, {**feed, **values}, list(names.values()))
    found = _run(model, ref.path, list(names.values()), {**feed, **values})
    write_cases(Path(outputs), [{name: found[own] for name, own in names.items()}])


def cut(ref: ModelRef, given: str, wanted: str, target: str) -> None:
    """Write the piece of the model that computes one tensor from given ones.

    Args:
        ref: the file.
        given: ``.npz`` with one case: values by tensor name, which become inputs.
        wanted: name of the tensor that becomes the output.
        target: the file to write.
    """
    model = onnx_graph.load(ref.path, weights=False)
    _cut(model, next(iter(read_cases(Path(given))), {}), [wanted])
    load_external_data_for_model(model, str(ref.path.parent))
    onnx_graph.scrub(model)
    inferred = onnx.shape_inference.infer_shapes(model)
    for item in inferred.graph.output:
        if item.type.HasField("tensor_type"):  # else the piece runs all the same
            _set_outputs(model.graph, [])
            model.graph.output.append(item)
    content = model.SerializeToString(deterministic=True)
    Path(target).write_bytes(content)


def _feed(ref: ModelRef, model: onnx.ModelProto, cases: str) -> Case:
    assert ref.signature is not None
    initialized = {item.name for item in model.graph.initializer}
    names = [item.name for item in model.graph.input if item.name not in initialized]
    own = bound(ref.signature.inputs, tuple(names))
    case = read_cases(Path(cases), ref.signature.inputs)[0]
    return {own[name]: array for name, array in case.items()}


def _probes(graph: onnx.GraphProto) -> list[Probe]:
    """What nodes give, in the order of the file, which is topological."""
    constants = {item.name for item in graph.initializer}
    probes = []
    for node in graph.node:
        if node.op_type == "Constant":
            constants.update(node.output)
            continue
        inputs = tuple(name for name in _read_by(node) if name not in constants)
        for name in filter(None, node.output):
            probes.append(Probe(name, node.op_type, node.name, inputs, node.op_type in _SIZES))
    return probes


def _read_by(node: onnx.NodeProto) -> list[str]:
    """Names that a node reads, also from within its branches and loop bodies."""
    names = list(node.input)
    for attribute in node.attribute:
        for body in [attribute.g, *attribute.graphs]:
            for graph in onnx_graph.graphs(body):
                own = {name for inner in graph.node for name in inner.output}
                own |= {item.name for item in (*graph.input, *graph.initializer)}
                read = [name for inner in graph.node for name in inner.input]
                read += [item.name for item in graph.output]
                names += [name for name in read if name not in own]
    return list(dict.fromkeys(filter(None, names)))


def _set_outputs(graph: onnx.GraphProto, names: Iterable[str]) -> None:
    """Make other tensors the outputs; ONNX Runtime finds out their types."""
    del graph.output[:]
    for name in names:
        graph.output.add(name=name)


def _cut(model: onnx.ModelProto, given: Case, wanted: Sequence[str]) -> None:
    """Keep, in place, what computes the wanted tensors from the given ones."""
    graph = model.graph
    kept = _needed(graph, set(given), wanted)
    read = {name for node in kept for name in _read_by(node)} | set(wanted)
    passed = [name for name in wanted if name in given]
    # An output that is given: no node computes it any more.
    kept = [
        *(onnx.helper.make_node("Identity", [f"{name}/given"], [name]) for name in passed),
        *kept,
    ]
    for part, items in (
        (graph.node, kept),
        (graph.initializer, [item for item in graph.initializer if item.name in read - set(given)]),
        (graph.sparse_initializer, [i for i in graph.sparse_initializer if i.values.name in read]),
    ):
        copies = [type(item).FromString(item.SerializeToString()) for item in items]
        del part[:]
        part.extend(copies)
    del graph.value_info[:]
    del graph.input[:]
    for name, array in given.items():
        if name in read:
            label = f"{name}/given" if name in passed else name
            graph.input.append(onnx.helper.make_tensor_value_info(label, *_type(array)))
    _set_outputs(graph, wanted)


def _needed(
    graph: onnx.GraphProto, given: Collection[str], wanted: Sequence[str]
) -> list[onnx.NodeProto]:
    """The nodes between, in the order of the file."""
    needed, kept = set(wanted) - set(given), []
    for node in reversed(graph.node):
        if needed.intersection(node.output):
            kept.append(node)
            needed.update(name for name in _read_by(node) if name not in given)
    return kept[::-1]


def _type(array: Any) -> tuple[int, list[int]]:
    if array.dtype.kind in "OUS":
        return onnx.TensorProto.STRING, list(array.shape)
    return onnx.helper.np_dtype_to_tensor_dtype(array.dtype), list(array.shape)


def _run(model: onnx.ModelProto, path: Path, wanted: Sequence[str], feed: Case) -> Case:
    """Run a model in memory whose weights may lie beside a file."""
    import onnxruntime

    settings = onnxruntime.SessionOptions()
    settings.intra_op_num_threads = settings.inter_op_num_threads = 1
    settings.log_severity_level = 3
    settings.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    settings.add_session_config_entry(
        "session.model_external_initializers_file_folder_path", str(path.parent)
    )
    try:
        session = onnxruntime.InferenceSession(
            model.SerializeToString(), settings, providers=["CPUExecutionProvider"]
        )
        labels = [item.name for item in session.get_inputs()]
        own = {label: feed[label.removesuffix("/given")] for label in labels}
        return dict(zip(wanted, session.run(list(wanted), own), strict=True))
    except Exception as error:  # ONNX Runtime raises a class per status code, with no base
        raise InputError(f"ONNX Runtime cannot run '{path.name}': {first_line(error)}") from None
