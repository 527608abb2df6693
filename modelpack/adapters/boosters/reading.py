"""The trees of any fitted booster, and why those of some cannot be converted."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

from modelpack.adapters.boosters import from_catboost, from_lightgbm, from_xgboost, library_of
from modelpack.adapters.boosters.trees import Forest

_READERS: dict[str, Any] = {
    "xgboost": from_xgboost,
    "lightgbm": from_lightgbm,
    "catboost": from_catboost,
}


class _Same:
    """An estimator as a key: boosters of CatBoost cannot be hashed."""

    def __init__(self, item: Any) -> None:
        self.item = item

    def __hash__(self) -> int:
        return id(self.item)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Same) and self.item is other.item


def problem(item: Any) -> str:
    """Why a fitted booster cannot be converted; empty if it can."""
    return _problem(_Same(item))


def read(item: Any) -> Forest:
    """The trees of a fitted booster that has no `problem`."""
    return _read(_Same(item))


@lru_cache(maxsize=16)
def _problem(key: _Same) -> str:
    return str(_READERS[library_of(key.item)].problem(key.item))


@lru_cache(maxsize=4)
def _read(key: _Same) -> Forest:
    return _READERS[library_of(key.item)].read(key.item)
