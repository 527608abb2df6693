"""TFLite files from the inside: every tensor of a run, runs from the middle, and pieces of them.

All of it with LiteRT's own kernels and no delegate, which would keep its tensors to itself.
Quantized tensors are given and taken as the real numbers they stand for.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from modelpack.adapters.tflite import entering, leaving
from modelpack.adapters.tflite_file import op_names, parsed
from modelpack.adapters.tflite_signatures import with_one_signature
from modelpack.artifact import ModelRef
from modelpack.bisection.traces import INPUT, Probe, TraceWriter
from modelpack.errors import InputError
from modelpack.samples import Array, Case, read_cases, write_cases
from modelpack.signature import DType, TensorSpec, bound_names


def trace(ref: ModelRef, cases: str, target: str) -> list[Probe]:
    """Run the file on the first case and write every tensor that an op of its graph gives.

    Raises:
        InputError: LiteRT cannot load or run the file.
    """
    with with_one_signature(ref) as one:
        graph = _Graph(one)
        feed = graph.feed(cases)
        content = one.path.read_bytes()
    interpreter = _ran(content, {graph.index[name]: array for name, array in feed.items()})
    details = {item["index"]: item for item in interpreter.get_tensor_details()}
    with TraceWriter(Path(target)) as writer:
        for name, array in feed.items():
            writer.add(Probe(name, INPUT), array)
        for probe in graph.probes():
            writer.add(probe, _value(interpreter, details[graph.index[probe.name]]))
    return writer.probes


def replay(ref: ModelRef, cases: str, given: str, outputs: str) -> None:
    """Run the first case with some tensors given instead of computed.

    Args:
        ref: the file.
        cases: feeds, as for `modelpack.adapters.tflite.run`.
        given: ``.npz`` with one case: values by tensor name, as in the trace. May be empty.
        outputs: gets one case, with the names of the signature.
    """
    with with_one_signature(ref) as one:
        _replay(_Graph(one), cases, given, outputs)


def _replay(graph: _Graph, cases: str, given: str, outputs: str) -> None:
    assert graph.ref.signature is not None
    values = graph.feed(cases) | next(iter(read_cases(Path(given))), {})
    names = {spec.name: graph.output_of(spec) for spec in graph.ref.signature.outputs}
    computed = sorted({index for index in names.values() if graph.names[index] not in values})
    found = {graph.index[name]: array for name, array in values.items()}
    if computed:
        content = graph.cut([graph.index[name] for name in values], computed, values)
        interpreter = _ran(content, found)
        details = {item["index"]: item for item in interpreter.get_tensor_details()}
        found |= {index: _value(interpreter, details[index]) for index in computed}
    write_cases(Path(outputs), [{name: found[index] for name, index in names.items()}])


def cut(ref: ModelRef, given: str, wanted: str, target: str) -> None:
    """Write the piece of the model that computes one tensor from given ones.

    Args:
        ref: the file.
        given: ``.npz`` with one case: values by tensor name, which become inputs.
        wanted: name of the tensor that becomes the output.
        target: the file to write.
    """
    values = next(iter(read_cases(Path(given))), {})
    with with_one_signature(ref) as one:
        graph = _Graph(one)
        inputs = [graph.index[name] for name in values]
        Path(target).write_bytes(graph.cut(inputs, [graph.index[wanted]], values))


@dataclass
class _Graph:
    """The graph of a file's signature, with a name of its own for each tensor."""

    ref: ModelRef

    def __post_init__(self) -> None:
        self.file = parsed(self.ref)
        if self.file.subgraph:
            raise InputError(f"the signature of '{self.ref.display}' is not its first graph")
        self.main = self.file.model.subgraphs[0]

    @cached_property
    def names(self) -> list[str]:
        """By tensor index. A file may use a name twice."""
        names: list[str] = []
        taken: set[str] = set()
        for index, tensor in enumerate(self.main.tensors):
            name = (tensor.name or b"").decode() or "tensor"
            name = f"{name}#{index}" if name in taken else name
            taken.add(name)
            names.append(name)
        return names

    @cached_property
    def index(self) -> dict[str, int]:
        """Of each tensor, by name."""
        return {name: index for index, name in enumerate(self.names)}

    def feed(self, cases: str) -> Case:
        """The first case, by names of tensors."""
        assert self.ref.signature is not None
        own = bound_names(self.ref.signature.inputs, self.file.signature.inputs)
        case = read_cases(Path(cases), self.ref.signature.inputs)[0]
        return {self.names[self.file.indices[f"in/{own[n]}"]]: array for n, array in case.items()}

    def output_of(self, spec: TensorSpec) -> int:
        """Index of the tensor behind an output of the signature."""
        assert self.ref.signature is not None
        own = bound_names(self.ref.signature.outputs, self.file.signature.outputs)
        return self.file.indices[f"out/{own[spec.name]}"]

    def probes(self) -> Iterator[Probe]:
        """What ops give, in the order in which they are run."""
        computed = {int(index) for index in self.main.inputs}
        for op, kind in zip(self.main.operators, op_names(self.file.model, 0), strict=True):
            inputs = [int(index) for index in op.inputs if int(index) in computed]
            for index in map(int, op.outputs):
                computed.add(index)
                read = tuple(self.names[item] for item in inputs)
                yield Probe(self.names[index], kind, inputs=read, of_sizes=kind == "SHAPE")

    def cut(self, given: list[int], wanted: list[int], values: Case) -> bytes:
        """The file with only the ops between, without signatures and weights of others.

        Args:
            given: the tensors that become its inputs.
            wanted: the tensors that become its outputs.
            values: of the inputs, by name; their shapes become the inputs' shapes.
        """
        from ai_edge_litert.tools import flatbuffer_utils

        content = Path(self.ref.location).read_bytes()
        model = parsed(self.ref, fresh=True).model
        main = model.subgraphs[0]
        main.operators, used = _between(main.operators, set(given), set(wanted))
        main.inputs = [index for index in given if index in used]
        main.outputs = wanted
        for index in main.inputs:
            main.tensors[index].shape = list(values[self.names[index]].shape)
            main.tensors[index].shapeSignature = None
        model.signatureDefs, model.metadata = [], []
        buffers = {main.tensors[index].buffer for index in used}
        buffers |= {item.buffer for graph in model.subgraphs[1:] for item in graph.tensors}
        for index, buffer in enumerate(model.buffers):
            if buffer.offset > 1:  # weights that lie behind the flatbuffer
                part = content[buffer.offset : buffer.offset + buffer.size]
                buffer.data = np.frombuffer(part, np.uint8)
                buffer.offset = buffer.size = 0
            if index not in buffers:
                buffer.data = None
        return bytes(flatbuffer_utils.convert_object_to_bytearray(model))


def _between(ops: Any, given: set[int], wanted: set[int]) -> tuple[list[Any], set[int]]:
    """The ops that compute the wanted tensors, and every tensor that they touch."""
    needed, kept, used = wanted - given, [], set(wanted)
    for op in reversed(ops):
        outputs = {int(index) for index in op.outputs}
        if needed & outputs:
            kept.append(op)
            inputs = {int(index) for index in op.inputs if index >= 0}
            needed |= inputs - given
            used |= inputs | outputs
    return kept[::-1], used


def _ran(content: bytes, feed: dict[int, Array]) -> Any:
    """An interpreter that ran a file once and kept every tensor; feeds go by tensor index."""
    from ai_edge_litert.interpreter import Interpreter, OpResolverType

    try:
        interpreter = Interpreter(
            model_content=content,
            num_threads=1,
            experimental_op_resolver_type=OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES,
            experimental_preserve_all_tensors=True,
        )
        inputs = {item["index"]: item for item in interpreter.get_input_details()}
        for index in inputs:
            interpreter.resize_tensor_input(index, feed[index].shape)
        interpreter.allocate_tensors()
        for index, detail in inputs.items():
            interpreter.set_tensor(index, entering(feed[index], _as_given(feed[index]), detail))
        interpreter.invoke()
    except (ValueError, RuntimeError) as error:
        raise InputError(f"LiteRT cannot run the model: {str(error).strip()}") from error
    return interpreter


def _as_given(array: Array) -> TensorSpec:
    if array.dtype.kind in "OUS":
        return TensorSpec("given", DType.STRING, None)
    return TensorSpec("given", DType(array.dtype.name), None)


def _value(interpreter: Any, detail: Any) -> Any:
    try:
        held = interpreter.get_tensor(detail["index"])
    except ValueError:  # a resource, or a branch that was not run
        return None
    scale, _ = detail["quantization"]
    real = held.dtype.kind in "iu" and scale
    return leaving(held, _as_given(held.astype(np.float32) if real else held), detail)
