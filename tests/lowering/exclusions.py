"""Cases of ONNX's backend tests that do not pass, each with the reason.

A pattern matches whole names. The sweep fails if a case that is listed passes, so that the
lists stay true.
"""

from __future__ import annotations

import re
from functools import cache

_RANDOM = "the answer is random"

_BOTH: dict[str, str] = {}

_SAVEDMODEL: dict[str, str] = {}

_TFLITE: dict[str, str] = {}


@cache
def _patterns(target: str) -> tuple[tuple[re.Pattern[str], str], ...]:
    own = _SAVEDMODEL if target == "savedmodel" else _TFLITE
    return tuple((re.compile(text), reason) for text, reason in {**_BOTH, **own}.items())


def reason(name: str, target: str) -> str:
    """Why a case is not expected to pass; empty if it is."""
    return next((why for pattern, why in _patterns(target) if pattern.fullmatch(name)), "")


def patterns(target: str) -> list[str]:
    """The patterns of a target."""
    return [pattern.pattern for pattern, _ in _patterns(target)]
