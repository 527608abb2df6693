"""Kinds of scikit-learn models as SavedModel and TFLite, compared with scikit-learn itself.

The comparison is independent of modelpack's own: real rows that the models were not fitted
on, artifacts run by their own runtimes, labels equal to the last one.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import skops.io
from sklearn import datasets
from sklearn.base import BaseEstimator
from sklearn.compose import ColumnTransformer
from sklearn.ensemble import GradientBoostingClassifier, IsolationForest, RandomForestClassifier
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import train_test_split
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler
from sklearn.svm import SVC

from tests.routes.test_conversions import manifest_of
from tests.thinned import thinned

RTOL, ATOL = 1e-5, 1e-5

FORMS = ("savedmodel", "tflite")


def tumours() -> tuple[Any, Any]:
    """Measurements of tumours as float32, and text labels."""
    rows, benign = datasets.load_breast_cancer(return_X_y=True)
    return rows.astype(np.float32), np.where(benign, "benign", "malignant")


def digits() -> tuple[Any, Any]:
    """Ten classes of images."""
    rows, labels = datasets.load_digits(return_X_y=True)
    return rows.astype(np.float32), labels


def described_tumours() -> tuple[Any, Any]:
    """Some columns of measurements as they are, some as words."""
    rows, labels = tumours()
    words = {
        "size": np.array(["small", "medium", "large"])[np.digitize(rows[:, 0], [12, 17])],
        "surface": np.where(rows[:, 1] > 20, "rough", "smooth"),
    }
    frame = pd.DataFrame({"area": rows[:, 3], "smoothness": rows[:, 4]})
    return frame.assign(**{name: values.astype(object) for name, values in words.items()}), labels


def mixed_columns() -> BaseEstimator:
    """Scaled numbers beside one-hot words."""
    columns = ColumnTransformer(
        [
            ("numbers", StandardScaler(), ["area", "smoothness"]),
            ("words", OneHotEncoder(handle_unknown="ignore"), ["size", "surface"]),
        ]
    )
    return make_pipeline(columns, LogisticRegression())


MODELS: dict[str, tuple[Callable[[], BaseEstimator], Callable[[], tuple[Any, Any]]]] = {
    "random forest": (lambda: RandomForestClassifier(100, random_state=0), tumours),
    "gradient boosting": (lambda: GradientBoostingClassifier(random_state=0), tumours),
    "gradient boosting, ten classes": (
        lambda: GradientBoostingClassifier(n_estimators=20, random_state=0),
        digits,
    ),
    "support vectors": (
        lambda: make_pipeline(StandardScaler(), SVC(probability=True, random_state=0)),
        tumours,
    ),
    "logistic regression": (
        lambda: make_pipeline(StandardScaler(), LogisticRegression()),
        digits,
    ),
    "nearest neighbours": (lambda: KNeighborsClassifier(5), digits),
    "isolation forest": (lambda: IsolationForest(random_state=0), tumours),
    "mixed columns": (mixed_columns, described_tumours),
}


def expected(model: BaseEstimator, rows: Any) -> dict[str, Any]:
    """What scikit-learn itself answers, by the names of the artifacts' outputs."""
    if hasattr(model, "predict_proba"):
        return {"label": model.predict(rows), "probabilities": model.predict_proba(rows)}
    return {"label": model.predict(rows), "scores": model.decision_function(rows)}


def feeds(directory: Path, rows: Any) -> dict[str, Any]:
    """The rows as the manifest's inputs take them."""
    found = {}
    for spec in manifest_of(directory)["signatures"][0]["inputs"]:
        chosen = rows[spec["columns"]] if isinstance(rows, pd.DataFrame) else rows
        dtype = object if spec["dtype"] == "string" else spec["dtype"]
        found[spec["name"]] = np.asarray(chosen).astype(dtype).reshape(len(rows), -1)
    return found


def savedmodel_outputs(directory: Path, feed: dict[str, Any]) -> dict[str, Any]:
    import tensorflow as tf

    module = tf.saved_model.load(str(directory / "saved_model"))
    tensors = {name: tf.constant(array) for name, array in feed.items()}
    answer = module.signatures["serving_default"](**tensors)
    return {name: value.numpy() for name, value in answer.items()}


def tflite_outputs(directory: Path, feed: dict[str, Any]) -> dict[str, Any]:
    from ai_edge_litert.interpreter import Interpreter

    interpreter = Interpreter(model_path=str(directory / "model.tflite"))
    return interpreter.get_signature_runner("serving_default")(**feed)


RUN = {"savedmodel": savedmodel_outputs, "tflite": tflite_outputs}


def matches(form: str, directory: Path, model: BaseEstimator, rows: Any) -> None:
    """Fail unless an artifact answers as the model does for these rows."""
    found = RUN[form](directory, feeds(directory, rows))
    wanted = expected(model, rows)
    assert found.keys() == wanted.keys()
    label = found.pop("label")
    label = np.char.decode(label.astype(bytes)) if label.dtype == object else label
    np.testing.assert_array_equal(label, wanted["label"])
    for key, scores in found.items():
        np.testing.assert_allclose(scores, wanted[key], rtol=RTOL, atol=ATOL)


@pytest.mark.filterwarnings("ignore:The `probability` parameter:FutureWarning")
@pytest.mark.parametrize("name", thinned(MODELS, 2))
def test_artifacts_answer_as_scikit_learn_does(name: str, tmp_path: Path, modelpack) -> None:
    make, load = MODELS[name]
    rows, labels = load()
    seen, held_out, seen_labels, _ = train_test_split(rows, labels, random_state=0)
    model = make().fit(seen, seen_labels)
    skops.io.dump(model, tmp_path / "model.skops")
    to = [word for form in FORMS for word in ("--to", form)]
    modelpack.ok("convert", "model.skops", "-o", "out", *to)
    for form in FORMS:
        for chosen in (held_out[:1], held_out):
            matches(form, tmp_path / "out", model, chosen)


def sentences() -> tuple[Any, Any]:
    """Lines of the descriptions of data sets, and of which set."""
    names = ("iris", "diabetes", "breast_cancer", "wine", "digits", "linnerud")
    pairs = [
        (line.strip(), name)
        for name in names
        for line in getattr(datasets, f"load_{name}")().DESCR.splitlines()
        if len(line.split()) > 3
    ]
    texts, labels = zip(*pairs, strict=True)
    return np.array(texts, object), np.array(labels)


def test_a_text_classifier_becomes_a_saved_model_and_no_tflite_file(
    tmp_path: Path, modelpack
) -> None:
    seen, held_out, labels, _ = train_test_split(*sentences(), random_state=0)
    model = make_pipeline(TfidfVectorizer(ngram_range=(1, 2)), LogisticRegression())
    skops.io.dump(model.fit(seen, labels), tmp_path / "model.skops")
    modelpack.ok("convert", "model.skops", "-o", "out", "--to", "savedmodel")
    for chosen in (held_out[:1], held_out):
        matches("savedmodel", tmp_path / "out", model, chosen)
    refused = modelpack("convert", "model.skops", "-o", "lite", "--to", "tflite")
    assert refused.code == 5
    assert "Tokenizer" in refused.stderr
