"""Values held in another order of axes are the same values: properties against numpy."""

from __future__ import annotations

from typing import Any

import numpy as np
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st

from modelpack.lowering import layout, sizes
from modelpack.lowering.value import Value

settings.register_profile("lowering", derandomize=True, database=None, deadline=None)
settings.load_profile("lowering")


@st.composite
def held(draw: Any, max_rank: int = 4) -> tuple[Any, Value]:
    """A logical array, and a value of it, constant or held in some order."""
    shape = draw(st.lists(st.integers(1, 3), min_size=1, max_size=max_rank))
    array = np.arange(np.prod(shape), dtype=np.float32).reshape(shape) + draw(st.integers(0, 9))
    if draw(st.booleans()):
        return array, Value(const=array)
    perm = tuple(draw(st.permutations(range(len(shape)))))
    return array, Value(tf.constant(array.transpose(np.argsort(perm))), perm=perm)


@given(held())
def test_the_logical_tensor_does_not_depend_on_the_order_held(pair: tuple[Any, Value]) -> None:
    array, value = pair
    np.testing.assert_array_equal(value.tensor, array)
    assert value.shape == array.shape
    assert value.dims() == list(array.shape)


@given(held(), st.randoms(use_true_random=False))
def test_any_order_can_be_asked_for(pair: tuple[Any, Value], random: Any) -> None:
    array, value = pair
    order = list(range(array.ndim))
    random.shuffle(order)
    np.testing.assert_array_equal(value.transposed(order), array.transpose(order))
    physical = value.physical(tuple(order))
    np.testing.assert_array_equal(np.asarray(physical).transpose(order), array)
    np.testing.assert_array_equal(layout.permuted(value, order).tensor, array.transpose(order))


@given(held(), held())
def test_elementwise_ops_broadcast_as_in_the_graphs_order(
    one: tuple[Any, Value], other: tuple[Any, Value]
) -> None:
    (a, x), (b, y) = one, other
    try:
        expected = a + b
    except ValueError:
        return
    np.testing.assert_array_equal(layout.elementwise(tf.add)(x, y).tensor, expected)


@given(held(), st.data())
def test_reductions_take_logical_axes(pair: tuple[Any, Value], data: Any) -> None:
    array, value = pair
    axes = data.draw(
        st.lists(st.integers(-array.ndim, array.ndim - 1), unique_by=lambda a: a % array.ndim)
    )
    keep = data.draw(st.booleans())
    found = layout.reduced(value, axes, keep, lambda t, a, k: tf.reduce_sum(t, a, keepdims=k))
    if not axes:
        return
    expected = array.sum(tuple(axes), keepdims=keep)
    np.testing.assert_allclose(found.tensor, expected, rtol=1e-6, atol=0)


@given(st.lists(st.integers(1, 4), min_size=1, max_size=4), st.data())
def test_reshaping_to_partly_dynamic_sizes(shape: list[int], data: Any) -> None:
    array = np.arange(np.prod(shape), dtype=np.int32)
    dynamic = data.draw(st.lists(st.sampled_from(range(len(shape))), unique=True))

    @tf.function(autograph=False)
    def reshaped(tensor: Any, given_shape: Any) -> Any:
        wanted = [given_shape[i] if i in dynamic else size for i, size in enumerate(shape)]
        result = sizes.reshape(tensor, wanted)
        assert result.shape.rank == len(shape)
        assert [s for i, s in enumerate(result.shape) if i not in dynamic] == [
            s for i, s in enumerate(shape) if i not in dynamic
        ]
        return result

    found = reshaped(tf.constant(array), tf.constant(shape))
    np.testing.assert_array_equal(found, array.reshape(shape))
