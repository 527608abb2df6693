"""Python references: ``package.module:attribute`` and ``file.py:attribute``.

Called in workers only: importing the user's module runs the user's code.
"""

from __future__ import annotations

import importlib
import importlib.util
import inspect
import json
import random
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

import numpy as np

from modelpack.artifact import ModelRef
from modelpack.dependencies import install_hint
from modelpack.errors import InputError, MissingDependencyError, ModelpackError

# A factory that makes random weights must make the same ones each time it is called, or
# the model that is converted is not the model that it is compared with.
SEED = 0

# Frameworks by the top-level package that defines their model base classes.
_FRAMEWORKS = {"keras": "keras", "torch": "torch", "sklearn": "sklearn"}

# Packages whose models all are one framework's, whatever their classes derive from.
_RELATED = {"xgboost": "sklearn", "lightgbm": "sklearn", "catboost": "sklearn"}

# The extras that bring what users' modules import.
_EXTRAS = {**_FRAMEWORKS, "tensorflow": "keras", **dict.fromkeys(_RELATED, "boosters")}


def split(text: str) -> tuple[str, str] | None:
    """Split ``module:attribute``; None when the text is no Python reference."""
    module, colon, attribute = text.rpartition(":")
    plausible = bool(colon) and attribute.replace(".", "a").isidentifier()
    if not plausible or not module:
        return None
    if module.endswith(".py") or all(part.isidentifier() for part in module.split(".")):
        return module, attribute
    return None


def canonical_arguments(text: str) -> str:
    """Check what a factory is to be called with, and write it in one way for each value.

    Args:
        text: JSON, an object for keywords or an array for positions; empty for nothing.

    Raises:
        InputError: it is no such JSON.
    """
    if not text.strip():
        return ""
    try:
        value = json.loads(text, object_pairs_hook=_unique, parse_constant=_no_constant)
    except (ValueError, RecursionError) as error:
        raise InputError(
            f"the arguments of the factory are no JSON: {error}",
            hint="write for example --factory-args '{\"classes\": 10}' or '[10]'",
        ) from None
    if not isinstance(value, dict | list):
        raise InputError(
            f"the arguments of the factory are {text.strip()}",
            hint="give an object of keywords, '{\"classes\": 10}', or an array, '[10]'",
        )
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False)


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        raise ValueError("a key is there twice")
    return found


def _no_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is no number of JSON")


def located_module(name: str) -> str:
    """A module to import, with a file's path made absolute.

    Raises:
        InputError: there is no such file, or it is no module's name.
    """
    if name.endswith(".py"):
        if not Path(name).is_file():
            raise InputError(f"there is no file '{name}' to import")
        return str(Path(name).absolute())
    if not all(part.isidentifier() for part in name.split(".")):
        raise InputError(
            f"'{name}' is no module", hint="give --import package.module or --import file.py"
        )
    return name


def import_modules(ref: ModelRef) -> None:
    """Import what the user says that loading the model needs, such as its custom classes.

    Raises:
        InputError, MissingDependencyError: a module cannot be imported.
    """
    for name in ref.imports:
        _import(name)


def load(ref: ModelRef) -> Any:
    """Import the reference and return the model it names, calling it when it is a factory.

    A factory is called with the arguments of the reference, if there are any.

    The random generators of Python, NumPy and the frameworks already imported are seeded
    first, so that a factory with random weights gives the same model in every process.

    Raises:
        InputError: the module, the attribute or the call fails, or gives no model.
    """
    parts = split(ref.location)
    if parts is None:
        raise InputError(f"'{ref.location}' is no Python reference module:attribute")
    module_name, attribute = parts
    value = _import(module_name)
    try:
        for name in attribute.split("."):
            value = getattr(value, name)
    except AttributeError:
        raise InputError(f"'{module_name}' has no attribute '{attribute}'") from None
    if framework_of(value) or not callable(value):
        if ref.factory_args:
            raise InputError(
                f"'{ref.location}' is a {type(value).__name__}, which is not called",
                hint="leave the arguments of the factory out",
            )
        return value
    args, kwargs = _arguments(ref, value)
    _seed()
    try:
        model = value(*args, **kwargs)
    except (ModelpackError, MemoryError):
        raise
    except Exception as error:
        raise InputError(
            f"calling '{ref.location}' failed: {type(error).__name__}: {error}",
            hint="a factory returns a model; its arguments are given with --factory-args",
        ) from error
    return model


def _arguments(ref: ModelRef, factory: Callable[..., Any]) -> tuple[list[Any], dict[str, Any]]:
    """What to call a factory with.

    Raises:
        InputError: it does not take that.
    """
    given = json.loads(ref.factory_args or "{}")
    args, kwargs = (given, {}) if isinstance(given, list) else ([], given)
    try:
        signature = inspect.signature(factory)
    except (TypeError, ValueError):  # of a class written in C
        return args, kwargs
    try:
        signature.bind(*args, **kwargs)
    except TypeError as error:
        raise InputError(
            f"'{ref.location}' takes {signature}, but {error}",
            hint="give its arguments with --factory-args, as JSON: "
            "an object for keywords, an array for positions",
        ) from None
    return args, kwargs


def resolve(ref: ModelRef) -> str:
    """Return the name of the framework whose model the reference gives.

    Raises:
        InputError: as `load`, or the value is no model of a known framework.
    """
    model = load(ref)
    framework = framework_of(model)
    if not framework:
        raise InputError(
            f"'{ref.location}' gives a {type(model).__name__}, "
            "not a Keras, PyTorch or scikit-learn model"
        )
    return framework


def framework_of(model: object) -> str:
    """Name of the framework that a live model belongs to, by its classes; empty if none."""
    if isinstance(model, type):
        return ""
    for base in type(model).__mro__:
        root = base.__module__.partition(".")[0]
        if root in _RELATED:
            return _RELATED[root]
        if root in _FRAMEWORKS and base.__name__ in {
            "Model",
            "Layer",
            "Module",
            "ExportedProgram",
            "BaseEstimator",
        }:
            return _FRAMEWORKS[root]
    return ""


def _import(module_name: str) -> Any:
    try:
        if module_name.endswith(".py"):
            return _import_file(Path(module_name))
        if str(Path.cwd()) not in sys.path:
            sys.path.insert(0, str(Path.cwd()))
        return importlib.import_module(module_name)
    except ModelpackError:
        raise
    except (MemoryError, KeyboardInterrupt):
        raise
    except ModuleNotFoundError as error:
        extra = _EXTRAS.get((error.name or "").partition(".")[0])
        if extra is not None:
            raise MissingDependencyError(
                f"'{module_name}' imports '{error.name}', which is not installed",
                hint=install_hint(extra),
            ) from error
        raise InputError(
            f"cannot import '{module_name}': {error}",
            hint="the current directory is on the path; a file is given as file.py:attribute",
        ) from error
    except BaseException as error:
        raise InputError(
            f"importing '{module_name}' failed: {type(error).__name__}: {error}"
        ) from error


def _import_file(path: Path) -> Any:
    if not path.is_file():
        raise InputError(f"there is no file '{path}'")
    if path.stem in sys.modules and getattr(sys.modules[path.stem], "__file__", "") == str(path):
        return sys.modules[path.stem]
    spec = importlib.util.spec_from_file_location(path.stem, path)
    if spec is None or spec.loader is None:
        raise InputError(f"'{path}' is not a Python file")
    module = importlib.util.module_from_spec(spec)
    sys.path.insert(0, str(path.parent.resolve()))
    sys.modules[path.stem] = module
    spec.loader.exec_module(module)
    return module


def _seed() -> None:
    random.seed(SEED)
    np.random.seed(SEED)
    if "torch" in sys.modules:
        sys.modules["torch"].manual_seed(SEED)
    if "keras" in sys.modules:
        sys.modules["keras"].utils.set_random_seed(SEED)
