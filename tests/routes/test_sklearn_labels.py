"""Classifiers of several labels a row, in ONNX: what scikit-learn answers, label by label."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import joblib
import numpy as np
import onnxruntime
import pytest
from sklearn.datasets import load_iris
from sklearn.dummy import DummyClassifier
from sklearn.ensemble import RandomForestClassifier
from sklearn.linear_model import LogisticRegression, Ridge, RidgeClassifier
from sklearn.multiclass import OneVsRestClassifier
from sklearn.multioutput import ClassifierChain, MultiOutputClassifier
from sklearn.neighbors import KNeighborsClassifier, KNeighborsRegressor, RadiusNeighborsClassifier
from sklearn.neural_network import MLPClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import SVC, LinearSVC
from sklearn.tree import DecisionTreeClassifier

from modelpack.adapters import sklearn as sklearn_adapter
from modelpack.artifact import Encoding, ModelRef
from modelpack.errors import UnsupportedOpsError
from modelpack.steps import StepOptions

RNG = np.random.default_rng(0)
# Off the grid of one decimal, on which many distances are equal.
ROWS, IRIS = load_iris(return_X_y=True)
ROWS = (ROWS + RNG.normal(0, 0.01, ROWS.shape)).astype(np.float32)
TRAIN = RNG.permutation(150)[:100]
KINDS = np.array(["setosa", "versicolor", "Ünïcode"])

YES_NO = np.c_[IRIS > 0, IRIS > 1, ROWS[:, 0] > 5.8].astype(int)
CONSTANT = np.c_[YES_NO, np.ones(150, int), np.zeros(150, int)]
NUMBERS = np.c_[IRIS, ROWS[:, 1] > 3, np.digitize(ROWS[:, 0], [5, 5.5, 6, 6.5])].astype(int)
TEXTS = np.c_[KINDS[IRIS], np.where(ROWS[:, 1] > 3, "hi", "lo")].astype(object)


def _svm_first() -> Any:
    return make_pipeline(StandardScaler(), SVC())


# Several labels with a list of classes for each, and with 0 or 1 for each.
OF_CLASSES: dict[str, Callable[[], Any]] = {
    "tree": lambda: DecisionTreeClassifier(max_depth=3, random_state=0),
    "forest": lambda: RandomForestClassifier(10, random_state=0),
    "neighbors": KNeighborsClassifier,
    "weighted neighbors": lambda: KNeighborsClassifier(7, weights="distance", p=1),
    "radius": lambda: RadiusNeighborsClassifier(0.8, outlier_label="most_frequent"),
    "each": lambda: MultiOutputClassifier(LogisticRegression(max_iter=500)),
    "each, without probabilities": lambda: MultiOutputClassifier(LinearSVC()),
    "scaled": lambda: make_pipeline(StandardScaler(), RandomForestClassifier(5, random_state=0)),
    "dummy": DummyClassifier,
}
OF_ZERO_ONE: dict[str, Callable[[], Any]] = {
    "perceptron": lambda: MLPClassifier((8,), max_iter=50, random_state=0),
    "ridge": lambda: make_pipeline(StandardScaler(), RidgeClassifier()),
    "rest, logistic": lambda: OneVsRestClassifier(LogisticRegression()),
    "rest, vectors": lambda: OneVsRestClassifier(_svm_first()),
    "rest, regression": lambda: OneVsRestClassifier(Ridge()),
    "rest, forest": lambda: OneVsRestClassifier(RandomForestClassifier(5, random_state=0)),
}
CHAINS: dict[str, Callable[[], Any]] = {
    "predictions": lambda: ClassifierChain(LogisticRegression(), order="random", random_state=1),
    "decisions": lambda: ClassifierChain(LinearSVC(), chain_method="decision_function"),
    "probabilities": lambda: make_pipeline(
        StandardScaler(), ClassifierChain(LogisticRegression(), chain_method="predict_proba")
    ),
    "trees": lambda: ClassifierChain(DecisionTreeClassifier(max_depth=3, random_state=0)),
}
CASES = {
    **{
        f"{name}, {kind}": (make, labels)
        for name, make in OF_CLASSES.items()
        for kind, labels in (("0 and 1", YES_NO), ("numbers", NUMBERS), ("texts", TEXTS))
    },
    **{f"{name}, 0 and 1": (make, YES_NO) for name, make in OF_ZERO_ONE.items()},
    **{f"{name}, two": (make, YES_NO[:, :2]) for name, make in OF_ZERO_ONE.items()},
    "rest, constant labels": (OF_ZERO_ONE["rest, logistic"], CONSTANT),
    **{f"chain by {name}": (make, YES_NO) for name, make in CHAINS.items()},
    "chain of numbers": (CHAINS["trees"], NUMBERS),
}


def _session(model: Any, folder: Path) -> Any:
    joblib.dump(model, folder / "m.joblib")
    source = ModelRef("sklearn", Encoding.PICKLE, str(folder / "m.joblib"), trusted=True)
    sklearn_adapter.to_onnx(source, str(folder / "m.onnx"), StepOptions())
    return onnxruntime.InferenceSession(folder / "m.onnx", providers=["CPUExecutionProvider"])


def _answers(model: Any, rows: Any) -> dict[str, Any]:
    """What scikit-learn answers, by the names that the outputs of an artifact have."""
    found = {"label": model.predict(rows)}
    chosen = next((m for m in ("predict_proba", "decision_function") if hasattr(model, m)), None)
    if chosen is None:
        return found
    try:
        scores = getattr(model, chosen)(rows)
    except ValueError:  # a chain of more than two classes has none
        return found
    name = "probabilities" if chosen == "predict_proba" else "scores"
    if isinstance(scores, list):
        return found | {f"{name}_{part}": values for part, values in enumerate(scores)}
    return found | {name: scores}


@pytest.mark.parametrize("case", CASES)
def test_each_label_is_what_scikit_learn_says(case: str, tmp_path: Path) -> None:
    make, labels = CASES[case]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = make().fit(ROWS[TRAIN], labels[TRAIN])
    session = _session(model, tmp_path)
    wanted = _answers(model, ROWS)
    names = [output.name for output in session.get_outputs()]
    assert names == list(wanted)
    for size in (len(ROWS), 1):
        found = dict(zip(names, session.run(None, {"X": ROWS[:size]}), strict=True))
        np.testing.assert_array_equal(found["label"], wanted["label"][:size])
        for name in names[1:]:
            np.testing.assert_allclose(found[name], wanted[name][:size], rtol=1e-5, atol=1e-5)


def test_of_classes_as_likely_as_each_other_the_first_is_chosen(tmp_path: Path) -> None:
    """Trees of which each half says another class: sums are equal, in any order of adding."""
    rows = RNG.integers(0, 2, (200, 3)).astype(np.float32)
    labels = RNG.integers(0, 3, (200, 2))
    model = RandomForestClassifier(6, max_features=1, random_state=0).fit(rows[:9], labels[:9])
    votes = np.stack([tree.predict(rows) for tree in model.estimators_])
    counts = np.stack([(votes == each).sum(0) for each in range(3)])
    assert (np.sort(counts, 0)[-1] == np.sort(counts, 0)[-2]).any()
    (found, *_) = _session(model, tmp_path).run(None, {"X": rows})
    np.testing.assert_array_equal(found, model.predict(rows))


@pytest.mark.parametrize(
    "names", [[0, 1], [0, 1, 2], [3, 5, 9], ["a", "ü"], ["a", "b", "ü"]], ids=str
)
@pytest.mark.parametrize("lost", [False, True], ids=["weighted", "class without weight"])
def test_a_forest_chooses_the_first_of_equal_classes(
    names: list[Any], lost: bool, tmp_path: Path
) -> None:
    rng = np.random.default_rng(3)
    rows = rng.permutation(30)[:, None] + rng.random((30, 3))  # all different: pure leaves
    places = np.arange(30) % len(names)
    weights = np.where(places == 1, 0.0, 1.0) if lost else None
    model = RandomForestClassifier(6, max_features=1, random_state=0)
    model.fit(rows, np.array(names)[places], sample_weight=weights)
    asked = rng.uniform(0, 30, (2000, 3)).astype(np.float32)
    shares = model.predict_proba(asked)
    best = np.sort(shares, 1)
    assert lost or (best[:, -1] == best[:, -2]).any()
    label, found = _session(model, tmp_path).run(None, {"X": asked})
    np.testing.assert_array_equal(label, model.predict(asked))
    np.testing.assert_allclose(found, shares, rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("inner", [LinearSVC(), SVC(), RidgeClassifier(), LogisticRegression()])
@pytest.mark.parametrize("labels", [IRIS, IRIS > 0, KINDS[IRIS]], ids=["3", "2", "texts"])
def test_one_versus_the_rest_decides_as_its_estimators_do(
    inner: Any, labels: Any, tmp_path: Path
) -> None:
    model = OneVsRestClassifier(inner).fit(ROWS[TRAIN], labels[TRAIN])
    label, scores = _session(model, tmp_path).run(None, {"X": ROWS})
    np.testing.assert_array_equal(label, model.predict(ROWS))
    method = "predict_proba" if hasattr(model, "predict_proba") else "decision_function"
    np.testing.assert_allclose(scores, getattr(model, method)(ROWS), rtol=1e-5, atol=1e-5)


NEIGHBORS = {
    "weighted columns": {"metric_params": {"w": [1, 2, 3, 4]}},
    "weighted columns, sums": {"p": 1, "metric_params": {"w": [1, 2, 3, 4]}},
    "largest difference": {"metric": "chebyshev", "weights": "distance"},
    "cubes": {"p": 3, "weights": "distance"},
}


@pytest.mark.parametrize("case", NEIGHBORS)
def test_neighbors_are_near_by_the_metric_that_was_asked_for(case: str, tmp_path: Path) -> None:
    rows = np.delete(ROWS, TRAIN, axis=0)
    classifier = KNeighborsClassifier(7, **NEIGHBORS[case]).fit(ROWS[TRAIN], IRIS[TRAIN])
    label, shares = _session(classifier, tmp_path).run(None, {"X": rows})
    np.testing.assert_array_equal(label, classifier.predict(rows))
    np.testing.assert_allclose(shares, classifier.predict_proba(rows), rtol=1e-5, atol=1e-5)
    (tmp_path / "other").mkdir()
    regressor = KNeighborsRegressor(7, **NEIGHBORS[case]).fit(ROWS[TRAIN], ROWS[TRAIN, :2])
    (found,) = _session(regressor, tmp_path / "other").run(None, {"X": rows})
    np.testing.assert_allclose(found, regressor.predict(rows), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    ("settings", "reason"),
    [
        ({"weights": np.exp}, "weights by a function"),
        ({"metric": "canberra"}, "the metric 'canberra'"),
    ],
)
def test_neighbors_that_cannot_be_written_are_refused_by_name(
    settings: Any, reason: str, tmp_path: Path
) -> None:
    model = KNeighborsClassifier(**settings).fit(ROWS, YES_NO)
    with pytest.raises(UnsupportedOpsError, match=f"KNeighborsClassifier.*{reason}"):
        _session(model, tmp_path)


def test_a_row_without_neighbors_is_an_error_where_scikit_learn_has_no_label_for_it(
    tmp_path: Path,
) -> None:
    model = RadiusNeighborsClassifier(6.5).fit(ROWS, IRIS)
    session = _session(model, tmp_path)
    near, far = ROWS[:5], ROWS[:5] + np.float32(100)
    np.testing.assert_array_equal(session.run(None, {"X": near})[0], model.predict(near))
    with pytest.raises(ValueError, match="No neighbors"):
        model.predict(far)
    with pytest.raises(Exception, match="out of data bounds"):
        session.run(None, {"X": far})
