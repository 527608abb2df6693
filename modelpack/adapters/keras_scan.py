"""Reads Keras model files without Keras: what they hold, and what loading them would run."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from modelpack import reference
from modelpack.adapters import keras_legacy
from modelpack.artifact import Encoding, ModelRef
from modelpack.errors import InputError

# Modules whose functions only compute; others of Keras can read files or fetch from the net.
_FUNCTION_MODULES = (
    "keras.activations",
    "keras.constraints",
    "keras.initializers",
    "keras.losses",
    "keras.metrics",
    "keras.ops",
    "keras.random",
    "keras.regularizers",
)

# Keras layers that load something else: a pickle, a program, another model.
_LOADERS = {
    "TorchModuleWrapper": "unpickles a PyTorch module",
    "TFSMLayer": "loads a SavedModel from another path",
    "JaxLayer": "calls a function of the user's",
    "FlaxLayer": "calls a Flax module",
}

# Class names in a configuration that stand for plain values, not for classes to import.
_PLAIN = {
    "__tuple__",
    "__keras_tensor__",
    "__tensor__",
    "__numpy__",
    "__bytes__",
    "__ellipsis__",
    "__slice__",
    "__typespec__",
}


def config(ref: ModelRef) -> Any:
    """The model's configuration, in the terms of Keras 3.

    Raises:
        InputError: the file is damaged, or holds weights only.
        ConversionError: Keras 2 saved it with something that Keras 3 does not know.
    """
    found = _config(ref)
    return keras_legacy.modern(found) if keras_legacy.is_legacy(version(ref)) else found


def version(ref: ModelRef) -> str:
    """The version of the Keras that wrote the file; empty when it does not say."""
    if ref.encoding is Encoding.KERAS_ZIP:
        return str(_json_member(ref, "metadata.json").get("keras_version", ""))
    with _h5py().File(ref.location, "r") as file:
        return _text(file.attrs.get("keras_version", ""))


def producer(ref: ModelRef) -> str:
    """What wrote the file, such as ``keras 3.15.1``; empty when it does not say."""
    found = version(ref)
    return f"keras {found}" if found else ""


def findings(ref: ModelRef) -> list[str]:
    """Sentences about all that can run code or import modules when the file is loaded.

    Raises:
        InputError: the file is damaged, or holds weights only.
    """
    return list(dict.fromkeys(_walk(config(ref), "the model", _Known(ref))))


class _Known:
    """Custom classes and functions that the user says are theirs.

    Args:
        ref: its imports are imported, since that is what registers names.
    """

    def __init__(self, ref: ModelRef) -> None:
        reference.import_modules(ref)
        self._modules = {Path(name).stem if name.endswith(".py") else name for name in ref.imports}

    def has(self, node: dict[str, Any]) -> bool:
        """Whether a node of the configuration is of an imported module, or registered by one."""
        if not self._modules:
            return False
        import keras

        module, name = node.get("module"), node.get("registered_name")
        if isinstance(module, str) and module in self._modules:
            return True
        return isinstance(name, str) and keras.saving.get_registered_object(name) is not None


def _walk(node: Any, layer: str, known: _Known) -> Iterator[str]:
    if isinstance(node, list):
        for item in node:
            yield from _walk(item, layer, known)
        return
    if not isinstance(node, dict):
        return
    config = node.get("config")
    if "class_name" in node:
        if isinstance(config, dict) and isinstance(config.get("name"), str):
            layer = f"layer '{config['name']}'"
        yield from _judge(node, layer, known)
    for item in node.values():
        yield from _walk(item, layer, known)


def _judge(node: dict[str, Any], layer: str, known: _Known) -> Iterator[str]:
    name = str(node["class_name"])
    module = node.get("module")
    registered = node.get("registered_name")
    if name == "__lambda__":
        yield f"{layer} holds the bytecode of a Python lambda"
        return
    if name in _PLAIN or keras_legacy.is_own(str(registered)):
        return
    if name == "Lambda" and _is_legacy_lambda(node.get("config")):
        yield f"{layer} holds the bytecode of a Python lambda"
    if name in _LOADERS:
        yield f"{layer} is a {name}, which {_LOADERS[name]}"
    if name == "function":
        if not known.has(node):
            yield from _judge_function(node, layer)
    elif known.has(node):
        pass  # what it loads else was judged above
    elif isinstance(module, str) and module.split(".")[0] not in {"keras", "builtins"}:
        yield f"{layer} is a {name} of the module '{module}', which is not part of Keras"
    elif "module" in node and module is None and registered:
        yield f"{layer} is a {registered}, a custom class that is not in the file"
    vocabulary = (node.get("config") or {}) if isinstance(node.get("config"), dict) else {}
    if isinstance(vocabulary.get("vocabulary"), str):
        yield f"{layer} reads its vocabulary from the file '{vocabulary['vocabulary']}'"


def _judge_function(node: dict[str, Any], layer: str) -> Iterator[str]:
    module, name = node.get("module"), node.get("config")
    if module == "builtins":
        # So are both Keras' own functions and unregistered ones of the user written.
        if isinstance(node.get("registered_name"), str) and ">" in node["registered_name"]:
            yield f"{layer} calls {node['registered_name']}, a custom function not in the file"
        return
    if not isinstance(module, str):
        yield f"{layer} calls {node.get('registered_name') or name}, a custom function"
    elif not module.startswith(_FUNCTION_MODULES):
        yield f"{layer} calls '{name}' of the module '{module}'"


def _is_legacy_lambda(config: Any) -> bool:
    if not isinstance(config, dict):
        return False
    kinds = {config.get("function_type"), config.get("output_shape_type")}
    return "lambda" in kinds or isinstance(config.get("function"), list)


# --- reading ---------------------------------------------------------------------------


def _config(ref: ModelRef) -> Any:
    if ref.encoding is Encoding.KERAS_ZIP:
        config = _json_member(ref, "config.json")
        with zipfile.ZipFile(ref.location) as archive:
            names = archive.namelist()
        if not any(name.startswith("model.weights.") for name in names):
            raise InputError(f"'{ref.display}' holds no weights (no model.weights.h5)")
        return config
    return _h5_config(ref)


def _json_member(ref: ModelRef, name: str) -> Any:
    try:
        with zipfile.ZipFile(ref.location) as archive:
            return json.loads(archive.read(name))
    except (zipfile.BadZipFile, KeyError, ValueError, EOFError, OSError) as error:
        raise InputError(f"'{ref.display}' is truncated or damaged: {error}") from None


def _h5_config(ref: ModelRef) -> Any:
    h5py = _h5py()
    try:
        with h5py.File(ref.location, "r") as file:
            text = file.attrs.get("model_config")
            names = list(file)
    except (OSError, RuntimeError) as error:
        raise InputError(f"'{ref.display}' is truncated or damaged: {error}") from None
    if text is None:
        raise InputError(
            f"'{ref.display}' holds weights only, no architecture (it has {', '.join(names[:5])})",
            hint="give a Python reference (module:function) that builds the model, "
            f"with --weights {ref.display}",
        )
    try:
        return json.loads(_text(text))
    except ValueError as error:
        raise InputError(f"'{ref.display}' has a damaged model_config: {error}") from None


def _text(value: Any) -> str:
    return value.decode() if isinstance(value, bytes) else str(value)


def _h5py() -> Any:
    import h5py

    return h5py
