"""What Keras's own preprocessing layers tell of the inputs that samples are made of."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from modelpack.adapters.keras_ranges import ranges
from modelpack.signature import DType, Signature, TensorSpec
from modelpack.steps import Range

keras = pytest.importorskip("keras")
layers = keras.layers

PIXELS = Range(low=(0.0,), high=(255.0,), smooth=True)


def images(name: str = "image") -> TensorSpec:
    return TensorSpec(name, DType.FLOAT32, ("batch", 8, 8, 3))


def table() -> TensorSpec:
    return TensorSpec("table", DType.FLOAT32, ("batch", 2))


def usual(model: Any, *inputs: TensorSpec) -> dict[str, Range]:
    return ranges(model, Signature(inputs, ()))


def normalizing(**options: Any) -> Any:
    return layers.Normalization(mean=[1.0, -20.0], variance=[3.0, 27.0], **options)


@pytest.mark.parametrize(
    "first",
    [
        [layers.Rescaling(1 / 255)],
        [layers.Rescaling(1 / 127.5, offset=-1.0)],
        [layers.RandomFlip(), layers.Resizing(4, 4), layers.Rescaling(1 / 255)],
    ],
)
def test_pixels_are_known_by_how_they_are_rescaled(first: list[Any]) -> None:
    model = keras.Sequential([keras.Input((8, 8, 3)), *first, layers.Conv2D(2, 3)])
    assert usual(model, images()) == {"image": PIXELS}


def test_pixels_that_are_no_images_are_not_smooth() -> None:
    model = keras.Sequential([keras.Input((4,)), layers.Reshape((2, 2)), layers.Rescaling(1 / 255)])
    spec = TensorSpec("image", DType.FLOAT32, ("batch", 4))
    assert usual(model, spec) == {"image": Range(low=(0.0,), high=(255.0,))}


def test_a_model_inside_of_another_tells_too() -> None:
    inner = keras.Sequential([keras.Input((8, 8, 3)), layers.Rescaling(1 / 255)])
    given, other = keras.Input((8, 8, 3)), keras.Input((8, 8, 3))
    model = keras.Model([other, given], layers.add([inner(given), other]))
    assert usual(model, images("other"), images()) == {"image": PIXELS}


def test_columns_that_were_normalized_are_drawn_as_wide_as_they_were() -> None:
    model = keras.Sequential([keras.Input((2,)), normalizing(), layers.Dense(1)])
    found = usual(model, table())["table"]
    ends = [[-2.0, -29.0], [4.0, -11.0]]
    np.testing.assert_allclose([found.low, found.high], ends, rtol=1e-12, atol=0.0)


def test_one_range_holds_columns_that_were_moved() -> None:
    model = keras.Sequential([keras.Input((1, 4)), layers.Reshape((2, 2)), normalizing()])
    spec = TensorSpec("table", DType.FLOAT32, ("batch", 1, 4))
    found = usual(model, spec)["table"]
    np.testing.assert_allclose([found.low, found.high], [[-29.0], [4.0]], rtol=1e-12, atol=0.0)


@pytest.mark.parametrize(
    "layer", [layers.Rescaling(2.0), normalizing(invert=True), layers.Dense(2)]
)
def test_other_first_layers_tell_nothing(layer: Any) -> None:
    assert usual(keras.Sequential([keras.Input((2,)), layer]), table()) == {}


def test_vocabularies_are_known_with_what_is_not_in_them() -> None:
    word, number = keras.Input((1,), dtype="string"), keras.Input((1,), dtype="int64")
    words = layers.StringLookup(vocabulary=["red", "green"])(word)
    numbers = layers.IntegerLookup(vocabulary=[36, 12])(number)
    specs = TensorSpec("word", DType.STRING, ("b", 1)), TensorSpec("number", DType.INT64, ("b", 1))
    found = usual(keras.Model([word, number], [words, numbers]), *specs)
    assert {type(word) for word in found["word"].values} == {str}  # which crosses to workers
    assert found == {
        "word": Range(values=("green", "red", "an unknown value")),
        "number": Range(low=(11.0,), high=(37.0,)),
    }


def test_subclassed_models_tell_nothing() -> None:
    class Own(keras.Model):
        def call(self, table: Any) -> Any:
            return table / 255

    model = Own()
    model(np.ones((1, 2), np.float32))
    assert usual(model, table()) == {}
