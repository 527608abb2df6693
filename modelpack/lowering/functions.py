"""Functions of other ops, by ONNX or by the model: their bodies in the place of the nodes.

ONNX's own inliner knows the bodies of ONNX's functions too, but not for a node with an omitted
input, nor for one inside a subgraph. So each body is looked up here, and given to it as a
function of the model.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping

import onnx
import onnx.defs
import onnx.inliner
import onnx.shape_inference

from modelpack.errors import UnsupportedOpsError
from modelpack.lowering import registry
from modelpack.lowering.graph import bodies

# Functions may be made of functions, but not for ever.
_DEEPEST_INLINING = 16
# Initializers of more elements than this are no shapes, so inference needs not read them.
_LARGEST_SHAPE = 64
_DOMAIN = "modelpack.functions"

Nodes = Iterable[onnx.NodeProto]


def own_inlined(model: onnx.ModelProto) -> onnx.ModelProto:
    """Put the bodies of a model's own functions in the place of their calls.

    A function may be written for another opset than the model. ONNX's inliner leaves those
    alone, or else converts them, which changes what some ops do.

    Args:
        model: is changed.

    Raises:
        UnsupportedOpsError: an op of a function means something else in the model's opset.
    """
    if not model.functions:
        return model
    opsets = {entry.domain: entry.version for entry in model.opset_import}
    different = sorted(
        f"{function.domain}::{function.name}: {', '.join(ops)}"
        for function in model.functions
        if (ops := _in_opsets(function, opsets))
    )
    if different:
        raise UnsupportedOpsError(
            "these functions of the model hold ops which mean something else in the opset of "
            "the model:\n  " + "\n  ".join(different),
            hint="write the functions for the opset of the model",
        )
    return onnx.inliner.inline_local_functions(model)


def _in_opsets(function: onnx.FunctionProto, opsets: Mapping[str, int]) -> list[str]:
    """Give a function the model's opsets; return the ops that this would change."""
    own = {entry.domain: entry.version for entry in function.opset_import}
    changed = {
        node.op_type
        for node in _with_inner(function.node)
        if (before := own.get(node.domain)) is not None
        and (after := opsets.get(node.domain)) is not None
        and _meaning(node, before) != _meaning(node, after)
    }
    for entry in function.opset_import:
        entry.version = opsets.get(entry.domain, entry.version)
    return sorted(changed)


def _meaning(node: onnx.NodeProto, opset: int) -> object:
    """What lowers a node of an opset, which may be the same for several versions of the op."""
    lowering = registry.lookup(node.domain, node.op_type, opset)
    return lowering.function if lowering else registry.key_of(node.domain, node.op_type, opset)


def _with_inner(nodes: Nodes) -> Iterator[onnx.NodeProto]:
    for node in nodes:
        yield node
        for body in bodies(node):
            yield from _with_inner(body.node)


def inlined(
    model: onnx.ModelProto,
    initializers: Iterable[onnx.TensorProto],
    wanted: Callable[[onnx.ModelProto], Nodes],
) -> onnx.ModelProto:
    """Put the bodies that ONNX defines in the place of nodes, and of nodes of those bodies.

    Args:
        model: without its initializers; is changed.
        initializers: those, for the types of what is computed from them.
        wanted: nodes of a model to be replaced; those without a body stay.
    """
    initializers = list(initializers)
    for _ in range(_DEEPEST_INLINING):
        nodes = list(wanted(model))
        if not nodes or not _as_local_functions(model, nodes, _types(model, initializers)):
            break
        model = onnx.inliner.inline_local_functions(model)
    return model


def _as_local_functions(
    model: onnx.ModelProto, nodes: Nodes, types: Mapping[str, onnx.TypeProto]
) -> int:
    """Make calls of functions of the model of nodes; return how many."""
    opsets = {entry.domain: entry.version for entry in model.opset_import}
    count = 0
    for node in nodes:
        body = _body(node, opsets, types)
        if body is None:
            continue
        body.name, body.domain = f"{node.op_type}_{count}", _DOMAIN
        node.op_type, node.domain = body.name, _DOMAIN
        model.functions.append(body)
        count += 1
    if count and _DOMAIN not in opsets:
        model.opset_import.append(onnx.helper.make_opsetid(_DOMAIN, 1))
    return count


def _body(
    node: onnx.NodeProto, opsets: Mapping[str, int], types: Mapping[str, onnx.TypeProto]
) -> onnx.FunctionProto | None:
    """The function that a node means, with the opsets of the model; None if ONNX has none.

    A body written for an earlier opset means the same in a later one, or ONNX has another.
    """
    own = max(opsets.get("", 0), opsets.get("ai.onnx", 0))
    domain = "" if node.domain == "ai.onnx" else node.domain
    version = opsets.get(domain, 1) if domain else own
    try:
        schema = onnx.defs.get_schema(node.op_type, version, domain)
    except onnx.defs.SchemaError:
        return None
    if schema.has_context_dependent_function:
        kinds = [types.get(name, onnx.TypeProto()).SerializeToString() for name in node.input]
        since = _latest(schema.context_dependent_function_opset_versions, version)
        found = schema.get_context_dependent_function_with_opset_version(
            since, node.SerializeToString(), kinds
        )
        body = onnx.FunctionProto.FromString(found)
    elif schema.has_function:
        body = onnx.FunctionProto.FromString(
            schema.get_function_with_opset_version(
                _latest(schema.function_opset_versions, version)
            ).SerializeToString()
        )
    else:
        return None
    if not body.node:
        return None  # the builder needs to know more than there is to know, sizes for example
    for entry in body.opset_import:
        if not entry.domain:
            if entry.version > own:
                return None
            entry.version = own
    _fill_defaults(node, schema)
    return body


def _latest(versions: Iterable[int], version: int) -> int:
    return max((found for found in versions if found <= version), default=version)


def _fill_defaults(node: onnx.NodeProto, schema: onnx.defs.OpSchema) -> None:
    given = {item.name for item in node.attribute}
    node.attribute.extend(
        item.default_value
        for name, item in schema.attributes.items()
        if name not in given and item.default_value.name
    )


def _types(
    model: onnx.ModelProto, initializers: Iterable[onnx.TensorProto]
) -> dict[str, onnx.TypeProto]:
    """Types by name, as far as ONNX infers them."""
    light = onnx.ModelProto()
    light.CopyFrom(model)
    for tensor in initializers:
        if len(tensor.dims) < 2 and sum(tensor.dims) <= _LARGEST_SHAPE and not tensor.external_data:
            light.graph.initializer.append(tensor)
        else:
            light.graph.value_info.append(
                onnx.helper.make_tensor_value_info(tensor.name, tensor.data_type, tensor.dims)
            )
    inferred = onnx.shape_inference.infer_shapes(light, data_prop=True)
    types = {tensor.name: _type_of(tensor) for tensor in initializers}
    _collect(inferred.graph, types)
    return types


def _type_of(tensor: onnx.TensorProto) -> onnx.TypeProto:
    return onnx.helper.make_tensor_type_proto(tensor.data_type, tensor.dims)


def _collect(graph: onnx.GraphProto, types: dict[str, onnx.TypeProto]) -> None:
    for info in [*graph.input, *graph.value_info, *graph.output]:
        if info.type.WhichOneof("value"):
            types[info.name] = info.type
    for node in graph.node:
        for item in node.attribute:
            for body in [item.g, *item.graphs]:
                _collect(body, types)
