"""Keras models that are called without keeping what each layer answers."""

from __future__ import annotations

import weakref
from typing import Any

import numpy as np
import pytest

from modelpack.adapters.keras_memory import answers_forgotten

keras = pytest.importorskip("keras")
layers = keras.layers

RNG = np.random.default_rng(7)


def rows(*shape: int) -> Any:
    return RNG.standard_normal(shape).astype(np.float32)


def watched(seen: list[Any]) -> Any:
    """A layer that adds one, and notes what it answers and how many answers are alive."""

    class Watched(layers.Layer):
        def call(self, tensor: Any) -> Any:
            answer = tensor + 1.0
            seen.append((weakref.ref(answer), sum(ref() is not None for ref, _ in seen)))
            return answer

    return Watched


def most_alive(seen: list[Any]) -> int:
    return max(alive for _, alive in seen)


def test_a_chain_keeps_one_answer_at_a_time() -> None:
    seen: list[Any] = []
    kind = watched(seen)
    inner = keras.Sequential([keras.Input((3,)), *(kind() for _ in range(6))])
    given = keras.Input((3,))
    tensor = given
    for _ in range(6):
        tensor = kind()(tensor)
    model = keras.Model(given, inner(tensor))
    seen.clear()
    model(rows(2, 3))
    assert most_alive(seen) >= 6  # what Keras does
    seen.clear()
    with answers_forgotten():
        answer = model(rows(2, 3))
    assert most_alive(seen) <= 2
    assert answer.shape == (2, 3)


def test_answers_are_those_of_keras() -> None:
    given, other = keras.Input((4,), name="given"), keras.Input((4,), name="other")
    shared = layers.Dense(4)
    inner = keras.Model(given, [shared(given), given])
    left, same = inner(given)
    right, _ = inner(other)
    early = layers.add([left, same, left])
    late = layers.Concatenate()([early, shared(right), other])
    model = keras.Model(
        {"given": given, "other": other}, {"late": late, "early": early, "again": late}
    )
    feed = {"given": rows(5, 4), "other": rows(5, 4)}
    want = model(feed)
    with answers_forgotten():
        have = model(feed)
    assert list(have) == list(want)
    for name, array in want.items():
        np.testing.assert_array_equal(have[name], array)


def test_masks_go_where_they_went() -> None:
    ids = keras.Input((6,), dtype="int32")
    tensor = layers.LSTM(3, return_sequences=True)(layers.Embedding(9, 4, mask_zero=True)(ids))
    model = keras.Model(ids, layers.GlobalAveragePooling1D()(layers.Dropout(0.5)(tensor)))
    feed = RNG.integers(0, 3, (4, 6)).astype(np.int32)
    want = model(feed)
    with answers_forgotten():
        have = model(feed)
    np.testing.assert_array_equal(have, want)


@pytest.mark.parametrize("second", [lambda tensor: tensor + 1, lambda _: None])
def test_layers_may_answer_with_more_than_they_told_of(second: Any) -> None:
    class Two(layers.Layer):
        def call(self, tensor: Any) -> Any:
            return tensor * 2, second(tensor)

        def compute_output_spec(self, tensor: Any) -> Any:
            return keras.KerasTensor(tensor.shape)

    given = keras.Input((3,))
    model = keras.Model(given, layers.Dense(2)(Two()(given)))
    feed = rows(4, 3)
    want = model(feed)
    with answers_forgotten():
        have = model(feed)
    np.testing.assert_array_equal(have, want)


def test_keras_is_as_before_afterwards() -> None:
    from keras.src.ops.function import Function

    before = Function._run_through_graph
    with pytest.raises(ValueError, match="broken"), answers_forgotten():
        raise ValueError("broken")
    assert Function._run_through_graph is before
