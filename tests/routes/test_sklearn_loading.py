"""What pickles may name, files of other versions, and tables as columns or as one tensor."""

from __future__ import annotations

import importlib
import io
import os
import pickle
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import joblib
import numpy as np
import onnxruntime
import pandas as pd
import pytest
import sklearn
import skops.io
import yaml
from sklearn import datasets
from sklearn.base import BaseEstimator, TransformerMixin
from sklearn.compose import ColumnTransformer
from sklearn.ensemble import HistGradientBoostingClassifier, RandomForestClassifier
from sklearn.feature_selection import SelectKBest, f_classif
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer, OneHotEncoder, StandardScaler

from modelpack.adapters import sklearn as adapter
from modelpack.adapters import sklearn_unpickling
from modelpack.artifact import Encoding, ModelRef
from modelpack.errors import InputError, UntrustedSourceError
from modelpack.steps import StepOptions
from tests.thinned import thinned

ROWS, LABELS = datasets.load_iris(return_X_y=True)
ROWS = ROWS.astype(np.float32)
FRAME = pd.DataFrame(ROWS, columns=["sepal length", "sepal width", "petal length", "petal width"])


class Call:
    """Pickles as a call of a function."""

    def __init__(self, function: Callable[..., Any], *arguments: Any) -> None:
        self.function, self.arguments = function, arguments

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        return self.function, self.arguments


# --- hostile files -------------------------------------------------------------------


def touch(directory: Path) -> str:
    return f"touch {directory / 'ran'}"


def behind_arrays(directory: Path) -> bytes:
    return _dumped({"weights": np.arange(9999.0), "more": Call(os.system, touch(directory))})


def behind_compressed_arrays(directory: Path) -> bytes:
    content = {"weights": np.arange(9999.0), "more": Call(os.system, touch(directory))}
    return _dumped(content, compress=3)


def in_an_array_of_objects(directory: Path) -> bytes:
    return _dumped(np.array([Call(os.system, touch(directory)), 1], object))


def in_an_estimator(directory: Path) -> bytes:
    model = LogisticRegression().fit(ROWS, LABELS)
    model.extra_ = Call(eval, f"__import__('os').system({touch(directory)!r})")
    return pickle.dumps(model)


def imports(directory: Path) -> bytes:
    (directory / "gadget.py").write_text(f"import os; os.system({touch(directory)!r})")
    return _dumped(Call(importlib.import_module, "gadget"))


def of_python_2(directory: Path) -> bytes:
    return b"cos\nsystem\n(S'" + touch(directory).encode() + b"'\ntR."


def by_an_attribute(directory: Path) -> bytes:
    return _named("sklearn.base", "warnings.sys.modules") + b"."


def by_another_import(directory: Path) -> bytes:
    return _named("sklearn.base", "warnings") + b"."


def by_numpy(directory: Path) -> bytes:
    (directory / "victim").write_bytes(b"content")
    victim = str(directory / "victim").encode()
    text = b"\x8c" + bytes([len(victim)]) + victim
    mode = b"\x8c\x05uint8\x8c\x02w+"
    return _named("numpy", "memmap") + text + mode + b"\x87R."


def by_old_numpy(directory: Path) -> bytes:
    return _named("numpy.core", "_ufunc_reconstruct") + b"\x8c\x02os\x8c\x06system\x86R."


def by_downloads(directory: Path) -> bytes:
    return _named("sklearn.datasets", "fetch_openml") + b")R."


def _dumped(value: Any, **options: Any) -> bytes:
    stream = io.BytesIO()
    joblib.dump(value, stream, **options)
    return stream.getvalue()


def _named(module: str, name: str) -> bytes:
    """A pickle of protocol 4 that looks a name up, without its end."""
    texts = [b"\x8c" + bytes([len(text)]) + text.encode() for text in (module, name)]
    return b"\x80\x04" + b"".join(texts) + b"\x93"


HOSTILE = (
    *(behind_arrays, behind_compressed_arrays, in_an_array_of_objects, in_an_estimator),
    *(imports, of_python_2, by_an_attribute, by_another_import, by_numpy, by_old_numpy),
    by_downloads,
)


@pytest.mark.parametrize("make", HOSTILE)
def test_hostile_pickles_are_refused_and_not_run(
    make: Callable[[Path], bytes], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "model.joblib").write_bytes(make(tmp_path))
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises((UntrustedSourceError, AttributeError)) as refusal:
        sklearn_unpickling.load(tmp_path / "model.joblib")
    assert not (tmp_path / "ran").exists()
    if make is by_numpy:
        assert (tmp_path / "victim").read_bytes() == b"content"
    if refusal.type is UntrustedSourceError:
        assert "although it is trusted" in str(refusal.value)


def test_a_trusted_hostile_file_ends_with_its_own_exit_code(tmp_path: Path, modelpack) -> None:
    (tmp_path / "model.joblib").write_bytes(behind_compressed_arrays(tmp_path))
    outcome = modelpack("convert", "model.joblib", "-o", "model.onnx", "--trust")
    assert outcome.code == 9, outcome.stderr
    assert "system" in outcome.stderr
    assert not (tmp_path / "ran").exists()


SOCKETS = """
import socket
from modelpack.adapters.isolation import give_up_network

assert give_up_network()
socket.socket(socket.AF_UNIX).close()
for family in (socket.AF_INET, socket.AF_INET6):
    try:
        socket.socket(family)
    except PermissionError:
        continue
    raise SystemExit("there is a network still")
"""


@pytest.mark.skipif(sys.platform != "linux", reason="done with a filter of Linux")
def test_a_process_without_network_makes_no_sockets() -> None:
    subprocess.run([sys.executable, "-c", SOCKETS], check=True, timeout=60)


LOUD = """
import socket
from sklearn.base import BaseEstimator, TransformerMixin

class Loud(TransformerMixin, BaseEstimator):
    def __setstate__(self, state):
        socket.socket(socket.AF_INET)

    def fit(self, rows, labels=None):
        return self
"""


@pytest.mark.skipif(sys.platform != "linux", reason="done with a filter of Linux")
def test_pickles_are_loaded_without_network(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, modelpack
) -> None:
    (tmp_path / "loud.py").write_text(LOUD)
    monkeypatch.syspath_prepend(tmp_path)
    joblib.dump(importlib.import_module("loud").Loud(), tmp_path / "loud.joblib")
    given = ("loud.joblib", "-o", "loud.onnx", "--trust", "--import", "loud.py")
    outcome = modelpack("convert", *given)
    assert outcome.code == 2, outcome.stderr
    assert "PermissionError" in outcome.stderr


# --- harmless files ------------------------------------------------------------------


def frame_pipeline() -> BaseEstimator:
    frame = pd.DataFrame(ROWS, columns=list("abcd")).assign(e=np.where(LABELS > 0, "p", "q"))
    columns = ColumnTransformer(
        [("numbers", StandardScaler(), frame.columns[:4]), ("words", OneHotEncoder(), ["e"])]
    )
    return make_pipeline(columns, LogisticRegression()).fit(frame, LABELS)


HARMLESS: dict[str, Callable[[], BaseEstimator]] = {
    "forest": lambda: RandomForestClassifier(3, random_state=0).fit(ROWS, LABELS),
    "histograms": lambda: HistGradientBoostingClassifier(max_iter=3).fit(ROWS, LABELS),
    "neighbours": lambda: KNeighborsClassifier(algorithm="kd_tree").fit(ROWS, LABELS),
    "search": lambda: GridSearchCV(LogisticRegression(), {"C": [0.1, 1]}).fit(ROWS, LABELS),
    "functions": lambda: make_pipeline(
        FunctionTransformer(np.log1p),
        SelectKBest(f_classif, k=2),
        LogisticRegression(random_state=np.random.RandomState(0)),
    ).fit(ROWS, LABELS),
    "frame": frame_pipeline,
}


@pytest.mark.parametrize("name", HARMLESS)
@pytest.mark.parametrize("how", thinned(["joblib", "compressed", "protocol 2", "protocol 5"], 4))
def test_pickles_of_estimators_are_loaded(name: str, how: str, tmp_path: Path) -> None:
    model = HARMLESS[name]()
    path = tmp_path / "model.joblib"
    if how.startswith("protocol"):
        path.write_bytes(pickle.dumps(model, int(how[-1])))
    else:
        joblib.dump(model, path, compress=3 if how == "compressed" else 0)
    rows = FRAME.set_axis(list("abcd"), axis=1).assign(e="p") if name == "frame" else ROWS
    loaded = sklearn_unpickling.load(path)
    np.testing.assert_array_equal(loaded.predict_proba(rows), model.predict_proba(rows))


OWN = """
from sklearn.base import BaseEstimator, TransformerMixin

class Doubled(TransformerMixin, BaseEstimator):
    def fit(self, rows, labels=None):
        self.n_features_in_ = rows.shape[1]
        return self

    def transform(self, rows):
        return rows * 2
"""


def test_own_classes_are_loaded_with_import(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "own_steps.py").write_text(OWN)
    monkeypatch.syspath_prepend(tmp_path)
    own: type[TransformerMixin] = importlib.import_module("own_steps").Doubled
    joblib.dump(make_pipeline(own(), LogisticRegression()).fit(ROWS, LABELS), tmp_path / "m.pkl")
    with pytest.raises(UntrustedSourceError) as refusal:
        sklearn_unpickling.load(tmp_path / "m.pkl")
    assert "own_steps.Doubled" in str(refusal.value)
    assert "--import own_steps" in refusal.value.hint
    for given in ("own_steps", str(tmp_path / "own_steps.py")):
        sklearn_unpickling.load(tmp_path / "m.pkl", [given])


def test_what_skops_does_not_trust_is_named(tmp_path: Path) -> None:
    model = make_pipeline(FunctionTransformer(os.system), LogisticRegression())
    model.steps[1][1].fit(ROWS, LABELS)
    skops.io.dump(model, tmp_path / "model.skops")
    ref = ModelRef("sklearn", Encoding.SKOPS, str(tmp_path / "model.skops"))
    assert adapter.scan(ref) == ["an object of type posix.system"]
    with pytest.raises(UntrustedSourceError, match=r"posix\.system"):
        adapter.describe(ref)


# --- versions ------------------------------------------------------------------------


def of_another_version(path: Path) -> None:
    """Let a file say that scikit-learn 1.0.0 saved it."""
    now, other = sklearn.__version__.encode(), b"1.0.0"
    assert len(now) == len(other)
    if path.suffix != ".skops":
        path.write_bytes(path.read_bytes().replace(now, other))
        return
    with zipfile.ZipFile(path) as archive:
        content = {name: archive.read(name) for name in archive.namelist()}
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in content.items():
            archive.writestr(name, data.replace(now, other))


@pytest.fixture(params=["model.pkl", "model.skops"])
def old_file(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    model = make_pipeline(StandardScaler(), LogisticRegression()).fit(ROWS, LABELS)
    path = tmp_path / request.param
    if path.suffix == ".skops":
        skops.io.dump(model, path)
    else:
        path.write_bytes(pickle.dumps(model))
    of_another_version(path)
    return path


def test_a_file_of_another_version_is_refused(old_file: Path, modelpack) -> None:
    outcome = modelpack("convert", old_file.name, "-o", "model.onnx", "--trust")
    assert outcome.code == 2, outcome.stderr
    assert "saved by scikit-learn 1.0.0" in outcome.stderr
    assert sklearn.__version__ in outcome.stderr
    assert "--allow-version-drift" in outcome.stderr


def test_a_file_of_another_version_may_be_let_in(old_file: Path, modelpack) -> None:
    modelpack.ok(
        *("convert", old_file.name, "-o", "model.onnx", "--trust", "--allow-version-drift")
    )
    written = (old_file.parent / "model.onnx.modelpack.yaml").read_text("utf-8")
    assert yaml.safe_load(written)["source"]["saved_by"] == {"scikit-learn": "1.0.0"}


def test_a_file_that_cannot_be_loaded_names_its_version(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "model.pkl"
    path.write_bytes(pickle.dumps(LogisticRegression().fit(ROWS, LABELS)))
    of_another_version(path)

    def fails(self: Any, state: Any) -> None:
        raise ValueError("the state has another form")

    monkeypatch.setattr(BaseEstimator, "__setstate__", fails)
    ref = ModelRef("sklearn", Encoding.PICKLE, str(path), trusted=True)
    with pytest.raises(InputError, match=r"which scikit-learn 1\.0\.0 saved") as refusal:
        adapter.describe(ref)
    assert "scikit-learn==1.0.0" in refusal.value.hint


# --- columns or one tensor -----------------------------------------------------------


def refers(model: BaseEstimator, directory: Path, form: str) -> ModelRef:
    location = str(directory / "model.joblib")
    joblib.dump(model, location)
    return ModelRef("sklearn", Encoding.PICKLE, location, trusted=True, input_form=form)


@pytest.mark.parametrize(
    "make",
    [
        lambda: make_pipeline(StandardScaler(), LogisticRegression()),
        lambda: RandomForestClassifier(5, random_state=0),
        lambda: make_pipeline(
            ColumnTransformer([("some", StandardScaler(), ["petal width", "sepal width"])]),
            LogisticRegression(),
        ),
    ],
    ids=["pipeline", "forest", "columns"],
)
def test_numbers_as_an_input_for_each_column(
    make: Callable[[], BaseEstimator], tmp_path: Path
) -> None:
    model = make().fit(FRAME, LABELS)
    ref = refers(model, tmp_path, "columns")
    found = adapter.describe(ref)
    names = [spec.name for spec in found.signature.inputs]
    assert names == ["sepal_length", "sepal_width", "petal_length", "petal_width"]
    assert [spec.columns for spec in found.signature.inputs] == [(name,) for name in FRAME]
    adapter.to_onnx(ref, str(tmp_path / "model.onnx"), StepOptions())
    session = onnxruntime.InferenceSession(str(tmp_path / "model.onnx"))
    feed = {name: ROWS[:, [index]] for index, name in enumerate(names)}
    label, probabilities = session.run(None, feed)
    np.testing.assert_array_equal(label, model.predict(FRAME))
    np.testing.assert_allclose(probabilities, model.predict_proba(FRAME), rtol=1e-5, atol=1e-6)


def test_columns_of_one_type_as_one_tensor(tmp_path: Path) -> None:
    columns = ColumnTransformer([("some", StandardScaler(), ["petal width", "sepal width"])])
    model = make_pipeline(columns, LogisticRegression()).fit(FRAME, LABELS)
    found = adapter.describe(refers(model, tmp_path, "tensor")).signature.inputs
    assert [spec.shape for spec in found] == [("batch", 4)]


def test_columns_of_several_types_are_no_tensor(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"needs columns of one type.*a: float32.*e: string"):
        adapter.describe(refers(frame_pipeline(), tmp_path, "tensor"))


def test_columns_without_names_are_no_inputs(tmp_path: Path) -> None:
    model = LogisticRegression().fit(ROWS, LABELS)
    with pytest.raises(InputError, match="needs the names of the columns"):
        adapter.describe(refers(model, tmp_path, "columns"))


@pytest.mark.slow
def test_columns_reach_all_formats(tmp_path: Path, modelpack) -> None:
    model = RandomForestClassifier(5, random_state=0).fit(FRAME, LABELS)
    skops.io.dump(model, tmp_path / "model.skops")
    to = ("--to", "onnx", "--to", "savedmodel", "--to", "tflite")
    modelpack.ok("convert", "model.skops", "-o", "out", "--inputs", "columns", *to)
    manifest = yaml.safe_load((tmp_path / "out" / "modelpack.yaml").read_text("utf-8"))
    assert len(manifest["signatures"][0]["inputs"]) == 4
    verdicts = [item["parity"]["verdict"] for item in manifest["artifacts"]]
    assert verdicts == ["passed"] * 3


def test_other_models_take_no_table(models: Path, modelpack) -> None:
    outcome = modelpack(
        *("inspect", models / "keras_cnn.keras", "--inputs", "columns"),
    )
    assert outcome.code == 2, outcome.stderr
    assert "takes no table" in outcome.stderr
