"""Load scikit-learn estimators, and tell what in their files could run code."""

from __future__ import annotations

import bz2
import importlib
import lzma
import re
import warnings
import zipfile
import zlib
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import sklearn
from sklearn.base import BaseEstimator
from sklearn.exceptions import InconsistentVersionWarning, NotFittedError
from sklearn.utils.validation import check_is_fitted

from modelpack import reference
from modelpack.adapters import isolation, sklearn_unpickling
from modelpack.adapters.boosters import LIBRARIES, count_columns, is_booster, is_fitted
from modelpack.adapters.boosters.files import as_estimator, load_file
from modelpack.adapters.pickles import pickle_globals
from modelpack.artifact import Encoding, ModelRef
from modelpack.dependencies import install_hint
from modelpack.errors import (
    InputError,
    MissingDependencyError,
    ModelpackError,
    UntrustedSourceError,
)

# Classes that skops does not trust by itself, although they only hold the numbers of
# scikit-learn's own estimators. Never functions, never anything that reads or writes files.
_HARMLESS = re.compile(
    r"sklearn\.tree\._tree\.Tree"
    r"|sklearn\.ensemble\._hist_gradient_boosting\.(predictor\.TreePredictor|binning\._BinMapper)"
    r"|sklearn\.neighbors\._(kd_tree\.KDTree|ball_tree\.BallTree)(32|64)?"
    r"|sklearn\.metrics\._dist_metrics\.[A-Z]\w*Distance(32|64)?"
    r"|sklearn\.gaussian_process\.kernels\.[A-Z]\w*"
    r"|sklearn\.gaussian_process\._gpc\._BinaryGaussianProcessClassifierLaplace"
    r"|sklearn\.calibration\._(CalibratedClassifier|SigmoidCalibration|TemperatureScaling)"
    r"|sklearn\._loss\.(loss|link|_loss)\.[A-Z]\w*"
    r"|sklearn\.linear_model\._sgd_fast\.[A-Z]\w*"
    r"|sklearn\.neural_network\._stochastic_optimizers\.(Adam|SGD)Optimizer"
    r"|sklearn\.compose\._column_transformer\.(make_column_selector|_RemainderColsList)"
    r"|sklearn\.model_selection\._split\.[A-Z]\w*"
    r"|sklearn\.metrics\._scorer\._(Passthrough)?Scorer"
    r"|sklearn\.utils\._bunch\.Bunch"
    r"|numpy\.dtype|numpy\.dtypes\.\w+DType"
    r"|scipy\.sparse\._(csr|csc|coo)\.(csr|csc|coo)_(matrix|array)"
    r"|collections\.OrderedDict"
    r"|xgboost\.core\.Booster|xgboost\.sklearn\.XGB(RF)?(Classifier|Regressor|Ranker)"
    r"|lightgbm\.basic\.Booster|lightgbm\.sklearn\.LGBM(Classifier|Regressor|Ranker)"
    r"|catboost\.core\.CatBoost(Classifier|Regressor|Ranker)?"
)
_USUAL_MODULES = ("sklearn.", "numpy.", "scipy.", "joblib.", "collections.", "copyreg.")
_UNUSUAL = ("_testing", ".datasets", ".externals", "importlib", "numpy.f2py", "distutils")
_BOOSTER_FILES = {Encoding.XGBOOST, Encoding.LIGHTGBM, Encoding.CATBOOST}

# In a pickle, a text with its opcode and length; in a skops file, a text of JSON in JSON.
_VERSION = re.compile(rb"_sklearn_version[^0-9]{1,200}?([0-9]+\.[0-9]+[0-9a-z.]*)", re.DOTALL)

_PICKLE_BYTES = 256 << 20  # how much of a decompressed pickle is examined
_SHOWN = 20
_DECOMPRESSORS: tuple[tuple[bytes, Callable[[], Any]], ...] = (
    (b"\x1f\x8b", lambda: zlib.decompressobj(31)),
    (b"BZh", bz2.BZ2Decompressor),
    (b"\xfd7zXZ", lzma.LZMADecompressor),
    (b"\x5d\x00\x00", lzma.LZMADecompressor),
    (b"\x78", zlib.decompressobj),
)


# --- scanning ------------------------------------------------------------------------


def scan(ref: ModelRef) -> list[str]:
    """Say what in the file could run code when it is loaded; empty when nothing could.

    A pickle always can. What it names is listed, the most suspicious first.

    Raises:
        InputError: the file is damaged.
    """
    if ref.encoding is Encoding.SKOPS:
        return [
            f"an object of type {name}"
            for name in _untrusted_types(ref.location)
            if not _is_harmless(name)
        ]
    if ref.encoding is Encoding.PICKLE:
        return _pickle_findings(ref.path)
    return []


@lru_cache
def _untrusted_types(location: str) -> tuple[str, ...]:
    from skops.io import get_untrusted_types

    try:
        return tuple(get_untrusted_types(file=location))
    except (zipfile.BadZipFile, ValueError, KeyError, TypeError, AttributeError, OSError) as error:
        raise InputError(f"'{Path(location).name}' is no readable skops file: {error}") from None


def _is_harmless(name: str) -> bool:
    """Whether a type is on the list and really a class, not a function of that name."""
    if not _HARMLESS.fullmatch(name):
        return False
    module, _, attribute = name.rpartition(".")
    try:
        return isinstance(getattr(importlib.import_module(module), attribute), type)
    except (ImportError, AttributeError):
        return False


def _pickle_findings(path: Path) -> list[str]:
    content, note = _decompressed(path)
    pickled = pickle_globals(content)
    if pickled.problem and not pickled.names:
        raise InputError(f"'{path.name}' is no readable pickle: {pickled.problem}")
    names = sorted(pickled.names, key=lambda name: (not _is_suspicious(name), name))
    found = [f"the pickle names {name}" for name in names[:_SHOWN]]
    if len(names) > _SHOWN:
        found.append(f"and {len(names) - _SHOWN} more names")
    if pickled.problem:
        found.append("the rest of the pickle cannot be listed without loading it")
    if note:
        found.append(note)
    return found or ["a pickle can run any code when it is loaded"]


def _is_suspicious(name: str) -> bool:
    return not name.startswith(_USUAL_MODULES) or any(part in name for part in _UNUSUAL)


def _decompressed(path: Path) -> tuple[bytes, str]:
    """Return at most `_PICKLE_BYTES` of the file, decompressed, and what was left out."""
    try:
        with path.open("rb") as stream:
            raw = stream.read(_PICKLE_BYTES)
    except OSError as error:
        raise InputError(f"cannot read '{path.name}': {error.strerror}") from None
    for magic, make in _DECOMPRESSORS:
        if raw.startswith(magic):
            try:
                content = make().decompress(raw, _PICKLE_BYTES)
            except (OSError, ValueError, EOFError, zlib.error, lzma.LZMAError) as error:
                raise InputError(f"'{path.name}' is damaged: {error}") from None
            break
    else:
        content = raw
    cut = len(content) >= _PICKLE_BYTES
    return content, f"only the first {_PICKLE_BYTES >> 20} MiB were examined" if cut else ""


# --- loading -------------------------------------------------------------------------


def load(ref: ModelRef) -> Any:
    """Return the fitted estimator; a search is replaced by its best estimator. Cached.

    Raises:
        InputError: the file is damaged, holds no fitted estimator, or was saved by another
            version of scikit-learn.
        MissingDependencyError: the library of its booster is not installed.
        UntrustedSourceError: loading would run code of the file, and it is not trusted; or it
            names what no estimator is made of.
    """
    return _load(ref.loading)[0]


def saved_by(ref: ModelRef) -> dict[str, str]:
    """The version of scikit-learn that saved a file, if it is another than is installed."""
    version = _load(ref.loading)[1]
    return {"scikit-learn": version} if version else {}


@lru_cache
def _load(ref: ModelRef) -> tuple[Any, str]:
    """The estimator, and the version of `saved_by`."""
    reference.import_modules(ref)
    if ref.encoding is Encoding.PYTHON:
        return _checked(reference.load(ref), ref), ""
    if ref.encoding in _BOOSTER_FILES:
        return _checked(load_file(ref.path, ref.encoding), ref), ""
    model, version = _load_file(ref)
    return _checked(model, ref), version


def _checked(model: Any, ref: ModelRef) -> Any:
    """The estimator, if it is one and is fitted."""
    model = as_estimator(model)
    if not _is_estimator(model) or isinstance(model, type):
        raise InputError(f"'{ref.display}' holds a {type(model).__name__}, not an estimator")
    try:
        if not is_booster(model):
            check_is_fitted(model)
        elif not is_fitted(model):
            raise NotFittedError
    except NotFittedError:
        raise InputError(
            f"the {type(model).__name__} in '{ref.display}' is not fitted",
            hint="call fit before saving it",
        ) from None
    except TypeError as error:
        raise InputError(f"'{ref.display}' holds no estimator: {error}") from None
    model = _unwrapped(model, ref)
    for _, item in walk(model):
        count_columns(item)
    _check_trees(model, ref)
    return model


def _is_estimator(item: Any) -> bool:
    return isinstance(item, BaseEstimator) or is_booster(item)


def _load_file(ref: ModelRef) -> tuple[Any, str]:
    """What a file holds, and the version that saved it if that is another."""
    found = [] if ref.trusted else scan(ref)
    if found:
        raise UntrustedSourceError(
            f"loading '{ref.display}' can run code it contains: {'; '.join(found)}",
            hint="give --trust when you trust where it comes from, or save it with skops",
        )
    with warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("ignore")
        warnings.simplefilter("always", InconsistentVersionWarning)
        try:
            model = _loaded(ref)
        except ModelpackError:
            raise
        except ModuleNotFoundError as error:
            raise _missing(ref, error) from error
        except Exception as error:  # unpickling raises whatever the classes in it raise
            raise _unloadable(ref, error) from error
    versions = [
        item.message.original_sklearn_version
        for item in warned
        if isinstance(item.message, InconsistentVersionWarning)
    ]
    if versions and not ref.allow_version_drift:
        raise InputError(
            f"'{ref.display}' was saved by scikit-learn {versions[0]}, but "
            f"{sklearn.__version__} is installed: its predictions may differ",
            hint=f"pip install 'scikit-learn=={versions[0]}', fit and save the model again, "
            "or repeat with --allow-version-drift to take what it answers here as right",
        )
    return model, versions[0] if versions else ""


def _loaded(ref: ModelRef) -> Any:
    if ref.encoding is Encoding.SKOPS:
        from skops.io import load as load_skops

        return load_skops(ref.location, trusted=list(_untrusted_types(ref.location)))
    if isolation.is_worker():
        isolation.give_up_network()
    return sklearn_unpickling.load(ref.path, ref.imports)


def _missing(ref: ModelRef, error: ModuleNotFoundError) -> ModelpackError:
    name = (error.name or "").partition(".")[0]
    if name in LIBRARIES:
        return MissingDependencyError(
            f"'{ref.display}' needs '{name}', which is not installed",
            hint=install_hint("boosters"),
        )
    return InputError(
        f"'{ref.display}' needs the module '{error.name}', which cannot be imported",
        hint="run where it can be imported, and add --import with its name",
    )


def _unloadable(ref: ModelRef, error: Exception) -> InputError:
    version = _version_in(ref)
    other = version if version != sklearn.__version__ else ""
    return InputError(
        f"scikit-learn {sklearn.__version__} cannot load '{ref.display}'"
        + (f", which scikit-learn {other} saved" if other else "")
        + f": {type(error).__name__}: {error}",
        hint=f"pip install 'scikit-learn=={other}', or fit and save the model again"
        if other
        else "it may be damaged, saved by another version, or need a module of yours",
    )


def _version_in(ref: ModelRef) -> str:
    """The version of scikit-learn that a file names; empty if it names none."""
    if ref.encoding is Encoding.SKOPS:
        with zipfile.ZipFile(ref.path) as archive:
            content = archive.read("schema.json")
    else:
        content = _decompressed(ref.path)[0]
    found = _VERSION.search(content)
    return found[1].decode() if found else ""


def _unwrapped(model: Any, ref: ModelRef) -> Any:
    """Return what a search or a frozen estimator delegates every call to."""
    while True:
        name = type(model).__name__
        if name.endswith("SearchCV"):
            if not hasattr(model, "best_estimator_"):
                raise InputError(f"the {name} in '{ref.display}' was fitted with refit=False")
            model = model.best_estimator_
        elif name == "FrozenEstimator":
            model = model.estimator
        else:
            return model


def children(model: Any) -> list[tuple[str, Any]]:
    """Return the fitted estimators that a composite estimator calls, with their names."""
    if is_booster(model):
        return []
    if hasattr(model, "steps"):
        pairs = list(model.steps)
    elif hasattr(model, "transformers_"):
        pairs = [(name, item) for name, item, _ in model.transformers_]
    elif hasattr(model, "transformer_list"):
        pairs = list(model.transformer_list)
    elif hasattr(model, "calibrated_classifiers_"):
        pairs = [("estimator", item.estimator) for item in model.calibrated_classifiers_]
    else:
        fitted = getattr(model, "estimators_", [])
        fitted = fitted.ravel() if isinstance(fitted, np.ndarray) else fitted
        pairs = [("estimator", item) for item in fitted]
        for name in ("final_estimator_", "estimator_", "best_estimator_", "regressor_"):
            if not pairs or name == "final_estimator_":
                pairs += [(name, getattr(model, name))] if hasattr(model, name) else []
    return [(str(name), item) for name, item in pairs if _is_estimator(item)]


def walk(model: Any, path: str = "") -> list[tuple[str, Any]]:
    """Return the estimator and all fitted estimators inside of it, each with its path."""
    found = [(path or type(model).__name__, model)]
    for name, child in children(model):
        found += walk(child, f"{path}/{name}" if path else name)
    return found


def _check_trees(model: Any, ref: ModelRef) -> None:
    """Refuse trees whose links point outside of themselves: following one reads wild memory."""
    for path, item in walk(model):
        tree: Any = getattr(item, "tree_", None)
        if not hasattr(tree, "children_left"):  # none, or one that finds neighbors
            continue
        count = tree.node_count
        links = np.concatenate([tree.children_left, tree.children_right])
        features = tree.feature[tree.children_left >= 0]
        if (links >= count).any() or (features >= tree.n_features).any() or (features < 0).any():
            raise InputError(f"a tree of '{path}' in '{ref.display}' is damaged")
