"""Unpickle estimators, letting a pickle name only what estimators are made of.

A pickle is a list of calls, of whatever it names. Here it may name the classes of
scikit-learn, of the boosters and of what they keep, and a few functions that put arrays
together. What it names otherwise is refused before anything of it is imported. This lowers
the risk of a file that is trusted wrongly, and is no sandbox.
"""

from __future__ import annotations

import _compat_pickle
import pickle
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from unittest import mock

import joblib.numpy_pickle
import numpy as np

from modelpack.errors import UntrustedSourceError

_EXACT = {
    *("builtins.bool", "builtins.bytearray", "builtins.bytes", "builtins.complex"),
    *("builtins.dict", "builtins.float", "builtins.frozenset", "builtins.int", "builtins.list"),
    *("builtins.object", "builtins.range", "builtins.set", "builtins.slice", "builtins.str"),
    *("builtins.tuple", "_codecs.encode", "copyreg._reconstructor", "functools.partial"),
    *("collections.Counter", "collections.OrderedDict", "collections.defaultdict"),
    *("collections.deque", "joblib.numpy_pickle.NumpyArrayWrapper"),
    *("numpy.dtype", "numpy.matrix", "numpy.ndarray"),
    *("numpy._core.multiarray._reconstruct", "numpy._core.multiarray.scalar"),
    *("numpy._core.numeric._frombuffer", "numpy.ma._mareconstruct"),
    *("numpy.ma.core.MaskedArray", "numpy.ma.MaskedArray", "numpy.ma.core._mareconstruct"),
    *("numpy.random._pickle.__bit_generator_ctor", "numpy.random._pickle.__generator_ctor"),
    *("numpy.random._pickle.__randomstate_ctor", "numpy.random._mt19937.MT19937"),
    *("numpy.random._pcg64.PCG64", "numpy.random.bit_generator.SeedSequence"),
    "numpy.random.bit_generator.__pyx_unpickle_SeedSequence",
    "scipy._lib.array_api_compat.numpy._aliases.asarray",
    "sklearn.cluster._kmeans._kmeans_single_elkan",
    "sklearn.utils.validation.check_array",
    "sklearn.cluster._kmeans._kmeans_single_lloyd",
    *("pyarrow.lib._restore_array", "pyarrow.lib.chunked_array", "pyarrow.lib.py_buffer"),
    "pyarrow.lib.type_for_alias",
    "pandas._libs.arrays.__pyx_unpickle_NDArrayBacked",
    "pandas.core.indexes.base._new_Index",
    *("xgboost.core.Booster", "catboost.core.CatBoost", "lightgbm.basic.Booster"),
}

# Packages whose classes may be named, but no functions.
_CLASSES = (
    *("sklearn.", "scipy.sparse.", "scipy.interpolate.", "numpy.dtypes."),
    *("pandas.core.indexes.", "pandas.core.arrays.", "pandas.core.dtypes.dtypes."),
    *("pandas.Index", "pandas.RangeIndex", "pandas.StringDtype", "pandas.CategoricalDtype"),
    "pandas.arrays.",
    *("xgboost.sklearn.", "xgboost.callback.", "lightgbm.sklearn.", "lightgbm.callback."),
    "catboost.core.",
)

# Functions of NumPy that estimators are given, and that compute and no more. All of its
# ufuncs may be named besides.
_OF_NUMPY = {
    *("amax", "amin", "around", "average", "clip", "column_stack", "concatenate", "hstack", "max"),
    *("mean", "median", "min", "nan_to_num", "nanmean", "nanmedian", "round", "std", "sum", "var"),
    *("vstack", "where"),
}

# Modules of scikit-learn whose functions may be named too: scores, which compute and no more.
_FUNCTIONS = (
    *("sklearn.metrics.", "sklearn.feature_selection._univariate_selection."),
    "sklearn.feature_selection._mutual_info.",
)
# Functions that compiled classes of scikit-learn are put together with.
_BUILDERS = ("newObj", "__pyx_unpickle_")

# Parts of scikit-learn that read files, download, test, or are other libraries.
_NEVER = ("externals", "datasets", "tests", "_testing", "estimator_checks", "conftest")


def load(path: Path, imports: Sequence[str] = ()) -> Any:
    """Load a pickle, or a file of joblib, compressed or not.

    Args:
        path: of the file.
        imports: modules, or paths of files, whose classes and functions may be named too.

    Raises:
        UntrustedSourceError: it names something else; nothing of that was imported.
        Exception: whatever the classes in it raise.
    """
    own = tuple(Path(name).stem if name.endswith(".py") else name for name in imports)

    class Unpickler(joblib.numpy_pickle.NumpyUnpickler):  # type: ignore[misc]
        def find_class(self, module: str, name: str) -> Any:
            if self.proto < 3:  # such pickles have the names of Python 2
                old = (module, name)
                module, name = _compat_pickle.NAME_MAPPING.get(old, old)
                module = _compat_pickle.IMPORT_MAPPING.get(module, module)
            if not _may_be_named(module, name, own):
                raise _refusal(path, module, name)
            if (module, name) == ("joblib.numpy_pickle", "NumpyArrayWrapper"):
                return _Wrapper
            found = super().find_class(module, name)
            if not _is_as_named(found, module, name, own):
                raise _refusal(path, module, name)
            return found

    with (
        mock.patch.object(joblib.numpy_pickle, "NumpyUnpickler", Unpickler),
        mock.patch.object(joblib.numpy_pickle, "load_compatibility", _too_old),
    ):
        return joblib.load(path)


class _Wrapper(joblib.numpy_pickle.NumpyArrayWrapper):  # type: ignore[misc]
    """What joblib keeps an array in. An array of objects is a pickle in the pickle.

    Not every version of joblib reads that one with the `find_class` of the outer one.
    """

    def read_array(self, unpickler: Any, *args: Any) -> Any:
        if not self.dtype.hasobject:
            return super().read_array(unpickler, *args)
        inner: Any = pickle._Unpickler(unpickler.file_handle)
        inner.find_class = unpickler.find_class
        return inner.load()


def _too_old(filename: str) -> Any:
    raise ValueError("it was written by a joblib before 0.10")


def _may_be_named(module: str, name: str, imports: Sequence[str]) -> bool:
    """Whether a name is one of those that may be looked up at all."""
    if "." in name:  # an attribute of a class may be anything
        return False
    if _is_of(module, imports):
        return True
    module = module.replace("numpy.core", "numpy._core", 1)
    full = f"{module}.{name}"
    if full in _EXACT or module == "numpy":  # of numpy itself only numbers: see _is_as_named
        return True
    parts = module.split(".")
    return full.startswith(_CLASSES) and not any(part in _NEVER for part in parts)


def _is_as_named(found: Any, module: str, name: str, imports: Sequence[str]) -> bool:
    """Whether what a name stands for is what it looks like, and no import of that module."""
    module = module.replace("numpy.core", "numpy._core", 1)
    if f"{module}.{name}" in _EXACT:
        return True
    home = getattr(found, "__module__", None) or module
    if _is_of(module, imports):
        return _is_of(home, imports)
    if module == "numpy":
        scalar = isinstance(found, type) and issubclass(found, np.generic)
        return scalar or isinstance(found, np.ufunc) or name in _OF_NUMPY
    if home.partition(".")[0] != module.partition(".")[0]:
        return False
    if isinstance(found, type):
        return True
    builds = module.startswith("sklearn.") and name.startswith(_BUILDERS)
    return builds or f"{home}.".startswith(_FUNCTIONS)


def _is_of(module: str, imports: Sequence[str]) -> bool:
    return any(module == own or module.startswith(f"{own}.") for own in imports)


def _refusal(path: Path, module: str, name: str) -> UntrustedSourceError:
    if module == "__main__":
        advice = (
            "it was saved by a script that defines its own class or function: "
            "move that to a module, save it again, and add --import with the module"
        )
    elif module.partition(".")[0] in sys.stdlib_module_names:
        advice = "the file may be made to do harm; save the model again without it, or with skops"
    else:
        advice = f"if that is code of yours, add --import {module}"
    return UntrustedSourceError(
        f"'{path.name}' names {module}.{name}, which estimators are not made of; "
        "it was not loaded, although it is trusted",
        hint=advice,
    )
