"""Every layer of Keras, taken to each format: right, or refused with the reason.

Each model is judged on what `modelpack convert` judges by: generated samples and edges.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from modelpack.artifact import Encoding, ModelRef
from modelpack.errors import UntrustedSourceError
from tests.sweep import keras_outcomes
from tests.sweep.keras_cases import CASES, NO_CASE, layer_of, public_classes, seeded
from tests.sweep.keras_outcomes import FORMATS, OUTCOMES, Expected, expected
from tests.sweep.keras_trials import Outcome, described, outcomes, taken

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

PAGE = Path(__file__).resolve().parents[2] / "docs" / "reference" / "keras-layers.md"


def test_every_public_class_has_a_case_or_a_reason_for_none() -> None:
    covered = {layer_of(case) for case in CASES}
    assert covered | set(NO_CASE) == set(public_classes())
    assert not covered & set(NO_CASE)
    assert set(OUTCOMES) <= set(CASES)


def test_the_page_lists_what_is_expected() -> None:
    assert PAGE.read_text(encoding="utf-8") == keras_outcomes.page()


@pytest.mark.parametrize("case", list(CASES))
def test_a_layer_is_converted_right_or_refused(case: str, tmp_path: Path) -> None:
    found = taken(case, FORMATS, tmp_path)
    for form in FORMATS:
        assert _is(found[form], expected(case, form)), found[form]


def _is(found: Outcome, wanted: Expected) -> bool:
    return found.kind == wanted.kind and wanted.reason in found.reason


def test_a_lambda_is_not_loaded_without_trust(tmp_path: Path) -> None:
    file = tmp_path / "model.keras"
    seeded(CASES["Lambda"]).save(file)
    source = ModelRef("keras", Encoding.KERAS_ZIP, str(file))
    with pytest.raises(UntrustedSourceError, match="bytecode of a Python lambda"):
        described(source, tmp_path)


@pytest.mark.parametrize("name", ["build_subclassed", "build_custom_layer"])
def test_a_subclassed_model_is_converted_right(name: str, tmp_path: Path) -> None:
    source = ModelRef("keras", Encoding.PYTHON, f"tests.sweep.keras_subclassed:{name}")
    found = outcomes(source, FORMATS, tmp_path)
    assert found == dict.fromkeys(FORMATS, Outcome("right"))
