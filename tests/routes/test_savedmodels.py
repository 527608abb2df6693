"""SavedModels from elsewhere, and ops that are written otherwise in ONNX."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest

from modelpack.artifact import ModelRef
from modelpack.errors import ConversionError, InputError
from modelpack.sources import Request, locate
from modelpack.steps import StepOptions
from tests.thinned import thinned

tf = pytest.importorskip("tensorflow")

RNG = np.random.default_rng(3)


def drawn(*shape: int) -> Any:
    return RNG.standard_normal(shape).astype(np.float32)


def in_onnx(saved: Path, signature: str = "", **feed: Any) -> list[Any]:
    """Convert a SavedModel, without the comparison, and run what comes of it."""
    from modelpack.adapters.tensorflow import to_onnx

    target = saved.with_suffix(".onnx")
    to_onnx(located(saved, signature), str(target), StepOptions(name="m"))
    return list(onnxruntime.InferenceSession(target).run(None, feed))


def located(saved: Path, signature: str = "") -> ModelRef:
    """The source that a SavedModel is, with its signature."""
    from modelpack.adapters.tensorflow import describe

    ref = locate(Request(str(saved), signature_name=signature))
    return replace(ref, signature=describe(ref).signature)


def saved(path: Path, function: Callable[..., Any], *specs: Any, **tracked: Any) -> Path:
    """Save a function of named tensors as the only signature."""
    module = tf.Module()
    module.tracked = tracked
    module.function = tf.function(function, input_signature=list(specs))
    tf.saved_model.save(module, str(path), signatures={"serving_default": module.function})
    return path


# --- signatures ------------------------------------------------------------------------------


@pytest.fixture
def two(tmp_path: Path) -> Path:
    """A SavedModel of two signatures, none of which is called serving_default."""
    spec = tf.TensorSpec((None, 2), tf.float32, name="x")
    module = tf.Module()
    module.halved = tf.function(lambda x: {"y": x / 2}, input_signature=[spec])
    module.doubled = tf.function(lambda x: {"y": x * 2}, input_signature=[spec])
    both = {"halved": module.halved, "doubled": module.doubled}
    tf.saved_model.save(module, str(tmp_path / "two"), signatures=both)
    return tmp_path / "two"


@pytest.mark.parametrize(("name", "factor"), thinned([("halved", 0.5), ("doubled", 2.0)], 2))
def test_any_signature_is_converted_by_name(name: str, factor: float, two: Path) -> None:
    x = drawn(3, 2)
    np.testing.assert_array_equal(in_onnx(two, name, x=x)[0], x * factor)


@pytest.mark.parametrize("name", ["", "squared"])
def test_a_signature_that_is_not_there_is_refused_with_those_that_are(name: str, two: Path) -> None:
    with pytest.raises(InputError, match="but doubled, halved"):
        in_onnx(two, name)


# --- variables that change ------------------------------------------------------------------


class Counting(tf.Module):
    """Counts its calls, which its answers depend on or not."""

    def __init__(self, reads: bool, branches: bool) -> None:
        super().__init__()
        self.calls = tf.Variable(1.0)
        self.weight = tf.Variable(2.0)
        self.reads, self.branches = reads, branches

    @tf.function(input_signature=[tf.TensorSpec((None, 2), tf.float32, name="x")])
    def answer(self, x: Any) -> dict[str, Any]:
        if not self.branches or tf.reduce_sum(x) > 0:
            self.calls.assign_add(1.0)
        return {"y": x * (self.calls if self.reads else self.weight)}


@pytest.mark.parametrize("branches", [False, True])
def test_what_changes_a_variable_that_no_answer_needs_is_left_out(
    branches: bool, tmp_path: Path
) -> None:
    module = Counting(reads=False, branches=branches)
    tf.saved_model.save(module, str(tmp_path / "m"), {"serving_default": module.answer})
    x = drawn(3, 2)
    np.testing.assert_array_equal(in_onnx(tmp_path / "m", x=x)[0], x * 2)


@pytest.mark.parametrize("branches", [False, True])
def test_answers_that_depend_on_earlier_calls_are_refused(branches: bool, tmp_path: Path) -> None:
    from modelpack.adapters.savedmodel_tflite import to_tflite

    module = Counting(reads=True, branches=branches)
    tf.saved_model.save(module, str(tmp_path / "m"), {"serving_default": module.answer})
    with pytest.raises(ConversionError, match="changes a variable while it answers"):
        in_onnx(tmp_path / "m")
    with pytest.raises(ConversionError, match="changes a variable while it answers"):
        to_tflite(located(tmp_path / "m"), str(tmp_path / "m.tflite"), StepOptions())


class Drawing(tf.Module):
    """Answers with random numbers, whose state changes."""

    def __init__(self) -> None:
        super().__init__()
        self.generator = tf.random.Generator.from_seed(1)

    def answer(self, x: Any) -> Any:
        return x + self.generator.normal((2,))


class Remembering(tf.Module):
    """Answers with the rows it has seen before."""

    def __init__(self) -> None:
        super().__init__()
        self.table = tf.lookup.experimental.MutableHashTable(tf.int64, tf.float32, -1.0)

    def answer(self, x: Any) -> Any:
        known = self.table.lookup(tf.cast(x, tf.int64))
        self.table.insert(tf.cast(x, tf.int64), x)
        return known


class Learning(tf.Module):
    """Answers with a weight that each row moves."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = tf.Variable([1.0, 2.0])

    def answer(self, x: Any) -> Any:
        handle, rate = self.weight.handle, tf.constant(0.1)
        tf.raw_ops.ResourceApplyGradientDescent(var=handle, alpha=rate, delta=x)
        return x * self.weight


@pytest.mark.parametrize(
    ("kind", "op"),
    [
        (Drawing, "RngReadAndSkip"),
        (Remembering, "LookupTableInsert"),
        (Learning, "ResourceApplyGradientDescent"),
    ],
)
def test_states_of_every_kind_are_refused_by_name(kind: type, op: str) -> None:
    from modelpack.adapters.tensorflow_freezing import refuse_changes

    module = kind()
    spec = tf.TensorSpec((2,), tf.float32, name="x")
    with pytest.raises(ConversionError, match=f"changes a variable while it answers.*{op}"):
        refuse_changes(tf.function(module.answer, input_signature=[spec]))


def test_a_mean_of_whole_numbers_is_rounded_once(tmp_path: Path) -> None:
    x = np.add.outer(np.arange(32) % 2, np.arange(32) % 2).astype(np.int32)[None]
    spec = tf.TensorSpec((None, 32, 32), tf.int32, name="x")
    path = saved(tmp_path / "m", lambda x: {"y": tf.reduce_mean(x, [1, 2])}, spec)
    np.testing.assert_array_equal(in_onnx(path, x=x)[0], [1])  # rows have 0.5 and 1.5


# --- ops that tf2onnx writes otherwise than TensorFlow computes them ---------------------------


@pytest.mark.parametrize("dtype", thinned([np.int32, np.int64, np.float32], 3))
def test_quotients_round_down_and_remainders_follow(dtype: Any, tmp_path: Path) -> None:
    def divided(a: Any, b: Any) -> dict[str, Any]:
        return {"quotient": a // b, "remainder": a % b}

    pairs = [(a, b) for a in (-9, -8, -1, 0, 1, 7, 8) for b in (-4, -3, 3, 4)]
    a, b = np.array(pairs, dtype).T
    specs = [tf.TensorSpec((None,), dtype, name=name) for name in "ab"]
    quotient, remainder = in_onnx(saved(tmp_path / "m", divided, *specs), a=a, b=b)
    np.testing.assert_array_equal(quotient, np.floor_divide(a, b))
    np.testing.assert_array_equal(remainder, np.mod(a, b))


def test_texts_are_compared_with_one(tmp_path: Path) -> None:
    def compared(x: Any) -> dict[str, Any]:
        return {"is_red": x == "red", "is_given": x != tf.constant([""])}

    x = np.array([["red", "", "-1"], ["Red", "grün", "red"]], object)
    spec = tf.TensorSpec((None, 3), tf.string, name="x")
    is_given, is_red = in_onnx(saved(tmp_path / "m", compared, spec), x=x)
    np.testing.assert_array_equal(is_red, x == "red")
    np.testing.assert_array_equal(is_given, x != "")


def test_texts_that_are_compared_with_others_are_refused(tmp_path: Path) -> None:
    specs = [tf.TensorSpec((None,), tf.string, name=name) for name in "ab"]
    path = saved(tmp_path / "m", lambda a, b: {"y": a == b}, *specs)
    with pytest.raises(ConversionError, match="compares texts"):
        in_onnx(path)


def test_casts_to_what_holds_less_stay(tmp_path: Path) -> None:
    def cast(x: Any) -> dict[str, Any]:
        halves, wholes = tf.cast(x, tf.float16), tf.cast(x, tf.int8)
        return {"halves": tf.cast(halves, tf.float32), "wholes": tf.cast(wholes, tf.float32)}

    x = np.array([1 / 3, -2.7, 100.3], np.float32)
    spec = tf.TensorSpec((None,), tf.float32, name="x")
    halves, wholes = in_onnx(saved(tmp_path / "m", cast, spec), x=x)
    np.testing.assert_array_equal(halves, x.astype(np.float16).astype(np.float32))
    np.testing.assert_array_equal(wholes, np.trunc(x))


RESIZES = [
    ("bicubic", False, (9, 7)),
    ("bicubic", True, (3, 3)),
    ("area", False, (3, 4)),
    ("lanczos3", False, (9, 7)),
    ("bilinear", True, (3, 3)),
    ("bilinear", False, (9, 7)),  # by a factor of float32 it would be one row short
    ("nearest", False, (9, 7)),
]


@pytest.mark.parametrize(("method", "antialias", "size"), thinned(RESIZES, 12))
def test_images_are_resized_as_tensorflow_does_it(
    method: str, antialias: bool, size: tuple[int, int], tmp_path: Path
) -> None:
    def resized(image: Any) -> dict[str, Any]:
        return {"y": tf.image.resize(image, size, method=method, antialias=antialias)}

    image = drawn(2, 5, 4, 3)
    spec = tf.TensorSpec((None, 5, 4, 3), tf.float32, name="image")
    (found,) = in_onnx(saved(tmp_path / "m", resized, spec), image=image)
    np.testing.assert_allclose(found, resized(image)["y"], rtol=1e-5, atol=1e-6)


def test_a_bicubic_resize_of_any_size_is_refused_by_name(tmp_path: Path) -> None:
    spec = tf.TensorSpec((None, None, 4, 3), tf.float32, name="image")
    path = saved(
        tmp_path / "m", lambda image: {"y": tf.image.resize(image, (3, 3), "bicubic")}, spec
    )
    with pytest.raises(ConversionError, match=r"ResizeBicubic: .* known sizes"):
        in_onnx(path)
