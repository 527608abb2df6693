"""SavedModels from the inside: every tensor of a run, runs from the middle, and pieces of them.

The signature's function is traced anew as one graph of constants, whose tensors a session of
TensorFlow 1 takes and gives at will. Its optimizer is off, so that they are the file's own.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from modelpack.adapters.tensorflow import convertible, traced
from modelpack.adapters.tensorflow_freezing import captured, frozen
from modelpack.artifact import ModelRef
from modelpack.bisection.traces import INPUT, Probe, TraceWriter
from modelpack.errors import InputError, first_line
from modelpack.samples import Array, Case, numpy_dtype, read_cases, write_cases
from modelpack.signature import DType

# Tensors that one run keeps; a further run computes the next ones.
_AT_ONCE = 64

_NO_VALUES = {"resource", "variant"}


def trace(ref: ModelRef, cases: str, target: str) -> list[Probe]:
    """Run the function on the first case and write every tensor that an op of it gives.

    Raises:
        InputError: TensorFlow cannot run it, or it holds tables, which are no constants.
    """
    model = _Graph(ref)
    feed = model.feed(cases)
    with TraceWriter(Path(target)) as writer:
        for name, array in feed.items():
            writer.add(Probe(name, INPUT), array)
        probes = list(model.probes())
        for begin in range(0, len(probes), _AT_ONCE):
            chunk = probes[begin : begin + _AT_ONCE]
            values = model.run([probe.name for probe in chunk], feed)
            for probe in chunk:
                writer.add(probe, values[probe.name])
    return writer.probes


def replay(ref: ModelRef, cases: str, given: str, outputs: str) -> None:
    """Run the first case with some tensors given instead of computed.

    Args:
        ref: the SavedModel.
        cases: feeds, as for `modelpack.adapters.tensorflow.run`.
        given: ``.npz`` with one case: values by tensor name, as in the trace. May be empty.
        outputs: gets one case, with the names of the signature.
    """
    assert ref.signature is not None
    model = _Graph(ref)
    values = model.feed(cases) | next(iter(read_cases(Path(given))), {})
    specs = ref.signature.outputs
    found = model.run(model.outputs, values)
    answer = {
        spec.name: found[own].astype(numpy_dtype(spec.dtype))
        for spec, own in zip(specs, model.outputs, strict=True)
    }
    write_cases(Path(outputs), [answer])


def cut(ref: ModelRef, given: str, wanted: str, target: str) -> None:
    """Write the piece of the graph that computes one tensor from given ones, as a ``GraphDef``.

    Args:
        ref: the SavedModel.
        given: ``.npz`` with one case: values by tensor name, which become the placeholders
            ``given_0``, ``given_1``, ...
        wanted: name of the tensor to compute; it is called ``wanted`` there.
        target: the file to write.
    """
    import tensorflow as tf

    model = _Graph(ref)
    graph = tf.compat.v1.GraphDef()
    renamed = {}
    for number, (name, array) in enumerate(next(iter(read_cases(Path(given))), {}).items()):
        renamed[name] = f"given_{number}"
        node = graph.node.add(name=f"given_{number}", op="Placeholder")
        dtype = tf.string if array.dtype.kind in "OUS" else tf.as_dtype(array.dtype)
        node.attr["dtype"].type = dtype.as_datatype_enum
        node.attr["shape"].shape.CopyFrom(tf.TensorShape(array.shape).as_proto())
    for node in model.between(set(renamed), wanted):
        copy = graph.node.add()
        copy.CopyFrom(node)
        copy.input[:] = [renamed.get(_full(item), item) for item in _data_inputs(node)]
    last = graph.node.add(name="wanted", op="Identity", input=[wanted.removesuffix(":0")])
    last.attr["T"].type = model.dtype(wanted).as_datatype_enum
    graph.library.CopyFrom(model.definition.library)
    graph.versions.CopyFrom(model.definition.versions)
    Path(target).write_bytes(graph.SerializeToString(deterministic=True))


def _full(name: str) -> str:
    """A ``GraphDef``'s name of a tensor, with the number of the output."""
    return name if ":" in name else f"{name}:0"


def _data_inputs(node: Any) -> list[str]:
    """What a node reads; what it merely waits for changes no value."""
    return [item for item in node.input if not item.startswith("^")]


class _Graph:
    """The signature's function as one graph of constants."""

    def __init__(self, ref: ModelRef) -> None:
        import tensorflow as tf

        assert ref.signature is not None
        function, names, _ = convertible(ref)
        self._ref = ref
        made = frozen(captured(traced(function, names, ref.signature)), with_weights=True)
        self.definition, self.inputs, self.outputs = made.graph, made.inputs, made.outputs
        self._graph = tf.Graph()
        with self._graph.as_default():
            tf.import_graph_def(self.definition, name="")
        if any(op.type.startswith("HashTable") for op in self._graph.get_operations()):
            raise InputError(f"'{ref.display}' holds tables, which cannot be traced")
        rewriting = tf.compat.v1.GraphOptions()
        rewriting.rewrite_options.disable_meta_optimizer = True
        rewriting.optimizer_options.opt_level = -1
        self._session = tf.compat.v1.Session(
            graph=self._graph,
            config=tf.compat.v1.ConfigProto(
                graph_options=rewriting,
                intra_op_parallelism_threads=1,
                inter_op_parallelism_threads=1,
            ),
        )

    def feed(self, cases: str) -> Case:
        """The first case, by names of tensors."""
        assert self._ref.signature is not None
        specs = self._ref.signature.inputs
        case = read_cases(Path(cases), specs)[0]
        return {own: case[spec.name] for spec, own in zip(specs, self.inputs, strict=True)}

    def run(self, wanted: list[str], feed: Case) -> dict[str, Array]:
        """Compute tensors from given ones."""
        import tensorflow as tf

        try:
            values = self._session.run(wanted, feed)
        except tf.errors.OpError as error:
            raise InputError(f"TensorFlow cannot run the model: {first_line(error)}") from None
        return dict(zip(wanted, values, strict=True))

    def dtype(self, name: str) -> Any:
        """The TensorFlow dtype of a tensor."""
        return self._graph.get_tensor_by_name(name).dtype

    def probes(self) -> Iterator[Probe]:
        """What ops give, in topological order, but for constants and inputs."""
        constants: set[str] = set()
        for op in self._graph.get_operations():  # in the order of creation, inputs first
            if op.type in {"Const", "NoOp", "Placeholder"}:
                constants.update(item.name for item in op.outputs if op.type == "Const")
                continue
            inputs = tuple(item.name for item in op.inputs if item.name not in constants)
            if op.type in {"Identity", "IdentityN"} and not inputs:
                constants.update(item.name for item in op.outputs)
                continue
            for item in op.outputs:
                if item.dtype.name not in _NO_VALUES and _exchangeable(item.dtype.name):
                    yield Probe(item.name, op.type, op.name, inputs, op.type in _SIZES)

    def between(self, given: set[str], wanted: str) -> list[Any]:
        """The nodes that compute a tensor from given ones, in the order of the graph."""
        nodes = {node.name: node for node in self.definition.node}
        pending, needed = [wanted], set()
        while pending:
            name = pending.pop()
            owner = name.partition(":")[0]
            if name in given or owner in needed:
                continue
            needed.add(owner)
            pending += [_full(item) for item in _data_inputs(nodes[owner])]
        return [node for node in self.definition.node if node.name in needed]


_SIZES = {"Shape", "ShapeN", "Size", "Rank"}


def _exchangeable(dtype: str) -> bool:
    return dtype in {item.value for item in DType}
