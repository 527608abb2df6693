"""HDF5 files of Keras models, those of Keras 2 among them."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest

import modelpack
from modelpack.errors import ConversionError, InputError
from tests.routes.keras2_files import entry, functional, layer, sequential, write
from tests.thinned import thinned

keras = pytest.importorskip("keras")

RNG = np.random.default_rng(7)


def drawn(*shape: int) -> Any:
    return RNG.standard_normal(shape).astype(np.float32)


def loaded(path: Path) -> Any:
    from modelpack.adapters.keras_loading import loaded_from
    from modelpack.sources import Request, locate

    return loaded_from(locate(Request(str(path)))).model


def dense(name: str, units: int, *nodes: Any, **config: Any) -> dict[str, Any]:
    return layer("Dense", name, *nodes, units=units, activation="linear", use_bias=True, **config)


def weights_of(name: str, rows: int, columns: int) -> list[tuple[str, Any]]:
    return [(f"{name}/kernel:0", drawn(rows, columns)), (f"{name}/bias:0", drawn(columns))]


# --- Keras 2 -------------------------------------------------------------------------------


def test_an_lstm_of_keras_2_reaches_onnx_without_being_compiled(tmp_path: Path) -> None:
    kernel, inner, bias = drawn(3, 16), drawn(4, 16), drawn(16)
    lstm = layer("LSTM", "lstm", units=4, time_major=False, activation="tanh", unroll=False,
                 recurrent_activation="hard_sigmoid", implementation=2)  # fmt: skip
    names = ("kernel", "recurrent_kernel", "bias")
    saved = [
        (f"lstm/lstm_cell/{n}:0", a) for n, a in zip(names, (kernel, inner, bias), strict=True)
    ]
    file = write(tmp_path / "m.h5", sequential("m", entry("steps", 5, 3), lstm), {"lstm": saved})
    modelpack.convert(file, tmp_path / "m.onnx")

    def gate(value: Any) -> Any:
        return np.clip(0.2 * value + 0.5, 0, 1)  # Keras 3 has value / 6 + 0.5

    steps = drawn(2, 5, 3)
    state, cell = np.zeros((2, 4)), np.zeros((2, 4))
    for step in steps.transpose(1, 0, 2):
        i, f, c, o = np.split(step @ kernel + state @ inner + bias, 4, axis=1)
        cell = gate(f) * cell + gate(i) * np.tanh(c)
        state = gate(o) * np.tanh(cell)
    session = onnxruntime.InferenceSession(tmp_path / "m.onnx")
    np.testing.assert_allclose(session.run(None, {"steps": steps})[0], state, rtol=1e-5, atol=1e-5)


@pytest.mark.slow
def test_convolutions_of_keras_2_keep_their_weights(tmp_path: Path) -> None:
    kernel, scale = drawn(3, 3, 2, 1), np.abs(drawn(4, 2)) + 0.5
    config = sequential(
        "m",
        entry("image", 6, 6, 2),
        layer("DepthwiseConv2D", "a/b", kernel_size=[3, 3], groups=1, kernel_initializer=None),
        layer("BatchNormalization", "norm", axis=[3], epsilon=0.001),
        layer("ThresholdedReLU", "cut", theta=0.5),
    )
    names = ("gamma", "beta", "moving_mean", "moving_variance")
    norm = [(f"norm/{name}:0", row) for name, row in zip(names, scale, strict=True)]
    saved = {"a/b": [("a/b/depthwise_kernel:0", kernel), ("a/b/bias:0", np.zeros(2))], "norm": norm}
    model = loaded(write(tmp_path / "m.h5", config, saved))
    image = drawn(2, 6, 6, 2)
    windows = np.lib.stride_tricks.sliding_window_view(image, (3, 3), (1, 2))
    summed = np.einsum("nijcxy,xyc->nijc", windows, kernel[..., 0])
    gamma, beta, mean, variance = scale
    want = (summed - mean) / np.sqrt(variance + 0.001) * gamma + beta
    np.testing.assert_allclose(model(image), want * (want > 0.5), rtol=1e-5, atol=1e-5)


@pytest.mark.slow
def test_calls_of_a_nested_model_count_from_one_and_its_frozen_weights_go_by_name(
    tmp_path: Path,
) -> None:
    inner = sequential(
        "base",
        entry("inner_input", 3),
        dense("first", 3, trainable=False),
        layer("BatchNormalization", "norm", axis=[1], epsilon=0.001),
    )
    config = functional(
        "m",
        [["x", 0, 0]],
        [["base", 1, 0], ["last", 0, 0]],
        entry("x", 3),
        {**inner, "name": "base", "inbound_nodes": [[["x", 0, 0, {}]]]},
        dense("last", 2, [["base", 1, 0, {"training": False}]]),
    )
    first, last = weights_of("first", 3, 3), weights_of("last", 3, 2)
    names = ("moving_mean", "moving_variance", "beta", "gamma")
    rows = np.abs(drawn(4, 3)) + 0.5
    norm = [(f"norm/{name}:0", row) for name, row in zip(names, rows, strict=True)]
    model = loaded(write(tmp_path / "m.h5", config, {"base": [*first, *norm], "last": last}))
    x = drawn(4, 3)
    mean, variance, beta, gamma = rows
    between = (x @ first[0][1] + first[1][1] - mean) / np.sqrt(variance + 0.001) * gamma + beta
    found = model(x)
    np.testing.assert_allclose(found[0], between, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(found[1], between @ last[0][1] + last[1][1], rtol=1e-5, atol=1e-5)


def calling(function: str, **arguments: Any) -> dict[str, Any]:
    """A model that calls one function of TensorFlow."""
    kind = "SlicingOpLambda" if "getitem" in function else "TFOpLambda"
    node = ["x", 0, 0, {**arguments, "name": None}]
    made = layer(kind, f"tf.{function}", node, function=function)
    return functional("m", [["x", 0, 0]], [[f"tf.{function}", 0, 0]], entry("x", 4), made)


ALL = {"start": None, "stop": None, "step": None}

CALLS = {
    "math.truediv": ({"y": 3.0}, lambda x: x / 3),
    "maximum": ({"y": ["x", 0, 0]}, lambda x: x),  # also the name of a function of keras.layers
    "__operators__.getitem": (
        {"slice_spec": [ALL, {**ALL, "start": 1, "stop": 3}]},
        lambda x: x[:, 1:3],
    ),
}


@pytest.mark.parametrize("function", thinned(CALLS, 24))
def test_functions_of_tensorflow_are_layers(function: str, tmp_path: Path) -> None:
    arguments, want = CALLS[function]
    model = loaded(write(tmp_path / "m.h5", calling(function, **arguments), {}))
    x = drawn(3, 4)
    np.testing.assert_array_equal(model(x), want(x))


@pytest.mark.parametrize(
    "function", thinned(["io.write_file", "py_function", "raw_ops.ReadFile"], 3)
)
def test_functions_that_reach_outside_are_refused_by_name(function: str, tmp_path: Path) -> None:
    file = write(tmp_path / "m.h5", calling(function, y=1.0), {})
    with pytest.raises(ConversionError, match=function):
        modelpack.inspect(file)


def test_an_argument_that_keras_3_lacks_is_refused_where_it_matters(tmp_path: Path) -> None:
    lstm = layer("LSTM", "rows", units=4, time_major=True)
    file = write(tmp_path / "m.h5", sequential("m", entry("x", 5, 3), lstm), {})
    with pytest.raises(ConversionError, match=r"'rows' .LSTM. .* time_major=True"):
        loaded(file)


@pytest.mark.slow
def test_states_of_one_recurrent_layer_enter_another(tmp_path: Path) -> None:
    first, last = weights_of("g", 2, 9), weights_of("h", 2, 9)
    for items, name in ((first, "g"), (last, "h")):
        items[1:] = [(f"{name}/recurrent_kernel:0", drawn(3, 9)), (f"{name}/bias:0", drawn(2, 9))]
    own = {"units": 3, "reset_after": True, "time_major": False}
    config = functional(
        "m", [["x", 0, 0], ["y", 0, 0]], [["h", 0, 0]], entry("x", 4, 2), entry("y", 4, 2),
        layer("GRU", "g", [["x", 0, 0, {}]], return_state=True, **own),
        layer("GRU", "h", [["y", 0, 0, {}], ["g", 0, 1, {}]], **own),
    )  # fmt: skip
    model = loaded(write(tmp_path / "m.h5", config, {"g": first, "h": last}))
    x, y = drawn(2, 4, 2), drawn(2, 4, 2)
    layers = [keras.layers.GRU(3), keras.layers.GRU(3)]
    for built, items in zip(layers, (first, last), strict=True):
        built.build((None, 4, 2))
        built.set_weights([array for _, array in items])
    want = layers[1](y, initial_state=layers[0](x))
    np.testing.assert_allclose(model([x, y]), want, rtol=1e-6, atol=1e-6)


def test_weights_of_other_names_are_refused(tmp_path: Path) -> None:
    saved = weights_of("d", 3, 3)
    saved[0] = ("d/embeddings:0", saved[0][1])
    file = write(tmp_path / "m.h5", sequential("m", entry("x", 3), dense("d", 3)), {"d": saved})
    with pytest.raises(InputError, match="d/embeddings:0"):
        loaded(file)


# --- Keras 3 -------------------------------------------------------------------------------


def test_axes_of_a_layer_survive_hdf5(tmp_path: Path) -> None:
    """Keras' own loader of these files drops a list of axes, and says nothing."""
    model = keras.Sequential([keras.Input((3, 4)), keras.layers.UnitNormalization(axis=[1, 2])])
    model.save(tmp_path / "m.h5")
    x = drawn(2, 3, 4)
    np.testing.assert_allclose(loaded(tmp_path / "m.h5")(x), model(x), rtol=1e-6, atol=1e-6)


@pytest.mark.slow
def test_masks_survive_hdf5_under_any_suffix(tmp_path: Path) -> None:
    ids = keras.Input((None,), dtype="int32", name="ids")
    rows = keras.layers.Embedding(9, 4, mask_zero=True)(ids)
    rows = keras.layers.Bidirectional(keras.layers.LSTM(3))(rows)
    model = keras.Model(ids, keras.layers.Dense(2)(rows))
    model.save(tmp_path / "m.h5")
    shutil.move(tmp_path / "m.h5", tmp_path / "m.model")
    x = np.array([[1, 2, 0, 0], [3, 4, 5, 0]])
    np.testing.assert_allclose(loaded(tmp_path / "m.model")(x), model(x), rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("name", ["m.weights.h5", "m.h5"])
def test_files_of_weights_alone_name_what_is_missing(name: str, tmp_path: Path) -> None:
    file = tmp_path / name
    if name == "m.h5":  # as save_weights of Keras 2 writes it: the group of weights is the file
        write(file, {}, {"d": weights_of("d", 3, 3)})
        import h5py

        with h5py.File(file, "a") as opened:
            for key in list(opened.attrs):
                del opened.attrs[key]
    else:
        keras.Sequential([keras.Input((3,)), keras.layers.Dense(3)]).save_weights(file)
    with pytest.raises(InputError, match="holds weights only") as caught:
        modelpack.inspect(file)
    assert f"--weights {name}" in caught.value.hint


# --- other backends ------------------------------------------------------------------------


def test_code_is_loaded_on_tensorflow_whatever_the_environment_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KERAS_BACKEND", "torch")
    layers = "[keras.Input((3,)), keras.layers.Dense(2)]"
    (tmp_path / "net.py").write_text(f"import keras\n\nmodel = keras.Sequential({layers})\n")
    modelpack.convert(f"{tmp_path / 'net.py'}:model", tmp_path / "m.onnx", validate=False)
    assert (tmp_path / "m.onnx").is_file()


@pytest.mark.slow
def test_operations_with_the_names_of_layers_survive_hdf5(tmp_path: Path) -> None:
    given = keras.Input((3,))
    model = keras.Model(given, keras.ops.relu(given) + 1)
    model.save(tmp_path / "m.h5")
    x = drawn(2, 3)
    np.testing.assert_array_equal(loaded(tmp_path / "m.h5")(x), model(x))
