"""Random pipelines of scikit-learn: a few of those of the sweep, and that a wrong one is seen."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import joblib
import numpy as np
import onnx
import pytest
from sklearn.calibration import CalibratedClassifierCV
from sklearn.decomposition import IncrementalPCA
from sklearn.discriminant_analysis import (
    QuadraticDiscriminantAnalysis,
)
from sklearn.ensemble import (
    AdaBoostClassifier,
    BaggingClassifier,
    GradientBoostingClassifier,
    RandomForestClassifier,
    RandomTreesEmbedding,
    StackingClassifier,
    VotingClassifier,
)
from sklearn.experimental import enable_iterative_imputer  # noqa: F401
from sklearn.impute import IterativeImputer, SimpleImputer
from sklearn.linear_model import LogisticRegression, Perceptron, Ridge, RidgeClassifier
from sklearn.model_selection import (
    FixedThresholdClassifier,
    GridSearchCV,
    TunedThresholdClassifierCV,
)
from sklearn.multiclass import OneVsOneClassifier, OneVsRestClassifier
from sklearn.naive_bayes import GaussianNB
from sklearn.neighbors import KNeighborsClassifier, NearestCentroid
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import (
    KBinsDiscretizer,
    MaxAbsScaler,
    Normalizer,
    QuantileTransformer,
    SplineTransformer,
    StandardScaler,
)
from sklearn.svm import SVC, LinearSVC
from sklearn.tree import DecisionTreeClassifier, DecisionTreeRegressor

from modelpack.adapters import sklearn as sklearn_adapter
from modelpack.artifact import Encoding, ModelRef
from modelpack.errors import UnsupportedOpsError
from modelpack.signature import Signature
from modelpack.steps import StepOptions
from tests.sweep.sklearn_answers import Comparison, compared
from tests.sweep.sklearn_pipelines import become, session, trial
from tests.sweep.sklearn_tables import Column, Form, Table, table

EXPECTED = {"right", "refused", "unfit"}


@pytest.mark.parametrize("first", [0, 5, 10, 15, 20])
def test_random_pipelines_are_right_or_refused(first: int, tmp_path: Path) -> None:
    for number in range(first, first + 5):
        folder = tmp_path / str(number)
        folder.mkdir()
        outcome = become(trial(number), folder)
        assert outcome.kind in EXPECTED, (number, outcome)


MIXED = tuple(
    Column(kind, scale, 0.0)
    for kind, scale in (("normal", 30.0), ("whole", 1.0), ("flag", 1.0), ("constant", 1.0))
)


def converted(model: Any, made: Table, folder: Path) -> tuple[Any, Signature, Path]:
    """A fitted estimator, its signature and its ONNX file."""
    fitted = model.fit(made.rows, made.targets)
    file, target = folder / "m.joblib", folder / "m.onnx"
    joblib.dump(fitted, file)
    source = ModelRef("sklearn", Encoding.PICKLE, str(file), trusted=True)
    signature = sklearn_adapter.describe(source).signature
    sklearn_adapter.to_onnx(source, str(target), StepOptions())
    return fitted, signature, target


def outcome_of(model: Any, form: Form, folder: Path) -> Comparison:
    made = table(form)
    fitted, signature, file = converted(model, made, folder)
    return compared(fitted, made, signature, session(file))


@pytest.mark.parametrize(
    "model",
    [
        MaxAbsScaler(clip=True),
        Normalizer(norm="max"),
        KBinsDiscretizer(4, encode="ordinal", strategy="uniform"),
        QuantileTransformer(n_quantiles=20, output_distribution="normal"),
        *(
            SplineTransformer(4, degree=degree, knots="quantile", extrapolation=extrapolation)
            for degree in (1, 3)
            for extrapolation in ("constant", "linear", "continue")
        ),
        make_pipeline(StandardScaler(), SVC(kernel="poly", break_ties=True)),
    ],
    ids=repr,
)
def test_steps_that_were_wrong_once(model: Any, tmp_path: Path) -> None:
    found = outcome_of(model, Form(MIXED, rows=60, target="several"), tmp_path)
    assert not found.reason
    assert found.rows > 200


def assert_classified(model: Any, target: str, folder: Path) -> None:
    """A classifier answers as scikit-learn's own, of booleans or of numbers with gaps."""
    labels = "bool" if target == "binary" else "gaps"
    found = outcome_of(model, Form(MIXED, rows=60, target=target, labels=labels), folder)
    assert not found.reason
    assert found.rows > 200


@pytest.mark.parametrize(
    "model",
    [
        VotingClassifier([("a", NearestCentroid(metric="manhattan")), ("b", LinearSVC())]),
        VotingClassifier(
            [("a", GaussianNB()), ("b", LogisticRegression())], voting="soft", weights=[1, 3]
        ),
        BaggingClassifier(NearestCentroid(), 3, random_state=0),
        BaggingClassifier(GaussianNB(), 3, max_samples=4, random_state=0),
        AdaBoostClassifier(n_estimators=5, random_state=0),
        GradientBoostingClassifier(init="zero", n_estimators=3, random_state=0),
        make_pipeline(RandomTreesEmbedding(3, random_state=0), Perceptron()),
    ],
    ids=repr,
)
@pytest.mark.parametrize("target", ["binary", "several"])
def test_classifiers_of_classifiers(model: Any, target: str, tmp_path: Path) -> None:
    assert_classified(model, target, tmp_path)


def calibrated(inner: Any) -> CalibratedClassifierCV:
    return CalibratedClassifierCV(inner, cv=2)


def stacked(inner: Any) -> StackingClassifier:
    return StackingClassifier([("a", inner)], cv=2, stack_method="decision_function")


BOOSTED = AdaBoostClassifier(n_estimators=3, random_state=0)
GRADUAL = GradientBoostingClassifier(n_estimators=2, random_state=0)
BAGGED = BaggingClassifier(RidgeClassifier(), 2, max_features=0.5, random_state=0)
SCALED = make_pipeline(StandardScaler(), LogisticRegression())


@pytest.mark.parametrize(
    ("model", "target"),
    [
        (calibrated(BOOSTED), "binary"),
        (calibrated(BAGGED), "several"),
        (calibrated(make_pipeline(StandardScaler(), BAGGED)), "binary"),
        (calibrated(SCALED), "several"),
        (calibrated(make_pipeline(StandardScaler(), GRADUAL)), "binary"),
        (calibrated(OneVsRestClassifier(BOOSTED)), "binary"),
        (calibrated(GridSearchCV(SCALED, {"logisticregression__C": [0.1, 1]}, cv=2)), "several"),
        (stacked(BOOSTED), "several"),
        (calibrated(StackingClassifier([("a", GaussianNB())], BOOSTED, cv=2)), "binary"),
        (OneVsOneClassifier(BAGGED), "several"),
        (OneVsOneClassifier(GRADUAL), "several"),  # with decisions of exactly 0
        (OneVsRestClassifier(BAGGED), "several"),
        (
            FixedThresholdClassifier(BOOSTED, threshold=0.1, response_method="decision_function"),
            "binary",
        ),
    ],
    ids=lambda item: "".join(repr(item).split()),
)
def test_decisions_inside_of_other_classifiers(model: Any, target: str, tmp_path: Path) -> None:
    assert_classified(model, target, tmp_path)


def test_a_decision_that_cannot_be_written_is_refused(tmp_path: Path) -> None:
    form = Form(MIXED[:1] * 2, rows=60, target="binary")
    with pytest.raises(UnsupportedOpsError, match="decision function of QuadraticDiscriminant"):
        outcome_of(calibrated(QuadraticDiscriminantAnalysis()), form, tmp_path)


@pytest.mark.parametrize(
    "model",
    [
        OneVsOneClassifier(RandomForestClassifier(5, max_depth=2, random_state=0)),
        # The mean of six zeros and ones, at or below a third that is in float64.
        TunedThresholdClassifierCV(RandomForestClassifier(6, random_state=0), cv=2, random_state=0),
    ],
    ids=repr,
)
def test_thresholds_of_forests(model: Any, tmp_path: Path) -> None:
    form = Form(tuple(Column(kind, 1.0, 0.0) for kind in ("whole", "normal")), rows=180, seed=3)
    assert not outcome_of(model, form, tmp_path).reason


def test_a_tree_tells_classes_apart_by_the_last_digits_of_float64(tmp_path: Path) -> None:
    labels, weights = [0, 0, 0, 1, 1, 1], [0.1, 0.7, 0.1, 0.7, 0.05, 0.15]
    tree = DecisionTreeClassifier().fit(np.zeros((6, 1)), labels, sample_weight=weights)
    first, second = tree.predict_proba([[0.0]])[0]
    assert first < second < first + 1e-12
    file, target = tmp_path / "m.joblib", tmp_path / "m.onnx"
    joblib.dump(tree, file)
    source = ModelRef("sklearn", Encoding.PICKLE, str(file), trusted=True)
    sklearn_adapter.to_onnx(source, str(target), StepOptions())
    assert session(target)({"X": np.zeros((1, 1), np.float32)})["label"] == tree.predict([[0.0]])


@pytest.mark.parametrize(
    ("model", "missing"),
    [
        (make_pipeline(SimpleImputer(), SplineTransformer(3, extrapolation="linear")), 0.1),
        (make_pipeline(IterativeImputer(), SplineTransformer(3, extrapolation="linear")), 0.1),
        # Of a row it was fitted on, the label itself: at a distance of exactly 0.
        (
            make_pipeline(IncrementalPCA(1, whiten=True), KNeighborsClassifier(weights="distance")),
            0.0,
        ),
    ],
    ids=repr,
)
def test_what_was_learned_in_float32_is_rounded_to_it(
    model: Any, missing: float, tmp_path: Path
) -> None:
    # The mean of the first is no float32, and its knots are a digit of float32 apart.
    columns = (Column("constant", 0.001, 0.018), Column("normal", 0.001, 0.0))
    form = Form((*columns, Column("flag", 1.0, 0.0)), rows=200, dtype="float32", missing=missing)
    assert not outcome_of(model, form, tmp_path).reason


def test_a_weight_that_is_off_by_a_thousandth_is_seen(tmp_path: Path) -> None:
    made = table(Form(MIXED, rows=60, target="value"))
    fitted, signature, file = converted(make_pipeline(StandardScaler(), Ridge()), made, tmp_path)
    assert not compared(fitted, made, signature, session(file)).reason
    model = onnx.load(file)
    node = next(node for node in model.graph.node if node.op_type == "LinearRegressor")
    weights = next(item for item in node.attribute if item.name == "coefficients")
    weights.floats[0] *= 1.001
    onnx.save(model, file)
    assert compared(fitted, made, signature, session(file)).by_rows["held out"]


def test_rows_on_a_threshold_are_no_errors_and_are_counted(tmp_path: Path) -> None:
    made = table(Form((Column("normal", 1.0, 0.0),), rows=60, target="value"))
    fitted, signature, _ = converted(DecisionTreeRegressor(max_depth=3), made, tmp_path)
    # A float32, and the threshold between that and the next.
    border = np.float32(fitted.tree_.threshold[0])
    rows = np.full((4, 1), border, np.float64)

    def other_side(feed: dict[str, Any]) -> dict[str, Any]:
        moved = np.nextafter(feed["X"], np.float32(np.inf)).astype(np.float64)
        return {"prediction": fitted.predict(moved).astype(np.float32)}

    found = compared(fitted, Table(rows, None, {"on a threshold": rows}), signature, other_side)
    sides = {fitted.predict([[float(border)]])[0], fitted.predict([[float(border) + 1e-5]])[0]}
    assert len(sides) == 2
    assert not found.reason
    assert found.ties == len(rows)
