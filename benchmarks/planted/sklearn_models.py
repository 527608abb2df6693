"""scikit-learn models of the planted-bug benchmark, fitted on its own tables."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import skops.io
from sklearn.compose import ColumnTransformer
from sklearn.decomposition import PCA
from sklearn.ensemble import (
    HistGradientBoostingClassifier,
    IsolationForest,
    RandomForestClassifier,
)
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.naive_bayes import GaussianNB
from sklearn.neighbors import KNeighborsClassifier
from sklearn.neural_network import MLPClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import Binarizer, KBinsDiscretizer, OneHotEncoder, StandardScaler
from sklearn.svm import SVC

from benchmarks.planted import data


def _logistic() -> Any:
    return make_pipeline(StandardScaler(), LogisticRegression(max_iter=500))


def _columns() -> Any:
    encoder = OneHotEncoder(handle_unknown="ignore")
    parts = [("numbers", StandardScaler(), ["area", "texture"]), ("words", encoder, ["size"])]
    return make_pipeline(ColumnTransformer(parts), LogisticRegression())


def _bins() -> Any:
    bins = KBinsDiscretizer(4, encode="onehot-dense", quantile_method="averaged_inverted_cdf")
    return make_pipeline(bins, LogisticRegression(max_iter=500))


# The estimator, and the table it is fitted on.
MODELS: dict[str, tuple[Callable[[], Any], str]] = {
    "sklearn_forest": (lambda: RandomForestClassifier(20, random_state=0), "breast_cancer"),
    "sklearn_hist": (lambda: HistGradientBoostingClassifier(max_iter=20), "wine, NaN"),
    "sklearn_svc": (lambda: SVC(C=4.0), "iris"),
    "sklearn_logistic": (_logistic, "wine"),
    "sklearn_columns": (_columns, "frame"),
    "sklearn_knn": (lambda: KNeighborsClassifier(5), "iris"),
    "sklearn_mlp": (
        lambda: make_pipeline(StandardScaler(), MLPClassifier((24,), max_iter=300, random_state=0)),
        "breast_cancer",
    ),
    "sklearn_isolation": (lambda: IsolationForest(n_estimators=20, random_state=0), "iris"),
    "sklearn_bayes": (GaussianNB, "iris, words"),
    "sklearn_ridge": (lambda: make_pipeline(StandardScaler(), Ridge()), "diabetes"),
    "sklearn_pca": (
        lambda: make_pipeline(StandardScaler(), PCA(5), LogisticRegression(max_iter=500)),
        "breast_cancer",
    ),
    "sklearn_threshold": (
        lambda: make_pipeline(StandardScaler(), Binarizer(threshold=0.4), LogisticRegression()),
        "wine",
    ),
    "sklearn_bins": (_bins, "wine"),
}


def make(name: str, folder: Path) -> None:
    """Fit a model, and one on two thirds of the rows: an earlier one."""
    create, table = MODELS[name]
    rows, targets, held = _table(table)
    for file, part in (("model", slice(None)), ("stale", slice(2 * len(rows) // 3))):
        skops.io.dump(create().fit(rows[part], targets[part]), folder / f"{file}.skops")
    data.write(folder, _fed(held))


def _table(name: str) -> tuple[Any, Any, Any]:
    if name == "frame":
        return tuple(
            _frame(part) if part.ndim > 1 else part for part in data.table("breast_cancer")
        )  # type: ignore[return-value]
    kind, _, change = name.partition(", ")
    rows, targets, held = data.table(kind)
    if change == "NaN":
        rng = np.random.default_rng(data.SEED)
        rows, held = (np.where(rng.random(part.shape) < 0.1, np.nan, part) for part in (rows, held))
    if change == "words":
        targets = np.array(["setosa", "versicolor", "virginica"])[targets]
    return rows, targets, held


def _frame(cells: Any) -> Any:
    frame = pd.DataFrame({"area": cells[:, 3], "texture": cells[:, 1]})
    frame["size"] = np.where(cells[:, 0] > 16, "large", np.where(cells[:, 0] > 12, "mid", "small"))
    return frame


def _fed(held: Any) -> dict[str, Any]:
    """Held-out rows by input name, with no more digits than artifacts are given."""
    if isinstance(held, pd.DataFrame):
        return {
            name: (
                held[[name]].to_numpy(np.float32)
                if held[name].dtype.kind == "f"
                else held[[name]].to_numpy(object)
            )
            for name in held.columns
        }
    return {"X": held.astype(np.float32)}
