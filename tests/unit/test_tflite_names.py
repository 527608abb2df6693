"""Names of a TFLite signature that TensorFlow cannot hold are put in by their stand-ins."""

from __future__ import annotations

import pytest

from modelpack.adapters.tensorflow_tflite import _stand_ins
from modelpack.errors import ConversionError


@pytest.mark.parametrize(
    "names",
    [["a/b", "a_b", "a.b"], ["X", "x"], ["ünï", "日本", "_x"], [":", "1"], ["İ", "x"], ["x", "x"]],
)
def test_stand_ins_are_distinct_and_of_the_same_length(names: list[str]) -> None:
    found = _stand_ins(names)
    assert len({text.lower() for text in found.values()}) == len(set(names))
    assert all(text.isidentifier() and text[0].isalpha() for text in found.values())
    assert all(len(text) == len(name.encode()) for name, text in found.items())


def test_names_that_tensorflow_keeps_stay() -> None:
    assert _stand_ins(["a/b", "a_b", "X"]) == {"a_b": "a_b", "X": "X", "a/b": "aaa"}


def test_too_many_short_names() -> None:
    with pytest.raises(ConversionError, match="short"):
        _stand_ins([chr(33 + i) for i in range(60)])
