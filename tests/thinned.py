"""Cases of which the quick tests run some, and the sweeps all."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import pytest


def thinned(cases: Iterable[Any], every: int) -> list[Any]:
    """Mark all cases but every so many as slow, beginning with the first."""
    return [
        pytest.param(*(case if isinstance(case, tuple) else (case,)), marks=_marks(index % every))
        for index, case in enumerate(cases)
    ]


def _marks(left: int) -> tuple[Any, ...]:
    return (pytest.mark.slow,) if left else ()
