"""Random pipelines of scikit-learn on random tables, and what becomes of them."""

from __future__ import annotations

import warnings
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import joblib
import numpy as np
import onnx
import onnxruntime
from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st
from sklearn.base import clone
from sklearn.pipeline import make_pipeline

from fixtures.inline import InlinePool
from modelpack.adapters import sklearn as sklearn_adapter
from modelpack.artifact import Encoding, ModelRef
from modelpack.errors import ConversionError, InputError, ModelpackError, first_line
from modelpack.judging.compare import compare, judgement_for
from modelpack.judging.evidence import edge_evidence, generated
from modelpack.judging.trials import tried
from modelpack.parity import ParityReport, Verdict
from modelpack.samples import EMPTY, Array, Case
from modelpack.signature import Signature
from modelpack.sources import open_model
from modelpack.steps import StepOptions
from tests.lowering.backend_suite import RUNNERS
from tests.sweep import sklearn_models as models
from tests.sweep import sklearn_steps as steps
from tests.sweep.sklearn_answers import compared
from tests.sweep.sklearn_tables import Form, Table, columns, table

Run = Callable[[Case], dict[str, Array]]

# In how many orders rows are learned from, where their order decides among equally near ones.
_ORDERS = 24
# Far out they subtract numbers of 1e13 from each other, which float64 rounds to 0.002, and take
# the exponential of what is left.
_SUMS_OF_SQUARES = ("GaussianNB", "NearestCentroid")


@dataclass(frozen=True)
class Trial:
    """A table, and an estimator to fit on it."""

    form: Form
    model: Any


@dataclass
class Outcome:
    """What became of a trial.

    Attributes:
        kind: ``unfit`` (scikit-learn refuses its own training rows), ``refused``, ``right``,
            ``alarm`` (right, but modelpack's comparison fails), ``caught`` (wrong, and that
            comparison fails), ``open`` (wrong, and it says that it cannot tell), ``silent``
            (wrong, and it passes) or ``crashed``.
        reason: why.
        rows: that were compared.
        ties: answers that scikit-learn leaves open, and that came out otherwise.
        verdict: of modelpack's comparison, where it was made.
    """

    kind: str
    reason: str = ""
    rows: int = 0
    ties: int = 0
    verdict: str = ""
    by_rows: Counter[str] = field(default_factory=Counter)


# --- trials --------------------------------------------------------------------------------


@st.composite
def trials(draw: st.DrawFn) -> Trial:
    """Any trial."""
    task = draw(st.sampled_from((*["classes"] * 4, *["values"] * 4, "groups", "outliers", "steps")))
    positive = draw(st.sampled_from((False, False, False, True)))
    missing = draw(st.sampled_from((0.0, 0.0, 0.1)))
    made = tuple(draw(st.lists(columns, min_size=1, max_size=12)))
    words = tuple(
        draw(st.lists(st.integers(1, 6), max_size=2)) if draw(st.integers(0, 4)) == 0 else ()
    )
    targets = ("value", "value", "positive") if task == "values" else ("binary", "rare", "several")
    target = draw(st.sampled_from(targets))
    labels = ("int", "gaps", "str") if target == "several" else ("int", "gaps", "str", "bool")
    form = Form(
        made,
        words,
        rows=draw(st.integers(20, 200)),
        seed=draw(st.integers(0, 10**6)),
        dtype=draw(st.sampled_from(("float32", "float64"))),
        missing=missing,
        positive=positive,
        target=target,
        labels=draw(st.sampled_from(labels)),
    )
    return Trial(form, draw(_models(form, task)))


@st.composite
def _models(draw: st.DrawFn, form: Form, task: str) -> Any:
    width, values = len(form.numbers), form.target in {"value", "positive"}
    found: list[Any] = []
    final: Any = None
    if form.words:
        found.append(draw(steps.of_frame(width, len(form.words), form.missing > 0, form.positive)))
    elif form.missing and task in {"classes", "values"} and draw(st.booleans()):
        final = draw(st.one_of(*_with_missing(values)))
        found += [draw(steps.scalers)] if draw(st.integers(0, 3)) == 0 else []
    else:
        found += [draw(steps.imputers)] if form.missing else []
        found += draw(steps.numeric(width, values, form.positive))
    if final is None and task != "steps":
        final = draw(_finals(form, task, found))
    found += [] if final is None else [final]
    if not found:
        found = [draw(steps.scalers)]
    if len(found) == 1 and draw(st.booleans()):
        return found[0]
    return make_pipeline(*found)


def _with_missing(values: bool) -> list[Any]:
    return models.missing_regressors if values else models.missing_classifiers


def _finals(form: Form, task: str, before: list[Any]) -> st.SearchStrategy[Any]:
    if task == "groups":
        return models.clusterers
    if task == "outliers":
        return models.detectors
    if task == "values":
        return models.regressors(form.target == "positive")
    return models.classifiers(form.target == "several", form.positive and not before)


def trial(number: int) -> Trial:
    """The trial of this number; always the same."""
    found: list[Trial] = []

    # The first is the simplest of all, whatever the seed.
    @seed(number)
    @settings(
        max_examples=2,
        database=None,
        deadline=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(trials())
    def drawn(made: Trial) -> None:
        found.append(made)

    drawn()
    return found[-1]


# --- what becomes of one -------------------------------------------------------------------


def fitted(trial: Trial) -> tuple[Any, Table]:
    """The estimator, fitted.

    Raises:
        Exception: whatever scikit-learn raises when it cannot be.
    """
    made = table(trial.form)
    return clone(trial.model).fit(made.rows, made.targets), made


def become(trial: Trial, folder: Path, *, to: str = "onnx", judge_all: bool = False) -> Outcome:
    """Fit, convert and compare.

    Args:
        trial: what.
        folder: for files, of this trial alone.
        to: ``onnx``, ``savedmodel`` or ``tflite``.
        judge_all: ask modelpack's comparison also where the answers are right.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            with np.errstate(all="ignore"):
                model, made = fitted(trial)
        except Exception as error:  # not every random combination can be fitted
            return Outcome("unfit", f"{type(error).__name__}: {first_line(error)}")
        if any(name in repr(trial.model) for name in _SUMS_OF_SQUARES):
            kinds = {kind: rows for kind, rows in made.others.items() if kind != "far"}
            made = replace(made, others=kinds)
        with np.errstate(all="ignore"):
            return _converted((trial, model), made, folder, (to, judge_all))


def _shuffled(trial: Trial, made: Table) -> list[Any]:
    """The estimator fitted on rows in other orders, if it may choose among rows equally near."""
    if not any(name in repr(trial.model) for name in ("KNeighbors", "LocalOutlier")):
        return []
    found = []
    for draw in range(_ORDERS):
        order = np.random.default_rng(draw).permutation(len(made.rows))
        rows = made.rows.iloc[order] if hasattr(made.rows, "iloc") else made.rows[order]
        found.append(clone(trial.model).fit(rows, made.targets[order]))
    return found


def _converted(
    pair: tuple[Trial, Any], made: Table, folder: Path, wanted: tuple[str, bool]
) -> Outcome:
    (to, judge_all), (trial, model) = wanted, pair
    file, target = folder / "model.joblib", folder / "model.onnx"
    joblib.dump(model, file)
    pool = InlinePool(folder)
    source = ModelRef("sklearn", Encoding.PICKLE, str(file), trusted=True)
    try:
        description = sklearn_adapter.describe(source)
        source = replace(source, signature=description.signature)
        sklearn_adapter.to_onnx(source, str(target), StepOptions())
        run = session(target) if to == "onnx" else _lowered(target, to, description.signature)
    except (ConversionError, InputError) as error:
        return Outcome("refused", error.message)
    except Exception as error:  # the defect that is looked for
        return Outcome("crashed", f"{type(error).__name__}: {first_line(error)}")
    signature = description.signature
    found = compared(model, made, signature, run)
    if found.reason and (others := _shuffled(trial, made)):
        found = compared(model, made, signature, run, others)
    wrong = found.reason
    if not found.rows:
        return Outcome("unfit", "it answers none of the rows")
    outcome = Outcome("right", wrong, found.rows, found.ties, by_rows=found.by_rows)
    if not wrong and not judge_all:
        return outcome
    try:
        report = _judged(pool, source, target if to == "onnx" else run)
    except ModelpackError as error:
        report = None
        outcome.verdict = f"{type(error).__name__}: {error.message}"
    else:
        outcome.verdict = f"{report.verdict.value}: {report.reason}"
    verdict = Verdict.FAILED if report is None else report.verdict
    outcome.kind = (_WRONG if wrong else _RIGHT)[verdict]
    return outcome


_WRONG = {Verdict.FAILED: "caught", Verdict.INCONCLUSIVE: "open", Verdict.PASSED: "silent"}
_RIGHT = {Verdict.FAILED: "alarm", Verdict.INCONCLUSIVE: "right", Verdict.PASSED: "right"}


def session(file: Path) -> Run:
    """An ONNX file, ready to be run."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 3
    opened = onnxruntime.InferenceSession(file, options, providers=["CPUExecutionProvider"])
    names = [item.name for item in opened.get_outputs()]
    return lambda feed: dict(zip(names, opened.run(names, feed), strict=True))


def _lowered(file: Path, to: str, signature: Signature) -> Run:
    """An ONNX file as another format, ready to be run."""
    run = RUNNERS[to](onnx.load(file), file.parent)
    names = [spec.name for spec in signature.outputs]

    def answer(feed: Case) -> dict[str, Array]:
        found = run([feed[spec.name] for spec in signature.inputs])
        return dict(zip(names, map(texts, found), strict=True))

    return answer


def texts(array: Any) -> Array:
    """The array, with bytes as text."""
    if array.dtype != object:
        return np.asarray(array)
    return np.array([item.decode() for item in array.ravel()], object).reshape(array.shape)


def _judged(pool: InlinePool, source: ModelRef, target: Path | Run) -> ParityReport:
    """What `modelpack convert` would find out."""
    opened = open_model(pool, source)
    evidence = generated(pool, opened, 0) + edge_evidence(pool, opened, 0)
    if not isinstance(target, Path):
        full = [i for i, kind in enumerate(evidence.kinds_of_cases) if kind != EMPTY]
        evidence, signature = evidence.chosen(full), opened.ref.signature
        assert signature is not None
        answers = [target(case) for case in evidence.cases]
        return compare(signature, evidence, answers, judgement_for("float32"))
    candidate = open_model(pool, ModelRef("onnx", Encoding.ONNX, str(target)))
    candidate = replace(candidate, ref=replace(candidate.ref, signature=opened.ref.signature))
    return tried(pool, candidate, evidence, judgement_for(candidate.description.precision))
