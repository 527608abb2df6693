"""Boosters that other estimators ask: calibration, stacking, voting, bagging, chains."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import catboost
import joblib
import lightgbm
import numpy as np
import onnxruntime
import pandas as pd
import pytest
import xgboost
from sklearn.calibration import CalibratedClassifierCV
from sklearn.compose import ColumnTransformer
from sklearn.datasets import load_breast_cancer, load_iris
from sklearn.ensemble import BaggingRegressor, StackingClassifier, StackingRegressor
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.multiclass import OneVsRestClassifier
from sklearn.multioutput import ClassifierChain, RegressorChain
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder

from modelpack.adapters import sklearn as adapter
from modelpack.artifact import Encoding, ModelRef
from modelpack.errors import UnsupportedOpsError
from modelpack.signature import DType
from modelpack.steps import StepOptions
from tests.thinned import thinned

RNG = np.random.default_rng(0)
IRISES, KINDS = load_iris(return_X_y=True)
TUMOURS, BENIGN = load_breast_cancer(return_X_y=True)
TUMOURS = TUMOURS[:, :6]
FRAME = pd.DataFrame(TUMOURS[:, :3], columns=["area", "smoothness", "texture"])
FRAME["color"] = RNG.choice(["red", "grün"], len(FRAME))

CLASSIFIERS: dict[str, Callable[[], Any]] = {
    "XGBoost": lambda: xgboost.XGBClassifier(n_estimators=5, max_depth=3, n_jobs=1),
    "LightGBM": lambda: lightgbm.LGBMClassifier(n_estimators=5, verbose=-1, n_jobs=1),
    "CatBoost": lambda: catboost.CatBoostClassifier(
        iterations=5, verbose=0, thread_count=1, allow_writing_files=False
    ),
}
REGRESSORS: dict[str, Callable[[], Any]] = {
    "XGBoost": lambda: xgboost.XGBRegressor(n_estimators=5, max_depth=3, n_jobs=1),
    "LightGBM": lambda: lightgbm.LGBMRegressor(n_estimators=5, verbose=-1, n_jobs=1),
    "CatBoost": lambda: catboost.CatBoostRegressor(
        iterations=5, verbose=0, thread_count=1, allow_writing_files=False
    ),
}


def _encoded(inner: Any) -> Any:
    hot = OneHotEncoder(handle_unknown="ignore")
    return make_pipeline(ColumnTransformer([("c", hot, ["color"])], remainder="passthrough"), inner)


def _calibrated(method: str) -> Callable[[Any], Any]:
    return lambda inner: CalibratedClassifierCV(inner, method=method, cv=2)


# What asks a classifier, and the rows and labels of it.
AROUND_CLASSIFIERS: dict[str, tuple[Callable[[Any], Any], Any, Any]] = {
    "sigmoid, two": (_calibrated("sigmoid"), TUMOURS, BENIGN),
    "sigmoid, three": (_calibrated("sigmoid"), IRISES, KINDS),
    "isotonic": (_calibrated("isotonic"), TUMOURS, BENIGN),
    "temperature, two": (_calibrated("temperature"), TUMOURS, BENIGN),
    "temperature, three": (_calibrated("temperature"), IRISES, KINDS),
    "calibrated pipeline": (
        lambda inner: CalibratedClassifierCV(_encoded(inner), cv=2),
        FRAME,
        BENIGN,
    ),
    "stacked labels": (
        lambda inner: StackingClassifier([("a", inner)], cv=2, stack_method="predict"),
        IRISES,
        KINDS,
    ),
    "last of a stack": (
        lambda inner: StackingClassifier(
            [("a", LogisticRegression(max_iter=5000))], final_estimator=inner, cv=2
        ),
        IRISES,
        KINDS,
    ),
    "one for each class": (OneVsRestClassifier, IRISES, KINDS),
    "chain": (ClassifierChain, IRISES, np.c_[KINDS > 0, KINDS > 1].astype(int)),
}
AROUND_REGRESSORS: dict[str, Callable[[Any], Any]] = {
    "bagged": lambda inner: BaggingRegressor(inner, 2, max_features=0.7, random_state=0),
    "last of a stack": lambda inner: StackingRegressor(
        [("a", Ridge())], final_estimator=inner, cv=2, passthrough=True
    ),
    "chain": RegressorChain,
}


def _converted(model: Any, folder: Path) -> Any:
    joblib.dump(model, folder / "m.joblib")
    source = ModelRef("sklearn", Encoding.PICKLE, str(folder / "m.joblib"), trusted=True)
    signature = adapter.describe(source).signature
    adapter.to_onnx(source, str(folder / "m.onnx"), StepOptions())
    session = onnxruntime.InferenceSession(folder / "m.onnx", providers=["CPUExecutionProvider"])

    def run(table: Any) -> list[Any]:
        feeds = {}
        for spec in signature.inputs:
            whole = isinstance(table, np.ndarray)
            values = table if whole else table[list(spec.columns)].to_numpy()
            kind = object if spec.dtype is DType.STRING else np.float32
            feeds[spec.name] = values.astype(kind)
        return list(session.run(None, feeds))

    return run


def _halves(table: Any, targets: Any) -> tuple[Any, Any, Any]:
    """Rows and targets to fit, and rows to ask for; all are float32 numbers."""
    order = np.random.default_rng(1).permutation(len(table))
    table = table.copy()
    if isinstance(table, pd.DataFrame):
        table[table.columns[:3]] = table[table.columns[:3]].astype(np.float32)
        rows = [table.iloc[part] for part in (order[:100], order[100:])]
    else:
        rows = [table.astype(np.float32)[part] for part in (order[:100], order[100:])]
    return rows[0], targets[order[:100]], rows[1]


@pytest.mark.parametrize("library", CLASSIFIERS)
@pytest.mark.parametrize("around", thinned(sorted(AROUND_CLASSIFIERS), 2))
def test_a_classifier_inside_of_another_estimator(
    around: str, library: str, tmp_path: Path
) -> None:
    make, table, labels = AROUND_CLASSIFIERS[around]
    known, targets, asked = _halves(table, labels)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = make(CLASSIFIERS[library]()).fit(known, targets)
        wanted = np.asarray(model.predict(asked)), np.asarray(model.predict_proba(asked))
    label, shares = _converted(model, tmp_path)(asked)
    np.testing.assert_array_equal(label.reshape(wanted[0].shape), wanted[0])
    np.testing.assert_allclose(shares, wanted[1], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("library", REGRESSORS)
@pytest.mark.parametrize("around", AROUND_REGRESSORS)
def test_a_regressor_inside_of_another_estimator(around: str, library: str, tmp_path: Path) -> None:
    targets = IRISES[:, 2:] if around == "chain" else IRISES[:, 3]
    known, targets, asked = _halves(IRISES[:, :2], targets)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = AROUND_REGRESSORS[around](REGRESSORS[library]()).fit(known, targets)
        wanted = model.predict(asked)
    (found,) = _converted(model, tmp_path)(asked)
    np.testing.assert_allclose(found, wanted, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("library", CLASSIFIERS)
def test_columns_of_pandas_categories_are_refused_with_the_reason(
    library: str, tmp_path: Path
) -> None:
    booster = CLASSIFIERS[library]()
    if library == "XGBoost":
        booster.set_params(enable_categorical=True)
    elif library == "CatBoost":
        booster.set_params(cat_features=["color"])
    model = booster.fit(FRAME.astype({"color": "category"}), BENIGN)
    reason = "CatBoost hashes" if library == "CatBoost" else "pandas categories.*OrdinalEncoder"
    with pytest.raises(UnsupportedOpsError, match=f"{type(model).__name__}.*{reason}"):
        _converted(model, tmp_path)
