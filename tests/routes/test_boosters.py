"""XGBoost, LightGBM and CatBoost against their own answers, for rows with missing values too."""

from __future__ import annotations

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
import skops.io
import xgboost
from sklearn import datasets
from sklearn.compose import ColumnTransformer
from sklearn.ensemble import VotingClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import train_test_split
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler

from modelpack.adapters import sklearn as adapter
from modelpack.adapters.boosters import is_booster
from modelpack.adapters.boosters.reading import read
from modelpack.adapters.sklearn_columns import columns_of
from modelpack.adapters.sklearn_refusals import refuse_unsupported
from modelpack.adapters.sklearn_signature import answers
from modelpack.artifact import Encoding, ModelRef, detect
from modelpack.errors import UnsupportedOpsError
from modelpack.steps import StepOptions
from tests.routes.test_sklearn_formats import RUN, feeds
from tests.thinned import thinned

RTOL, ATOL = 2e-6, 1e-6

Rows = np.ndarray[Any, Any]


def with_gaps(rows: Rows) -> Rows:
    """Float32 rows of which some values are missing."""
    rows = rows.astype(np.float32)
    rows[np.random.default_rng(0).random(rows.shape) < 0.05] = np.nan
    return rows


def tumours() -> tuple[Rows, Rows]:
    rows, labels = datasets.load_breast_cancer(return_X_y=True)
    return with_gaps(rows), labels


def irises() -> tuple[Rows, Rows]:
    rows, labels = datasets.load_iris(return_X_y=True)
    return with_gaps(rows), np.array(["setosa", "versicolor", "virginica"])[labels]


def numbered_irises() -> tuple[Rows, Rows]:
    rows, labels = datasets.load_iris(return_X_y=True)
    return with_gaps(rows), labels


def diabetes() -> tuple[Rows, Rows]:
    rows, targets = datasets.load_diabetes(return_X_y=True)
    return with_gaps(rows), targets


def categories() -> tuple[Rows, Rows]:
    """Tumours, of which two measurements are numbers of classes, many and few, in no order."""
    rows, labels = tumours()
    rows = rows[:, :4]
    rng = np.random.default_rng(0)
    for column, count in ((0, 40), (1, 3)):
        present = ~np.isnan(rows[:, column])
        cuts = np.quantile(rows[present, column], np.linspace(0, 1, count + 1)[1:-1])
        rows[present, column] = rng.permutation(count)[np.digitize(rows[present, column], cuts)]
    return rows, labels


def zeros_missing() -> tuple[Rows, Rows]:
    rows, labels = tumours()
    return np.where(rows < 1e-2, 0, rows), labels


def numbers_missing() -> tuple[Rows, Rows]:
    rows, labels = tumours()
    return np.where(np.isnan(rows), -1, rows), labels


def xgb(kind: str, **options: Any) -> Callable[[], Any]:
    return lambda: getattr(xgboost, f"XGB{kind}")(**{"n_estimators": 8, "n_jobs": 1, **options})


def lgb(kind: str, **options: Any) -> Callable[[], Any]:
    return lambda: getattr(lightgbm, f"LGBM{kind}")(
        **{"n_estimators": 8, "verbose": -1, "n_jobs": 1, **options}
    )


def cat(kind: str, **options: Any) -> Callable[[], Any]:
    return lambda: getattr(catboost, f"CatBoost{kind}")(
        **{
            "iterations": 8,
            "verbose": 0,
            "allow_writing_files": False,
            "thread_count": 1,
            **options,
        }
    )


TYPES = {"enable_categorical": True, "feature_types": ["c", "c", "q", "q"]}
GROUPS = {"categorical_feature": [0, 1], "min_data_per_group": 5, "cat_smooth": 1}
BAGGED = {"boosting_type": "rf", "subsample": 0.5, "subsample_freq": 1}

MODELS: dict[str, tuple[Callable[[], Any], Callable[[], tuple[Any, Any]]]] = {
    "xgboost": (xgb("Classifier"), tumours),
    "xgboost, three classes": (xgb("Classifier"), numbered_irises),
    "xgboost, random forest": (xgb("RFRegressor"), diabetes),
    "xgboost, dart": (xgb("Regressor", booster="dart", rate_drop=0.5), diabetes),
    "xgboost, counts": (xgb("Regressor", objective="count:poisson"), diabetes),
    "xgboost, hinge": (xgb("Classifier", objective="binary:hinge"), tumours),
    "xgboost, base score": (xgb("Classifier", base_score=0.1), tumours),
    "xgboost, number for missing": (xgb("Classifier", missing=-1.0), numbers_missing),
    "xgboost, categories": (xgb("Classifier", **TYPES), categories),
    "xgboost, one category a split": (
        xgb("Classifier", max_cat_to_onehot=100, **TYPES),
        categories,
    ),
    "lightgbm": (lgb("Classifier"), tumours),
    "lightgbm, three classes": (lgb("Classifier"), irises),
    "lightgbm, one against all": (lgb("Classifier", objective="multiclassova"), irises),
    "lightgbm, regression": (lgb("Regressor"), diabetes),
    "lightgbm, random forest": (lgb("Classifier", **BAGGED), irises),
    "lightgbm, square root": (lgb("Regressor", reg_sqrt=True), diabetes),
    "lightgbm, entropy": (lgb("Regressor", objective="cross_entropy_lambda"), tumours),
    "lightgbm, sigmoid": (lgb("Classifier", sigmoid=2.5), tumours),
    "lightgbm, zero for missing": (lgb("Classifier", zero_as_missing=True), zeros_missing),
    "lightgbm, nothing missing": (lgb("Classifier", use_missing=False), tumours),
    "lightgbm, categories": (lgb("Classifier", **GROUPS), categories),
    "lightgbm, single leaves": (lgb("Regressor", min_child_samples=10_000), diabetes),
    "catboost": (cat("Classifier"), tumours),
    "catboost, three classes": (cat("Classifier"), irises),
    "catboost, one against all": (cat("Classifier", loss_function="MultiClassOneVsAll"), irises),
    "catboost, regression": (cat("Regressor"), diabetes),
    "catboost, missing above all": (cat("Regressor", nan_mode="Max"), diabetes),
    "catboost, leaf by leaf": (cat("Regressor", grow_policy="Lossguide"), diabetes),
    "catboost, counts": (cat("Regressor", loss_function="Poisson"), diabetes),
    "scaled xgboost": (lambda: make_pipeline(StandardScaler(), xgb("Classifier")()), tumours),
    "scaled lightgbm": (lambda: make_pipeline(StandardScaler(), lgb("Classifier")()), tumours),
    "scaled catboost": (lambda: make_pipeline(StandardScaler(), cat("Classifier")()), tumours),
}


def to_onnx(model: Any, directory: Path, form: str = "") -> tuple[ModelRef, Path]:
    """Save a model, and convert it."""
    file, target = directory / "model.joblib", directory / "model.onnx"
    joblib.dump(model, file)
    ref = ModelRef("sklearn", Encoding.PICKLE, str(file), trusted=True, input_form=form)
    adapter.to_onnx(ref, str(target), StepOptions())
    return ref, target


def compare(found: list[Rows], wanted: list[Rows]) -> None:
    for have, want in zip(found, wanted, strict=True):
        if want.dtype.kind == "f":
            np.testing.assert_allclose(have, want, RTOL, ATOL * max(1, abs(want).max()))
        else:
            np.testing.assert_array_equal(have, want)


def agrees(model: Any, target: Path, rows: Rows) -> None:
    """Fail unless an ONNX file answers as a model of one matrix does."""
    session = onnxruntime.InferenceSession(str(target))
    found = session.run(None, {session.get_inputs()[0].name: rows})
    compare(found, answers(model, columns_of(model), [rows]))


def rows_around(held_out: Rows) -> Rows:
    """Rows that were not fitted on, rows beyond them, and rows that are all of one value."""
    nothing = np.full((2, held_out.shape[1]), np.nan, np.float32)
    nothing[1] = 0
    near = held_out + np.float32(0.5)
    return np.concatenate([held_out, near, -held_out[:20], nothing]).astype(np.float32)


def rows_on_thresholds(model: Any, row: Rows) -> Rows:
    """Rows with a value that is a threshold, and with the float32 below and above it."""
    found = []
    for tree in read(model).trees:
        for node in np.flatnonzero(tree.left >= 0):
            cut = np.float32(tree.threshold[node])
            for value in (np.nextafter(cut, np.float32(-np.inf)), cut, np.nextafter(cut, cut + 1)):
                found.append(row.copy())
                found[-1][tree.feature[node]] = value
    return np.array(found, np.float32)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    "name", [name for name in MODELS if "scaled" not in name and "single" not in name]
)
def test_values_at_thresholds_go_the_same_way(name: str, tmp_path: Path) -> None:
    make, load = MODELS[name]
    rows, labels = load()
    model = make().fit(rows, labels)
    _, target = to_onnx(model, tmp_path)
    complete = rows[~np.isnan(rows).any(axis=1)]
    agrees(model, target, rows_on_thresholds(model, complete[0])[:4000])


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", thinned(MODELS, 9))
def test_onnx_answers_as_the_booster_does(name: str, tmp_path: Path) -> None:
    make, load = MODELS[name]
    rows, labels = load()
    seen, held_out, seen_labels, _ = train_test_split(rows, labels, random_state=0)
    model = make().fit(seen, seen_labels)
    _, target = to_onnx(model, tmp_path)
    agrees(model, target, seen)
    # XGBoost refuses NaN where another number is said to mean it.
    agrees(model, target, held_out if "number for" in name else rows_around(held_out))


@pytest.mark.filterwarnings("ignore")
def test_early_stopping_keeps_the_best_trees_only(tmp_path: Path) -> None:
    rows, labels = tumours()
    seen, rest, seen_labels, rest_labels = train_test_split(rows, labels, random_state=0)
    model = xgb("Classifier", n_estimators=200, early_stopping_rounds=2, learning_rate=1.0)()
    model.fit(seen, seen_labels, eval_set=[(rest, rest_labels)], verbose=False)
    assert model.best_iteration + 1 < model.get_booster().num_boosted_rounds()
    _, target = to_onnx(model, tmp_path)
    agrees(model, target, rest)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("make", [xgb("Ranker"), lgb("Ranker")], ids=["xgboost", "lightgbm"])
def test_rankers_answer_scores(make: Callable[[], Any], tmp_path: Path) -> None:
    rows, labels = numbered_irises()
    order = np.argsort(np.arange(len(rows)) % 5, kind="stable")
    model = make().fit(rows[order], labels[order], group=[30] * 5)
    ref, target = to_onnx(model, tmp_path)
    assert [spec.name for spec in adapter.describe(ref).signature.outputs] == ["prediction"]
    agrees(model, target, rows)


@pytest.mark.filterwarnings("ignore")
def test_words_and_numbers_before_a_booster(tmp_path: Path) -> None:
    rows, labels = tumours()
    frame = pd.DataFrame(rows[:, :4], columns=["radius", "texture", "perimeter", "area"])
    frame["size"] = np.where(np.nan_to_num(rows[:, 0]) > 14, "large", "small")
    columns = ColumnTransformer(
        [
            ("numbers", StandardScaler(), ["radius", "texture", "area"]),
            ("words", OneHotEncoder(handle_unknown="ignore"), ["size"]),
        ]
    )
    model = make_pipeline(columns, lgb("Classifier")()).fit(frame, labels)
    _, target = to_onnx(model, tmp_path)
    session = onnxruntime.InferenceSession(str(target))
    feed = {
        item.name: np.asarray(frame[item.name]).astype(
            object if item.name == "size" else np.float32
        )[:, None]
        for item in session.get_inputs()
    }
    found = session.run(None, feed)
    compare(found, [model.predict(frame), model.predict_proba(frame).astype(np.float32)])


@pytest.mark.filterwarnings("ignore")
def test_boosters_vote_with_others(tmp_path: Path) -> None:
    rows, labels = datasets.load_breast_cancer(return_X_y=True)
    rows = rows.astype(np.float32)
    members = [("x", xgb("Classifier")()), ("l", lgb("Classifier")()), ("c", cat("Classifier")())]
    model = VotingClassifier(members, voting="soft").fit(rows, labels)
    _, target = to_onnx(model, tmp_path)
    agrees(model, target, rows)


# --- refusals ------------------------------------------------------------------------


def frame_of_categories() -> tuple[pd.DataFrame, Rows]:
    rows, labels = tumours()
    words = np.where(np.nan_to_num(rows[:, 0]) > 14, "large", "small")
    return pd.DataFrame({"a": rows[:, 1], "size": pd.Categorical(words)}), labels


def whole_numbers() -> tuple[pd.DataFrame, Rows]:
    rows, labels = tumours()
    group = np.digitize(np.nan_to_num(rows[:, 0]), [12, 15, 18])
    return pd.DataFrame({"a": rows[:, 1], "group": group}), labels


def twice() -> tuple[Rows, Rows]:
    rows, targets = diabetes()
    return rows, np.stack([targets, -targets], 1)


REFUSED: dict[str, tuple[Callable[[], Any], Callable[[], tuple[Any, Any]], str]] = {
    "xgboost, linear": (xgb("Regressor", booster="gblinear"), diabetes, "gblinear"),
    "xgboost, margins": (
        xgb("Classifier", objective="binary:logitraw"),
        tumours,
        "binary:logitraw",
    ),
    "xgboost, leaves of several": (
        xgb("Regressor", multi_strategy="multi_output_tree"),
        twice,
        "multi_output_tree",
    ),
    "xgboost, pandas": (
        xgb("Classifier", enable_categorical=True),
        frame_of_categories,
        "pandas categories",
    ),
    "lightgbm, linear": (lgb("Regressor", linear_tree=True), diabetes, "linear_tree"),
    "lightgbm, pandas": (lgb("Classifier"), frame_of_categories, "pandas categories"),
    "catboost, several": (cat("Regressor", loss_function="MultiRMSE"), twice, "MultiRMSE"),
    "catboost, categories": (
        cat("Classifier", cat_features=["group"]),
        whole_numbers,
        "categorical",
    ),
}


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_right_is_refused_by_name(name: str, tmp_path: Path) -> None:
    make, load, reason = REFUSED[name]
    rows, labels = load()
    model = make().fit(rows, labels)
    with pytest.raises(UnsupportedOpsError, match=reason):
        refuse_unsupported(model)


# --- files of their own --------------------------------------------------------------


def save_xgboost(model: Any, path: Path) -> None:
    model.save_model(path)


def save_lightgbm(model: Any, path: Path) -> None:
    model.booster_.save_model(path)


def save_catboost(model: Any, path: Path) -> None:
    model.save_model(str(path), format=path.suffix[1:])


FILES: dict[str, tuple[str, Callable[[Any, Path], None], Encoding]] = {
    "model.ubj": ("xgboost, categories", save_xgboost, Encoding.XGBOOST),
    "model.json": ("xgboost, three classes", save_xgboost, Encoding.XGBOOST),
    "model.txt": ("lightgbm, categories", save_lightgbm, Encoding.LIGHTGBM),
    "model.cbm": ("catboost, three classes", save_catboost, Encoding.CATBOOST),
    "catboost.json": ("catboost, regression", save_catboost, Encoding.CATBOOST),
}


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("file", FILES)
def test_files_of_boosters_are_told_by_their_content(file: str, tmp_path: Path) -> None:
    name, save, encoding = FILES[file]
    make, load = MODELS[name]
    rows, labels = load()
    model = make().fit(rows, labels)
    save(model, tmp_path / file)
    renamed = (tmp_path / file).rename(tmp_path / "renamed.bin")
    assert detect(renamed) is encoding
    ref = ModelRef("sklearn", encoding, str(renamed))
    adapter.to_onnx(ref, str(tmp_path / "model.onnx"), StepOptions())
    agrees(model, tmp_path / "model.onnx", rows_around(rows))


@pytest.mark.filterwarnings("ignore")
def test_a_bare_booster_in_a_pickle_is_converted(tmp_path: Path) -> None:
    rows, labels = tumours()
    model = lgb("Classifier")().fit(rows, labels)
    joblib.dump(model.booster_, tmp_path / "bare.joblib")
    ref = ModelRef("sklearn", Encoding.PICKLE, str(tmp_path / "bare.joblib"), trusted=True)
    adapter.to_onnx(ref, str(tmp_path / "model.onnx"), StepOptions())
    agrees(model, tmp_path / "model.onnx", rows)


@pytest.mark.filterwarnings("ignore")
def test_a_damaged_file_of_a_booster_is_refused(tmp_path: Path, modelpack) -> None:
    rows, labels = tumours()
    save_xgboost(xgb("Classifier")().fit(rows, labels), tmp_path / "model.ubj")
    content = (tmp_path / "model.ubj").read_bytes()
    (tmp_path / "half.ubj").write_bytes(content[: len(content) // 2])
    outcome = modelpack("convert", "half.ubj", "-o", "model.onnx")
    assert outcome.code == 2, outcome.stderr
    assert "cannot load 'half.ubj'" in outcome.stderr


# --- all formats ---------------------------------------------------------------------


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("file", thinned(["model.ubj", "model.txt", "model.cbm"], 3))
def test_savedmodel_and_tflite_answer_as_the_booster_does(
    file: str, tmp_path: Path, modelpack
) -> None:
    name, save, _ = FILES[file]
    make, load = MODELS[name]
    rows, labels = load()
    seen, held_out, seen_labels, _ = train_test_split(rows, labels, random_state=0)
    model = make().fit(seen, seen_labels)
    save(model, tmp_path / file)
    modelpack.ok("convert", file, "-o", "out", "--to", "savedmodel", "--to", "tflite")
    around = rows_around(held_out)
    for form, run in RUN.items():
        found = run(tmp_path / "out", feeds(tmp_path / "out", around))
        label = found["label"]
        label = np.char.decode(label.astype(bytes)) if label.dtype == object else label
        np.testing.assert_array_equal(label, model.predict(around).reshape(-1), form)
        wanted = model.predict_proba(around)
        np.testing.assert_allclose(found["probabilities"], wanted, RTOL, ATOL)


@pytest.mark.filterwarnings("ignore")
def test_a_booster_in_a_skops_file_is_converted(tmp_path: Path) -> None:
    rows, labels = tumours()
    model = make_pipeline(StandardScaler(), xgb("Classifier")()).fit(rows, labels)
    skops.io.dump(model, tmp_path / "model.skops")
    ref = ModelRef("sklearn", Encoding.SKOPS, str(tmp_path / "model.skops"))
    assert adapter.scan(ref) == []
    adapter.to_onnx(ref, str(tmp_path / "model.onnx"), StepOptions())
    agrees(model, tmp_path / "model.onnx", rows)


def test_an_estimator_that_is_no_booster_is_none() -> None:
    assert not is_booster(LogisticRegression())
