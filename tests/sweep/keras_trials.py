"""Takes Keras models to every format, and judges what is made as `modelpack convert` does."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from fixtures.inline import InlinePool
from modelpack.artifact import Encoding, ModelRef
from modelpack.errors import ContractError, ConversionError, InputError
from modelpack.judging.compare import judgement_for
from modelpack.judging.evidence import edge_evidence, generated
from modelpack.judging.trials import tried
from modelpack.parity import Verdict
from modelpack.routes import Converter, find_route, formats
from modelpack.samples import Case
from modelpack.sources import Opened, open_model, run_step
from modelpack.steps import StepOptions
from tests.sweep.keras_cases import CASES, SEED, seeded

FORMATS = ("onnx", "savedmodel", "tflite")


@dataclass(frozen=True)
class Outcome:
    """How a conversion ended, and why.

    Attributes:
        kind: ``right``; ``batch 1`` if right for single rows; ``refused`` by name; ``caught`` by
            the comparison; ``does not run``.
        reason: the error's class and message, or what the comparison found.
    """

    kind: str
    reason: str = ""


@dataclass(frozen=True)
class _Made:
    """A step's product, and the dimensions that were fixed on the way."""

    opened: Opened
    fixed: dict[str, int]


def taken(case: str, forms: Sequence[str], folder: Path) -> dict[str, Outcome]:
    """Build the model of a case and take it from its file to the formats."""
    file = folder / "model.keras"
    seeded(CASES[case]).save(file)
    source = ModelRef("keras", Encoding.KERAS_ZIP, str(file), trusted=True)
    return outcomes(source, forms, folder)


def described(source: ModelRef, folder: Path) -> Opened:
    """Open a model."""
    return open_model(InlinePool(folder), source)


def outcomes(source: ModelRef, forms: Sequence[str], folder: Path) -> dict[str, Outcome]:
    """Take a model to the formats and judge what is made."""
    pool = InlinePool(folder)
    try:
        opened = open_model(pool, source)
        trials = generated(pool, opened, SEED) + edge_evidence(pool, opened, SEED)
    except (ConversionError, InputError) as error:
        return dict.fromkeys(forms, Outcome("refused", _message(error)))
    assert any(_varies(case) for case in trials.outputs), "nothing can be told from its answers"
    assert opened.ref.signature is not None
    done: dict[tuple[Converter, ...], _Made] = {(): _Made(opened, {})}
    found = {}
    for form in forms:
        try:
            made = _made(pool, find_route("keras", form).steps, done)
        except (ConversionError, InputError) as error:
            found[form] = Outcome("refused", _message(error))
            continue
        product = made.opened
        judgement = judgement_for(
            product.description.precision, reference=opened.description.precision
        )
        evidence = trials.fitted_to(opened.ref.signature, made.fixed)
        try:
            report = tried(pool, product, evidence, judgement)
        except ContractError as error:
            found[form] = Outcome("does not run", _message(error))
            continue
        right = Outcome("batch 1" if made.fixed else "right")
        caught = report.verdict is Verdict.FAILED
        found[form] = Outcome("caught", report.reason) if caught else right
    return found


def _message(error: Exception) -> str:
    return f"{type(error).__name__}: {error}"


def _varies(case: Case) -> bool:
    return any(array.size and (array != array.flat[0]).any() for array in case.values())


def _made(
    pool: InlinePool, steps: tuple[Converter, ...], done: dict[tuple[Converter, ...], _Made]
) -> _Made:
    """The product of a route, whose steps are run once for all routes that begin with them."""
    if steps not in done:
        before = _made(pool, steps[:-1], done)
        step = steps[-1]
        form = formats()[step.target]
        result, product = run_step(
            pool,
            step.entry,
            before.opened.ref,
            pool.scratch / form.artifact,
            StepOptions(),
            form=form,
            extra=step.extra,
            failure=ConversionError,
        )
        done[steps] = _Made(product, {**before.fixed, **result.fixed_dims})
    return done[steps]
