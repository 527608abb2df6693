"""Puts the configuration of a model that Keras 2 saved into the terms of Keras 3.

Keras 3 reads some of them itself, and refuses most, since arguments of layers are gone. What
Keras 3 has under the same name but computes otherwise, it would read without a word.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeAlias

from modelpack.errors import ConversionError

TENSOR = "__tensor_number__"
"""Key that stands for a tensor among the arguments of a `keras_legacy_ops.TFOpLambda`."""

_TENSOR = "__keras_tensor__"

Config: TypeAlias = dict[str, Any]

PACKAGE = "modelpack"
"""Under which the classes and functions of `keras_legacy_ops` are registered."""

# Arguments that layers of Keras 3 do not take, with the values at which they do nothing; None
# where any value does nothing to what a model answers, or is found out when the layer is built.
_GONE: Mapping[str, tuple[Any, ...] | None] = {
    "batch_input_shape": None,
    "input_length": None,
    "key_shape": None,
    "query_shape": None,
    "rng_type": None,
    "softmax_robust_masking": (False,),
    "time_major": (False,),
    "value_shape": None,
}

# Layers of one group only in Keras 2 too, where they inherit the argument.
_UNGROUPED = {
    *("DepthwiseConv1D", "DepthwiseConv2D", "SeparableConv1D", "SeparableConv2D"),
    *("Conv1DTranspose", "Conv2DTranspose", "Conv3DTranspose"),
}

# Layers that inherit arguments of a kernel in Keras 2, and have others by other names.
_KERNELS_OF_THEIR_OWN = {name for name in _UNGROUPED if not name.endswith("Transpose")}

_NETWORKS = {"Functional", "Model", "Sequential"}
_RECURRENT = {"LSTM", "GRU", "SimpleRNN", "RNN", "ConvLSTM1D", "ConvLSTM2D", "ConvLSTM3D"}
_OPS = {"TFOpLambda", "SlicingOpLambda"}

_HARD_SIGMOID = {
    "module": None,
    "class_name": "function",
    "config": f"{PACKAGE}>hard_sigmoid",
    "registered_name": f"{PACKAGE}>hard_sigmoid",
}

# TensorFlow's functions that a model may call by name. Others read files, or run code.
_MODULES = {"math", "nn", "linalg", "__operators__"}
_FUNCTIONS = {
    *("abs", "add", "argmax", "argmin", "cast", "clip_by_value", "concat", "cos", "cumsum"),
    *("div", "divide", "equal", "exp", "expand_dims", "eye", "fill", "floor"),
    *("floor_div", "floormod", "gather", "gather_nd", "greater", "greater_equal", "identity"),
    *("less", "less_equal", "logical_and", "logical_not", "logical_or", "matmul", "maximum"),
    *("minimum", "mod", "multiply", "negative", "norm", "not_equal", "one_hot", "ones"),
    *("ones_like", "pad", "pow", "range", "rank", "realdiv", "reduce_all", "reduce_any"),
    *("reduce_max", "reduce_mean", "reduce_min", "reduce_prod", "reduce_sum", "repeat"),
    *("reshape", "reverse", "roll", "round", "shape", "sigmoid", "sign", "sin", "slice"),
    *("split", "sqrt", "square", "squeeze", "stack", "stop_gradient", "strided_slice"),
    *("subtract", "tan", "tanh", "tensordot", "tile", "transpose", "truediv", "unstack"),
    *("where", "zeros", "zeros_like"),
    *("image.resize", "image.rgb_to_grayscale", "image.flip_left_right"),
}

# What stands in a node for a first argument that is no tensor.
_CONSTANT = "_CONSTANT_VALUE"


def is_legacy(version: str) -> bool:
    """Whether a file of this Keras version is in the terms of Keras 2."""
    return version.partition(".")[0] in {"1", "2"}


def is_own(registered: str) -> bool:
    """Whether a registered name is that of a class or function of `keras_legacy_ops`."""
    return registered in {
        f"{PACKAGE}>{name}" for name in (*_OPS, "ThresholdedReLU", "hard_sigmoid")
    }


def modern(config: Config) -> Config:
    """A serialized model, layer or function in the terms of Keras 3.

    Raises:
        ConversionError: it says something that Keras 3 cannot do.
    """
    result = _modern(config)
    assert isinstance(result, dict)
    return result


def _modern(node: Any) -> Any:
    if isinstance(node, list):
        return [_modern(item) for item in node]
    if not isinstance(node, dict):
        return node
    node = {key: _modern(item) for key, item in node.items()}
    if "class_name" not in node or not isinstance(node.get("config"), dict | list):
        return node
    if node["class_name"] in _NETWORKS:
        return _network(node)
    return _layer(node)


# --- layers --------------------------------------------------------------------------------


def _layer(node: Config) -> Config:
    config = node["config"]
    if not isinstance(config, dict):
        return node
    name, where = node["class_name"], config.get("name", "")
    config = {key: _initializer(key, item) for key, item in config.items()}
    if name == "InputLayer" and "batch_input_shape" in config:
        config["batch_shape"] = config.pop("batch_input_shape")
    if name in _UNGROUPED and config.pop("groups", 1) != 1:
        raise ConversionError(f"layer '{where}' is a {name} of several groups")
    if name in _KERNELS_OF_THEIR_OWN:
        for part in ("initializer", "regularizer", "constraint"):
            config.pop(f"kernel_{part}", None)
    for key, harmless in _GONE.items():
        value = config.pop(key, None)
        if value is not None and harmless is not None and value not in harmless:
            raise ConversionError(
                f"layer '{where}' ({name}) was saved by Keras 2 with {key}={value}, "
                "which Keras 3 does not know"
            )
    _one_axis(name, config)
    config["dtype"] = _policy(config.get("dtype"))
    for key, value in config.items():
        if key.endswith("activation") and value == "hard_sigmoid":
            config[key] = _HARD_SIGMOID
    if config["dtype"] is None:
        del config["dtype"]
    node = {**node, "config": config}
    if str(node.get("module", "")).startswith("tf_keras.src."):
        node["module"] = node["module"].removeprefix("tf_")
        node["registered_name"] = None
    if name in _OPS:
        _demand_known(config["function"])
    return _registered(node, name) if name in {*_OPS, "ThresholdedReLU"} else node


def _initializer(key: str, item: Any) -> Any:
    """An argument of a layer; initializers had a dtype in early versions."""
    if key.endswith("_initializer") and isinstance(item, dict) and "config" in item:
        inner = {name: value for name, value in item["config"].items() if name != "dtype"}
        return {**item, "config": inner}
    return item


def _one_axis(name: str, config: Config) -> None:
    """Keras 2 writes the axis of a batch norm as a list of one."""
    axis = config.get("axis")
    if name.startswith("BatchNormalization") and isinstance(axis, list) and len(axis) == 1:
        config["axis"] = axis[0]


def _policy(dtype: Any) -> Any:
    """The name of a dtype policy, which Keras 2 writes as an object of its own."""
    if isinstance(dtype, dict) and str(dtype.get("class_name", "")).startswith("Policy"):
        return dtype["config"]["name"]
    return dtype


def _registered(node: Config, name: str) -> Config:
    full = f"{PACKAGE}>{name}"
    if "module" in node:
        return {**node, "module": None, "registered_name": full}
    return {**node, "class_name": full}


def _demand_known(function: str) -> None:
    name = function.removeprefix("compat.v1.")
    if name.rpartition(".")[0] not in _MODULES and name not in _FUNCTIONS:
        raise ConversionError(
            f"the model calls TensorFlow's function '{function}', which is not supported here",
            hint="load it with the Keras that saved it, and save a SavedModel",
        )


# --- networks ------------------------------------------------------------------------------


def _network(node: Config) -> Config:
    config, name = node["config"], node["class_name"]
    if isinstance(config, list):  # Sequential before Keras 2.2.3
        config = {"name": "sequential", "layers": config}
    if name == "Sequential" and "layers" in config:
        layers = [_plainly_named(layer) for layer in config["layers"]]
        return {**node, "config": {**config, "layers": layers}}
    if "layers" not in config:
        return node
    nested = {layer["name"]: layer["class_name"] for layer in config["layers"]}
    first = _first_nodes(config, nested)
    layers = [_called(layer, first) for layer in config["layers"]]
    # Keras 3 counts the outputs of nested functional models from 1, all others from 0.
    shifts = {key: 0 if nested[key] == "Functional" else shift for key, shift in first.items()}
    outputs = _shifted(config["output_layers"], shifts)
    node = {**node, "class_name": "Functional"}
    if "module" in node:
        node |= {"module": "keras.src.models.functional", "registered_name": "Functional"}
    return {**node, "config": {**config, "layers": layers, "output_layers": outputs}}


def _plainly_named(layer: Config) -> Config:
    config = layer["config"]
    return {**layer, "config": {**config, "name": plain_name(config.get("name", ""))}}


def _called(layer: Config, first: Mapping[str, int]) -> Config:
    """A layer of a network, with the calls of it; they tell of what shape it is built."""
    config = {**layer["config"], "name": plain_name(layer["name"])}
    nodes = [_node(item, layer, first) for item in layer["inbound_nodes"]]
    if _is_op(layer):
        config["arguments"], nodes = _apart(nodes, layer["name"])
    made = {**layer, "name": config["name"], "config": config, "inbound_nodes": nodes}
    made.pop("build_config", None)
    return made


def plain_name(name: str) -> str:
    """A name that Keras 3 takes: without slashes."""
    return name.replace("/", "_")


def _first_nodes(config: Config, nested: Mapping[str, str]) -> dict[str, int]:
    """By name of a nested model, the number of its first call within this one.

    Keras 2 counts what a model was built of as call 0, if that began with an Input.
    """
    found: dict[str, int] = {}
    graph = [config["output_layers"], [layer["inbound_nodes"] for layer in config["layers"]]]
    pending: list[Any] = list(graph)
    while pending:
        item = pending.pop()
        if _is_tensor(item):
            name = item[0]
            if nested.get(name) in _NETWORKS:
                found[name] = min(item[1], found.get(name, item[1]))
            pending += item[3:]
        elif isinstance(item, list):
            pending += item
        elif isinstance(item, dict):
            pending += item.values()
    return found


def _is_tensor(item: Any) -> bool:
    """Whether this is [layer, call, output], or that with arguments of the call."""
    return (
        isinstance(item, list)
        and len(item) in {3, 4}
        and isinstance(item[0], str)
        and isinstance(item[1], int)
        and (isinstance(item[2], int) or item[0] == _CONSTANT)
        and (len(item) == 3 or isinstance(item[3], dict))
    )


def _shifted(item: Any, shifts: Mapping[str, int]) -> Any:
    if _is_tensor(item):
        return [plain_name(item[0]), item[1] - shifts.get(item[0], 0), *item[2:]]
    if isinstance(item, dict):
        return {key: _shifted(value, shifts) for key, value in item.items()}
    return [_shifted(value, shifts) for value in item]


def _node(node: Any, layer: Config, shifts: Mapping[str, int]) -> Config:
    """One call of a layer, as Keras 3 writes it: positional arguments and keywords."""
    if isinstance(node, dict) and set(node) == {"args", "kwargs"}:
        return node
    keywords: Config = {}

    def value(item: Any) -> Any:
        if _is_tensor(item):
            if len(item) == 4:
                keywords.update(item[3])
            return _tensor(item, shifts)
        if isinstance(item, dict):
            return {key: value(inner) for key, inner in item.items()}
        return [value(inner) for inner in item] if isinstance(item, list) else item

    inputs = value(node)
    if not _is_op(layer) and isinstance(inputs, list) and len(inputs) == 1:
        inputs = inputs[0]
    given = {key: value(item) for key, item in keywords.items()}
    if isinstance(inputs, list) and layer["class_name"] in _RECURRENT | {"Bidirectional"}:
        inputs, given["initial_state"] = inputs[0], inputs[1:]
    return {"args": [inputs], "kwargs": given}


def _is_op(layer: Config) -> bool:
    return layer["class_name"].rpartition(">")[2] in _OPS


def _apart(nodes: list[Config], where: str) -> tuple[Config, list[Config]]:
    """Arguments of an operation with numbers for tensors, and its calls with these alone."""
    templates, calls = [], []
    for node in nodes:
        tensors: list[Config] = []
        templates.append(_template(node, tensors))
        calls.append({"args": [tensors], "kwargs": {}})
    if any(template != templates[0] for template in templates):
        raise ConversionError(f"layer '{where}' is called in several ways")
    return templates[0], calls


def _template(item: Any, tensors: list[Config]) -> Any:
    if isinstance(item, list):
        return [_template(inner, tensors) for inner in item]
    if not isinstance(item, dict):
        return item
    if item.get("class_name") == _TENSOR:
        tensors.append(item)
        return {TENSOR: len(tensors) - 1}
    return {key: _template(inner, tensors) for key, inner in item.items()}


def _tensor(item: list[Any], shifts: Mapping[str, int]) -> Any:
    name, call, output = item[:3]
    if name == _CONSTANT:
        return output
    history = [plain_name(name), call - shifts.get(name, 0), output]
    # Keras takes no more of it than its history.
    stands_for = {"shape": [], "dtype": "float32", "keras_history": history}
    return {"class_name": _TENSOR, "config": stands_for}
