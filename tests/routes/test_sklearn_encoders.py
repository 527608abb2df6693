"""Encoders, imputers and histogram boosting of categories, in ONNX: all their options.

An artifact is asked what scikit-learn is asked, float64 tables and pandas frames as they are.
"""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import joblib
import numpy as np
import onnxruntime
import pandas as pd
import pytest
from sklearn.compose import ColumnTransformer
from sklearn.ensemble import HistGradientBoostingClassifier, HistGradientBoostingRegressor
from sklearn.experimental import enable_iterative_imputer  # noqa: F401
from sklearn.impute import IterativeImputer, MissingIndicator, SimpleImputer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline, make_union
from sklearn.preprocessing import OneHotEncoder, OrdinalEncoder, StandardScaler, TargetEncoder

from modelpack.adapters import sklearn as sklearn_adapter
from modelpack.artifact import Encoding, ModelRef
from modelpack.errors import InputError, UnsupportedOpsError
from modelpack.signature import DType
from modelpack.steps import StepOptions

COLORS = ["red", "grün", "", "blue", "rare", "seldom"]


def _frame(seed: int, unknown: bool = False) -> pd.DataFrame:
    """Columns of text, whole numbers, fractions and truths; with values unknown to seed 0."""
    rng = np.random.default_rng(seed)
    count = 240
    frame = pd.DataFrame(
        {
            "color": rng.choice(COLORS, count, p=[0.4, 0.25, 0.1, 0.15, 0.06, 0.04]),
            "sure": rng.choice(["yes", "no"], count),
            "rooms": rng.integers(0, 6, count),
            "price": rng.choice([0.1, 0.5, 2.25, -3.0], count),
            "new": rng.random(count) < 0.5,
            "size": rng.normal(size=count).astype(np.float32).astype(np.float64),
        }
    )
    if unknown:
        odd = rng.random(count) < 0.15
        frame.loc[odd, "color"], frame.loc[odd, "sure"] = "ünknown", "maybe"
        frame.loc[odd, "rooms"], frame.loc[odd, "price"] = 17, 9.5
    return frame


def _with_gaps(frame: pd.DataFrame) -> pd.DataFrame:
    rng = np.random.default_rng(5)
    frame = frame.copy()
    for name in ("color", "sure", "price", "size"):
        frame.loc[rng.random(len(frame)) < 0.2, name] = np.nan
    return frame


KNOWN, ASKED = _frame(0), _frame(1, unknown=True)
GAPS, ASKED_GAPS = _with_gaps(KNOWN), _with_gaps(ASKED)
TARGET = ((KNOWN["color"] == "red") + KNOWN["size"] > 0.5).to_numpy().astype(int)
SEVERAL = np.digitize(KNOWN["size"], [-0.4, 0.4])
TEXT = ["color", "sure"]
MIXED = ["color", "rooms", "price", "new"]


def _source(model: Any, folder: Path) -> ModelRef:
    joblib.dump(model, folder / "m.joblib")
    return ModelRef("sklearn", Encoding.PICKLE, str(folder / "m.joblib"), trusted=True)


def _asked(model: Any, table: Any, folder: Path) -> list[Any]:
    """What the artifact of an estimator answers for a table."""
    source = _source(model, folder)
    signature = sklearn_adapter.describe(source).signature
    sklearn_adapter.to_onnx(source, str(folder / "m.onnx"), StepOptions())
    session = onnxruntime.InferenceSession(folder / "m.onnx", providers=["CPUExecutionProvider"])
    feeds = {}
    for place, spec in enumerate(signature.inputs):
        if isinstance(table, pd.DataFrame):
            values = table[list(spec.columns)].to_numpy(object)
        else:
            values = table[:, [place]] if len(signature.inputs) > 1 else table
        if spec.dtype is DType.STRING:  # a missing text is what Python prints for it
            feeds[spec.name] = np.vectorize(str, otypes=[object])(values)
        else:
            feeds[spec.name] = values.astype(spec.dtype.value)
    return list(session.run(None, feeds))


def _transformed(model: Any, table: Any) -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        answer = model.transform(table)
    return answer.toarray() if hasattr(answer, "toarray") else np.asarray(answer)


ONE_HOT = {
    f"{drop}, {unknown}, {rare}": OneHotEncoder(drop=drop, handle_unknown=unknown, **rare)
    for drop in (None, "first", "if_binary")
    for unknown in ("ignore", "infrequent_if_exist")
    for rare in ({}, {"min_frequency": 20}, {"max_categories": 3})
}
ORDINAL = {
    "unknown": OrdinalEncoder(handle_unknown="use_encoded_value", unknown_value=-1),
    "missing": OrdinalEncoder(
        handle_unknown="use_encoded_value", unknown_value=np.nan, encoded_missing_value=-2
    ),
    "rare": OrdinalEncoder(
        handle_unknown="use_encoded_value", unknown_value=99, min_frequency=20, max_categories=4
    ),
}
MEANS = {"two classes": TARGET, "three classes": SEVERAL, "numbers": KNOWN["size"].to_numpy()}


@pytest.mark.parametrize("case", ONE_HOT)
@pytest.mark.parametrize("gaps", [False, True], ids=["whole", "missing"])
def test_one_hot(case: str, gaps: bool, tmp_path: Path) -> None:
    known, asked = (GAPS, ASKED_GAPS) if gaps else (KNOWN, ASKED)
    model = ONE_HOT[case].fit(known[TEXT])
    (found,) = _asked(model, asked[TEXT], tmp_path)
    np.testing.assert_array_equal(found, _transformed(model, asked[TEXT]))


@pytest.mark.parametrize("columns", [["rooms"], ["price"], ["new"], MIXED], ids=str)
@pytest.mark.parametrize("gaps", [False, True], ids=["whole", "missing"])
def test_categories_of_every_type(columns: list[str], gaps: bool, tmp_path: Path) -> None:
    known, asked = (GAPS, ASKED_GAPS) if gaps else (KNOWN, ASKED)
    for place, encoder in enumerate((OneHotEncoder(handle_unknown="ignore"), ORDINAL["missing"])):
        folder = tmp_path / str(place)
        folder.mkdir()
        model = encoder.fit(known[columns])
        (found,) = _asked(model, asked[columns], folder)
        np.testing.assert_array_equal(found, _transformed(model, asked[columns]))


@pytest.mark.parametrize("case", ORDINAL)
def test_ordinal(case: str, tmp_path: Path) -> None:
    model = ORDINAL[case].fit(GAPS[TEXT])
    (found,) = _asked(model, ASKED_GAPS[TEXT], tmp_path)
    np.testing.assert_array_equal(found, _transformed(model, ASKED_GAPS[TEXT]))


@pytest.mark.parametrize("case", MEANS)
def test_means_of_the_target(case: str, tmp_path: Path) -> None:
    columns = ["color", "rooms", "price"]
    model = TargetEncoder(random_state=0).fit(GAPS[columns], MEANS[case])
    (found,) = _asked(model, ASKED_GAPS[columns], tmp_path)
    np.testing.assert_allclose(found, _transformed(model, ASKED_GAPS[columns]), rtol=1e-6, atol=0)


def test_categories_that_are_objects(tmp_path: Path) -> None:
    known = KNOWN[["rooms"]].astype(object)
    known.iloc[::7, 0] = None
    model = ORDINAL["missing"].fit(known)
    (found,) = _asked(model, known, tmp_path)
    np.testing.assert_array_equal(found, _transformed(model, known))


@pytest.mark.parametrize("encoder", [OneHotEncoder(), OrdinalEncoder()], ids=["hot", "ordinal"])
def test_a_category_that_scikit_learn_refuses_is_an_error_of_the_artifact(
    encoder: Any, tmp_path: Path
) -> None:
    model = encoder.fit(KNOWN[TEXT])
    (found,) = _asked(model, KNOWN[TEXT], tmp_path)
    np.testing.assert_array_equal(found, _transformed(model, KNOWN[TEXT]))
    with pytest.raises(ValueError, match="unknown categories"):
        model.transform(ASKED[TEXT])
    with pytest.raises(Exception, match="out of data bounds"):
        _asked(model, ASKED[TEXT], tmp_path)


def test_a_missing_value_and_its_text_are_refused(tmp_path: Path) -> None:
    column = pd.DataFrame({"a": pd.Series(["nan", np.nan, "b"] * 5, dtype=object)})
    model = OneHotEncoder(handle_unknown="ignore").fit(column)
    with pytest.raises(UnsupportedOpsError, match=r"OneHotEncoder.*'nan' and nan are one"):
        _asked(model, column, tmp_path)


# --- missing values ------------------------------------------------------------------------

NUMBERS = GAPS[["size", "price", "rooms"]].to_numpy(np.float64)
ASKED_NUMBERS = np.float32(ASKED_GAPS[["size", "price", "rooms"]].to_numpy(np.float64))
ASKED_NUMBERS[3, :2] = np.nan
NEVER = NUMBERS * np.array([1, np.nan, 1])


def _marked(rows: Any) -> Any:
    return np.where(np.isnan(rows), -9, rows)


IMPUTERS = {
    "means": (SimpleImputer(add_indicator=True), NUMBERS, ASKED_NUMBERS),
    "medians": (
        SimpleImputer(strategy="median", missing_values=-9, add_indicator=True),
        _marked(NUMBERS),
        _marked(ASKED_NUMBERS),
    ),
    "column without values": (SimpleImputer(add_indicator=True), NEVER, ASKED_NUMBERS),
    "column without values, kept": (
        SimpleImputer(keep_empty_features=True, add_indicator=True),
        NEVER,
        ASKED_NUMBERS,
    ),
    "regressions": (IterativeImputer(add_indicator=True), NUMBERS, ASKED_NUMBERS),
    "all columns": (MissingIndicator(features="all"), NUMBERS, ASKED_NUMBERS),
    "marked": (MissingIndicator(missing_values=-9), _marked(NUMBERS), _marked(ASKED_NUMBERS)),
    "side by side": (make_union(SimpleImputer(), MissingIndicator()), NUMBERS, ASKED_NUMBERS),
    "scaled": (
        make_pipeline(SimpleImputer(add_indicator=True), StandardScaler()),
        NUMBERS,
        ASKED_NUMBERS,
    ),
}


@pytest.mark.parametrize("case", IMPUTERS)
def test_indicators_of_missing_values(case: str, tmp_path: Path) -> None:
    model, known, asked = IMPUTERS[case]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model.fit(known)
    (found,) = _asked(model, asked, tmp_path)
    np.testing.assert_allclose(found, _transformed(model, asked), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("strategy", ["most_frequent", "constant"])
@pytest.mark.parametrize(
    "encoder",
    [OneHotEncoder(handle_unknown="ignore", drop="first"), ORDINAL["unknown"]],
    ids=["hot", "ordinal"],
)
def test_missing_texts_become_what_the_imputer_makes_of_them(
    strategy: str, encoder: Any, tmp_path: Path
) -> None:
    imputer = SimpleImputer(strategy=strategy, fill_value="none" if strategy[0] == "c" else None)
    texts, numbers = make_pipeline(imputer, encoder), make_pipeline(SimpleImputer())
    columns = ColumnTransformer([("text", texts, TEXT), ("number", numbers, ["size", "rooms"])])
    model = make_pipeline(columns, LogisticRegression(max_iter=500)).fit(GAPS, TARGET)
    label, shares = _asked(model, ASKED_GAPS, tmp_path)
    np.testing.assert_array_equal(label, model.predict(ASKED_GAPS))
    np.testing.assert_allclose(shares, model.predict_proba(ASKED_GAPS), rtol=1e-5, atol=1e-6)


def test_imputed_texts_alone(tmp_path: Path) -> None:
    model = SimpleImputer(strategy="most_frequent").fit(GAPS[TEXT])
    (found,) = _asked(model, ASKED_GAPS[TEXT], tmp_path)
    np.testing.assert_array_equal(found, _transformed(model, ASKED_GAPS[TEXT]))


# --- histogram boosting --------------------------------------------------------------------


def _categories(frame: pd.DataFrame) -> pd.DataFrame:
    chosen = [name for name in ("color", "sure", "rooms") if name in frame]
    return frame.astype(dict.fromkeys(chosen, "category"))


def _boosting(kind: Any, **settings: Any) -> Any:
    return kind(max_iter=10, min_samples_leaf=5, random_state=0, **settings)


CHOICES = {
    "type": "from_dtype",
    "name": ["color", "sure"],
    "index": [0, 1],
    "mask": np.array([True, True, True, False, False, False]),
}


@pytest.mark.parametrize("by", CHOICES)
def test_histogram_boosting_of_text_categories(by: str, tmp_path: Path) -> None:
    known, asked = GAPS, ASKED_GAPS
    if by == "type":
        known, asked = _categories(known), _categories(asked)
    model = _boosting(HistGradientBoostingClassifier, categorical_features=CHOICES[by])
    model.fit(known, TARGET)
    label, shares = _asked(model, asked, tmp_path)
    np.testing.assert_array_equal(label, model.predict(asked))
    np.testing.assert_allclose(shares, model.predict_proba(asked), rtol=1e-5, atol=1e-6)


def test_histogram_boosting_regresses_on_text_categories(tmp_path: Path) -> None:
    known, asked = _categories(GAPS[TEXT]), _categories(ASKED_GAPS[TEXT])
    model = _boosting(HistGradientBoostingRegressor).fit(known, KNOWN["price"])
    (found,) = _asked(model, asked, tmp_path)
    np.testing.assert_allclose(found, model.predict(asked), rtol=1e-5, atol=1e-6)


def test_text_categories_that_other_steps_hand_on_are_refused(tmp_path: Path) -> None:
    scale = ColumnTransformer(
        [("scale", StandardScaler(), ["size"])],
        remainder="passthrough",
        verbose_feature_names_out=False,
    ).set_output(transform="pandas")
    model = make_pipeline(scale, _boosting(HistGradientBoostingClassifier))
    model.fit(_categories(GAPS), TARGET)
    with pytest.raises(InputError, match="HistGradientBoostingClassifier takes categories of text"):
        sklearn_adapter.describe(_source(model, tmp_path))
