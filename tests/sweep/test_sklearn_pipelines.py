"""Random pipelines of scikit-learn on random tables: none is silently wrong.

What must never happen is an artifact that modelpack's own comparison passes, and that answers
otherwise than scikit-learn: on rows it was trained on, jittered, held out, far out, alone, with
NaN and infinity where the model takes them, with unknown, empty and non-ASCII words.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from pathlib import Path

import pytest

from tests.lowering.backend_suite import TARGETS
from tests.sweep.sklearn_pipelines import become, trial

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]

TRIALS, EACH = 2000, 50
# In the other formats every so many, which take seconds each.
EVERY = 40


@pytest.mark.parametrize("first", range(0, TRIALS, EACH))
def test_no_pipeline_is_silently_wrong(first: int, tmp_path: Path) -> None:
    kinds = _outcomes(range(first, first + EACH), "onnx", tmp_path)
    assert kinds["right"] > EACH // 3, kinds


@pytest.mark.parametrize("first", range(0, TRIALS, EVERY))
@pytest.mark.parametrize("to", TARGETS)
def test_none_is_in_other_formats(to: str, first: int, tmp_path: Path) -> None:
    _outcomes([first], to, tmp_path)


def _outcomes(numbers: Iterable[int], to: str, folder: Path) -> Counter[str]:
    wrong: list[str] = []
    kinds: Counter[str] = Counter()
    for number in numbers:
        own = folder / str(number)
        own.mkdir()
        made = trial(number)
        outcome = become(made, own, to=to)
        kinds[outcome.kind] += 1
        if outcome.kind in {"silent", "crashed"}:
            wrong.append(f"{number}: {outcome.kind}: {outcome.reason}\n{made.model}\n{made.form}")
    assert not wrong, "\n\n".join(wrong)
    return kinds
