"""TensorFlow functions as one graph, with variables as constants or as inputs.

Converters copy a graph many times: one with its weights inside takes fifty times their memory.
So weights that a graph merely reads become inputs, and their values are fetched when the
converted model is written (`Frozen.weights`).
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from modelpack.adapters.tensorflow_changes import drop_unread_changes, writer
from modelpack.errors import ConversionError, first_line

Reader: TypeAlias = Callable[[], npt.NDArray[Any]]
Table: TypeAlias = tuple[npt.NDArray[Any], npt.NDArray[Any]]

_LOOKUPS = {"LookupTableFindV2"}

# Variables of fewer elements are constants: optimizers fold norms and biases into others.
_SMALLEST = 1024

# protobuf refuses to write more, and TensorFlow takes graphs as written.
_MOST_CONSTANTS = 2_000_000_000

# Ops that converters write just as well when a weight is no constant.
_TAKES_WEIGHTS = {
    *("Conv2D", "Conv3D", "DepthwiseConv2dNative", "Conv2DBackpropInput"),
    *("Conv3DBackpropInputV2", "MatMul", "BatchMatMul", "BatchMatMulV2", "BatchMatMulV3"),
    *("Einsum", "GatherV2", "Cast"),
}


@dataclass(frozen=True)
class Frozen:
    """A graph without variables.

    Attributes:
        graph: the ``GraphDef``.
        inputs: names of the tensors that enter it, weights left out.
        outputs: names of the tensors that leave it.
        weights: what gives the value of each further input, by the name of its tensor.
        tables: keys and values of each lookup table, by the ``shared_name`` of its node.
    """

    graph: Any
    inputs: list[str]
    outputs: list[str]
    weights: Mapping[str, Reader] = field(default_factory=dict)
    tables: Mapping[str, Table] = field(default_factory=dict)


@dataclass(frozen=True)
class Unfrozen:
    """A graph with variables.

    Attributes:
        graph: the ``GraphDef``.
        inputs: names of the tensors that are fed.
        outputs: names of the tensors that are fetched.
        variables: each by the name of the node that stands for it, in order; it has a ``shape``
            and a ``dtype`` of TensorFlow's and gives its value by ``numpy()``.
        captures: eager tensors by the names of their placeholders, variables among them.
    """

    graph: Any
    inputs: list[str]
    outputs: list[str]
    variables: Mapping[str, Any]
    captures: Mapping[str, Any] = field(default_factory=dict)


def captured(function: Any) -> Unfrozen:
    """The graph of a ``tf.function`` with an input signature."""
    concrete = function.get_concrete_function()
    given = len(concrete.inputs) - len(concrete.captured_inputs)
    return Unfrozen(
        concrete.graph.as_graph_def(),
        [tensor.name for tensor in concrete.inputs[:given]],
        [tensor.name for tensor in concrete.outputs],
        _variables(concrete),
        {inner.op.name: outer for outer, inner in concrete.graph.captures},
    )


def frozen(unfrozen: Unfrozen, *, with_weights: bool) -> Frozen:
    """Inline the functions that a graph calls and replace its variables.

    TensorFlow leaves captured eager tensors (the statistics of a Normalization layer)
    behind as placeholders; as inputs they would have to be fed. They become constants.

    Args:
        unfrozen: the graph.
        with_weights: make every variable a constant, not an input.

    Raises:
        ConversionError: the constants are more than a graph can hold, or the graph changes a
            variable.
    """
    variables = unfrozen.variables
    kept = set() if with_weights else {name for name in variables if _is_large(variables[name])}
    inlined = _inlined(unfrozen)
    drop_unread_changes(inlined, _ends(unfrozen))
    kept = _merely_read(inlined, kept)
    constants = {name: variables[name] for name in variables if name not in kept}
    _check_size(constants.values())
    graph = _with_constants(inlined, constants)
    for node in graph.node:
        node.attr.pop("_class", None)  # beside which others to place it, that may be gone
    _fill_captures(graph, unfrozen.captures)
    handles = {name: unfrozen.captures[name] for name in unfrozen.captures if name not in variables}
    tables = _name_tables(graph, handles)
    names = {name: f"weight_{rank}" for rank, name in enumerate(n for n in variables if n in kept)}
    users = _users(graph)
    placeholders = {node.name: node for node in graph.node if node.name in names}
    for name, placeholder in placeholders.items():
        _make_input(graph, placeholder, variables[name], users)
    rename(graph, names)
    return Frozen(
        graph,
        unfrozen.inputs,
        unfrozen.outputs,
        {f"{new}:0": variables[old].numpy for old, new in names.items()},
        tables,
    )


def _ends(unfrozen: Unfrozen) -> list[str]:
    """Names of the nodes whose outputs are fetched."""
    return [name.partition(":")[0] for name in unfrozen.outputs]


def _inlined(unfrozen: Unfrozen) -> Any:
    """The graph with what its functions compute in the place of calls; loops stay functions."""
    from tensorflow.core.protobuf import config_pb2, meta_graph_pb2, rewriter_config_pb2
    from tensorflow.python.framework import convert_to_constants
    from tensorflow.python.grappler import tf_optimizer

    meta = meta_graph_pb2.MetaGraphDef()
    meta.graph_def.CopyFrom(convert_to_constants.disable_lower_using_switch_merge(unfrozen.graph))
    for function in meta.graph_def.library.function:
        function.attr.pop("api_implements", None)  # which keeps it from being inlined
    ends = [*unfrozen.inputs, *unfrozen.captures, *unfrozen.outputs]
    meta.collection_def["train_op"].node_list.value.extend(ends)  # as the optimizer calls them
    config = config_pb2.ConfigProto()
    options = config.graph_options.rewrite_options
    options.min_graph_nodes = -1  # however small it is
    options.optimizers.append("function")
    options.function_optimization = rewriter_config_pb2.RewriterConfig.AGGRESSIVE
    return tf_optimizer.OptimizeGraph(config, meta)


def _with_constants(graph: Any, variables: Mapping[str, Any]) -> Any:
    """The graph with the values of these variables.

    Raises:
        ConversionError: an op reads one in a way of its own.
    """
    from tensorflow.python.framework import convert_to_constants

    data = convert_to_constants._ConverterData(graph)
    for name, variable in variables.items():
        if name in data.node_defs:
            data.tensor_data[name] = convert_to_constants._TensorData(
                variable.numpy(), variable.dtype.as_datatype_enum, None
            )
    try:
        return convert_to_constants._replace_variables_by_constants(data)[0]
    except ValueError as error:
        raise ConversionError(f"TensorFlow cannot freeze the model: {first_line(error)}") from error


def refuse_changes(function: Any) -> None:
    """Refuse a ``tf.function`` whose answers depend on variables that it changes.

    Raises:
        ConversionError: they do.
    """
    unfrozen = captured(function)
    functions = {item.signature.name: item.node_def for item in unfrozen.graph.library.function}
    if any(writer(node, functions) for node in unfrozen.graph.node):
        drop_unread_changes(_inlined(unfrozen), _ends(unfrozen))


def rename(graph: Any, names: Mapping[str, str]) -> None:
    """Rename nodes of a ``GraphDef``, where they are read too."""
    for node in graph.node:
        node.name = names.get(node.name, node.name)
        for index, item in enumerate(node.input):
            base, colon, port = item.removeprefix("^").partition(":")
            if base in names:
                node.input[index] = ("^" if item[0] == "^" else "") + names[base] + colon + port


def _variables(concrete: Any) -> dict[str, Any]:
    """The variables that a function captures, by the name of the placeholder, in order."""
    known = {id(variable.handle): variable for variable in concrete.graph.variables}
    return {
        inner.op.name: known[id(outer)]
        for outer, inner in concrete.graph.captures
        if id(outer) in known
    }


def _is_large(variable: Any) -> bool:
    # Vectors are biases and norms, which are small beside what they belong to. Texts are no
    # rows of bytes, which is how weights are bound; and what is computed with whole numbers,
    # converters do not always write as TensorFlow does it.
    is_matrix = variable.shape.rank > 1 and variable.dtype.is_floating
    return is_matrix and variable.shape.num_elements() >= _SMALLEST


def _check_size(variables: Iterable[Any]) -> None:
    size = sum(math.prod(variable.shape) * variable.dtype.size for variable in variables)
    if size > _MOST_CONSTANTS:
        raise ConversionError(
            f"{size / 1e9:.1f} GB of the model's weights are read in loops or branches; they "
            "become constants of the graph, which can hold 2 GB"
        )


def _fill_captures(graph: Any, captures: Mapping[str, Any]) -> None:
    for node in graph.node:
        tensor = captures.get(node.name) if node.op == "Placeholder" else None
        if tensor is not None and tensor.dtype.name not in {"resource", "variant"}:
            _make_constant(node, tensor)


def _name_tables(graph: Any, handles: Mapping[str, Any]) -> dict[str, Table]:
    """Turn the placeholders of captured lookup tables into nodes with a name; what tables hold."""
    import tensorflow as tf

    users = _users(graph)
    found: dict[str, Table] = {}
    for node in graph.node:
        if node.op != "Placeholder" or node.name not in handles:
            continue
        lookups = [user for user in _beyond_identity(node.name, users) if user.op in _LOOKUPS]
        if not lookups:
            continue
        keys, values = lookups[0].attr["Tin"].type, lookups[0].attr["Tout"].type
        held = tf.raw_ops.LookupTableExportV2(
            table_handle=handles[node.name], Tkeys=keys, Tvalues=values
        )
        name = f"table_{len(found)}"
        order = np.argsort(held.keys.numpy())  # of tables, it differs between processes
        found[name] = (held.keys.numpy()[order], held.values.numpy()[order])
        node.op = "HashTableV2"
        node.attr.clear()
        node.attr["shared_name"].s = name.encode()
        node.attr["key_dtype"].type = keys
        node.attr["value_dtype"].type = values
    return found


def _beyond_identity(name: str, users: Mapping[str, list[Any]]) -> Iterator[Any]:
    """Who reads a tensor, by way of identities too."""
    for user in users[name]:
        yield user
        if user.op == "Identity":
            yield from _beyond_identity(user.name, users)


def _make_constant(node: Any, tensor: Any) -> None:
    import tensorflow as tf

    value = tf.make_tensor_proto(tensor)
    node.op = "Const"
    node.attr.clear()
    node.attr["dtype"].type = value.dtype
    node.attr["value"].tensor.CopyFrom(value)


# --- weights as inputs ---------------------------------------------------------------------


def _merely_read(graph: Any, names: set[str]) -> set[str]:
    """Those variables whose values go into ops that do not need to know them."""
    users = _users(graph)
    return {name for name in names if all(_is_fit(node, users) for node in users[name])}


def _users(graph: Any) -> Mapping[str, list[Any]]:
    users: dict[str, list[Any]] = defaultdict(list)
    for node in graph.node:
        for item in node.input:
            if not item.startswith("^"):  # who merely waits is no user
                users[item.partition(":")[0]].append(node)
    return users


def _is_fit(reader: Any, users: Mapping[str, list[Any]]) -> bool:
    if reader.op in {"Identity", "ReadVariableOp"}:
        return all(_is_fit(node, users) for node in users[reader.name])
    if reader.op == "ResourceGather":
        return reader.attr["batch_dims"].i == 0
    return reader.op in _TAKES_WEIGHTS


def _make_input(
    graph: Any, placeholder: Any, variable: Any, users: Mapping[str, list[Any]]
) -> None:
    """Turn the placeholder of a variable into one of its value, and its readers with it."""
    dtype = variable.dtype.as_datatype_enum
    placeholder.op = "Placeholder"
    placeholder.attr.clear()
    placeholder.attr["dtype"].type = dtype
    placeholder.attr["shape"].shape.CopyFrom(variable.shape.as_proto())
    pending = list(users[placeholder.name])
    while pending:
        node = pending.pop()
        if node.op == "ResourceGather":
            _make_gather(graph, node, dtype)
        elif node.op in {"Identity", "ReadVariableOp"}:
            node.op = "Identity"
            node.attr.clear()
            node.attr["T"].type = dtype
            pending += users[node.name]


def _make_gather(graph: Any, node: Any, dtype: int) -> None:
    import tensorflow as tf

    axis = graph.node.add(name=f"{node.name}/axis")
    _make_constant(axis, np.int32(0))
    indices = node.attr["Tindices"].type
    node.op = "GatherV2"
    node.attr.clear()
    node.attr["Tparams"].type = dtype
    node.attr["Tindices"].type = indices
    node.attr["Taxis"].type = tf.int32.as_datatype_enum
    node.input.append(axis.name)
