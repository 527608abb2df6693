"""Boosters from files of their own libraries, and the estimators that answer for them."""

from __future__ import annotations

import importlib
import json
import tempfile
from pathlib import Path
from typing import Any

from modelpack.adapters.boosters.wrapped import wrapped
from modelpack.artifact import Encoding
from modelpack.dependencies import install_hint
from modelpack.errors import InputError, MissingDependencyError

_LIBRARIES = {
    Encoding.XGBOOST: "xgboost",
    Encoding.LIGHTGBM: "lightgbm",
    Encoding.CATBOOST: "catboost",
}


def library(name: str) -> Any:
    """Import a booster's library.

    Raises:
        MissingDependencyError: it is not installed.
    """
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name != name:
            raise
        raise MissingDependencyError(
            f"the model needs '{name}', which is not installed", hint=install_hint("boosters")
        ) from None


def load_file(path: Path, encoding: Encoding) -> Any:
    """Load a file that a booster's library wrote, as an estimator.

    Raises:
        InputError: the library cannot read it.
        MissingDependencyError: the library is not installed.
    """
    package = library(_LIBRARIES[encoding])
    try:
        if encoding is Encoding.XGBOOST:
            return as_estimator(package.Booster(model_file=str(path)))
        if encoding is Encoding.LIGHTGBM:
            return as_estimator(package.Booster(model_file=str(path)))
        form = "cbm" if path.read_bytes()[:4] == b"CBM1" else "json"
        return _catboost_estimator(str(path), form)
    except (ValueError, RuntimeError, KeyError, package_error(package)) as error:
        first = str(error).strip().splitlines()[:1]
        raise InputError(
            f"{package.__name__} {package.__version__} cannot load '{path.name}': "
            f"{first[0] if first else type(error).__name__}",
            hint="it may be damaged, or saved by another version",
        ) from None


def package_error(package: Any) -> type[Exception]:
    """The exception of a library's own."""
    names = {"xgboost": "XGBoostError", "lightgbm": "LightGBMError", "catboost": "CatBoostError"}
    holders = {"xgboost": "core", "lightgbm": "basic", "catboost": ""}
    holder = holders[package.__name__]
    return getattr(getattr(package, holder) if holder else package, names[package.__name__])


def as_estimator(model: Any) -> Any:
    """Return an estimator for a library's bare booster; anything else as it is."""
    kind = type(model)
    root = kind.__module__.partition(".")[0]
    if root == "xgboost" and kind.__name__ == "Booster":
        return _xgboost_estimator(model)
    if root == "lightgbm" and kind.__name__ == "Booster":
        return wrapped(model)
    if root == "catboost" and kind.__name__ == "CatBoost":
        with tempfile.TemporaryDirectory() as directory:
            path = f"{directory}/model.cbm"
            model.save_model(path)
            return _catboost_estimator(path, "cbm")
    return model


def _xgboost_estimator(booster: Any) -> Any:
    package = library("xgboost")
    objective = json.loads(booster.save_config())["learner"]["objective"]["name"]
    group = objective.partition(":")[0]
    kinds = {"binary": "XGBClassifier", "multi": "XGBClassifier", "rank": "XGBRanker"}
    # A classifier of margins answers no probabilities; the booster answers the margins.
    usual = "XGBRegressor" if objective == "binary:logitraw" else kinds.get(group, "XGBRegressor")
    estimator = getattr(package, usual)()
    estimator.load_model(bytearray(booster.save_raw("ubj")))
    return estimator


def _catboost_estimator(path: str, form: str) -> Any:
    package = library("catboost")
    classifier = package.CatBoostClassifier().load_model(path, format=form)
    loss = str(classifier.get_all_params().get("loss_function", ""))
    if package.CatBoost._is_classification_objective(loss.partition(":")[0]):
        return classifier
    return package.CatBoostRegressor().load_model(path, format=form)
