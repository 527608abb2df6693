"""Validation against running servers: small ones of our own, strict about their protocols."""

from __future__ import annotations

import contextlib
import itertools
import socket
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import onnx
import onnxruntime
import pytest

from fixtures.servers import Model, answering, open_inference, tensorflow_serving
from modelpack.adapters import server
from modelpack.adapters.server_http import Client
from modelpack.adapters.server_protocols import model_at
from modelpack.artifact import Encoding, ModelRef
from modelpack.errors import InputError, WorkerError
from modelpack.samples import read_cases, write_cases
from modelpack.steps import RunOptions

RNG = np.random.default_rng(0)


@pytest.fixture(scope="module")
def network(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A layer and a softmax, with the number of the class beside the probabilities."""
    path = tmp_path_factory.mktemp("network") / "m.onnx"
    weights = RNG.standard_normal((4, 3)).astype(np.float32)
    helper, kind = onnx.helper, onnx.TensorProto
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["z"]),
        helper.make_node("Softmax", ["z"], ["p"], axis=-1),
        helper.make_node("ArgMax", ["p"], ["k"], axis=-1, keepdims=0),
    ]
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x", kind.FLOAT, ["batch", 4])],
        [
            helper.make_tensor_value_info("p", kind.FLOAT, ["batch", 3]),
            helper.make_tensor_value_info("k", kind.INT64, ["batch"]),
        ],
        [onnx.numpy_helper.from_array(weights, "w")],
    )
    opset = [helper.make_opsetid("", 17)]
    onnx.save(helper.make_model(graph, opset_imports=opset, ir_version=8), path)
    return path


def served(network: Path, scale: float = 1.0) -> Model:
    """The network behind a server; another scale makes it answer wrongly."""
    session = onnxruntime.InferenceSession(network, providers=["CPUExecutionProvider"])

    def answer(feed: dict[str, Any]) -> dict[str, Any]:
        p, k = session.run(["p", "k"], feed)
        return {"p": p * np.float32(scale), "k": k}

    return Model(answer, {"x": ("FP32", [-1, 4])}, {"p": ("FP32", [-1, 3]), "k": ("INT64", [-1])})


def in_tensorflow(model: Model) -> Model:
    names = {"FP32": "DT_FLOAT", "INT64": "DT_INT64"}
    sides = [
        {name: (names[kind], shape) for name, (kind, shape) in side.items()}
        for side in (model.inputs, model.outputs)
    ]
    return Model(model.answer, *sides)


# --- verdicts ------------------------------------------------------------------------------


def test_a_server_of_the_open_inference_protocol_is_validated(network, modelpack) -> None:
    with open_inference(served(network)) as address:
        found = modelpack.ok("validate", address, "--reference", network, "--json").json
        assert found["verdict"] == "passed"
        result = found["artifacts"][0]
        assert result["parity"]["runtime"] == f"toyserver 1.2.3 at {address.split('/')[2]}"
        checks = {item["name"]: item["ok"] for item in result["structure"]}
        names = ("signature", "ready", "determinism", "concurrency")
        assert checks == dict.fromkeys(names, True)
        other = modelpack("validate", network, "--reference", f"{address}/versions/1")
        assert other.code == 0, other.stderr


def test_a_server_of_tensorflow_serving_is_validated(network, modelpack) -> None:
    with tensorflow_serving(in_tensorflow(served(network))) as address:
        found = modelpack.ok("validate", address, "--reference", network, "--json").json
        assert found["verdict"] == "passed"
        assert "TensorFlow Serving" in found["artifacts"][0]["parity"]["runtime"]


@pytest.mark.parametrize("protocol", [open_inference, tensorflow_serving])
def test_a_server_that_answers_wrongly_ends_with_7(network, modelpack, protocol) -> None:
    model = served(network, 1.0001)
    with protocol(model if protocol is open_inference else in_tensorflow(model)) as address:
        outcome = modelpack("validate", address, "--reference", network)
    assert outcome.code == 7, outcome.stderr
    assert "'p'" in outcome.stderr


def test_a_server_that_mixes_up_calls_ends_with_7(network, modelpack) -> None:
    """It keeps the feed where the next request finds it."""
    model, shared = served(network), {}
    answer = model.answer

    def careless(feed: dict[str, Any]) -> dict[str, Any]:
        shared["feed"] = feed
        time.sleep(0.1)
        return answer(shared["feed"])

    model.answer = careless
    with open_inference(model) as address:
        outcome = modelpack("validate", address, "--reference", network)
    assert outcome.code == 7, outcome.stderr
    assert "concurrency: 4 threads with 3 feeds each" in outcome.stderr


def test_a_server_whose_answers_change_ends_with_7(network, modelpack) -> None:
    model, count = served(network), itertools.count()
    answer = model.answer
    model.answer = lambda feed: {**(found := answer(feed)), "p": found["p"] + next(count) % 2}
    with open_inference(model) as address:
        outcome = modelpack("validate", address)
    assert outcome.code == 7, outcome.stderr
    assert "determinism: 5 calls with one feed" in outcome.stderr


def test_a_server_under_other_names_is_bound_by_position(network, modelpack) -> None:
    model = served(network)
    answer = model.answer
    model.answer = lambda feed: {"a": (out := answer({"x": feed["in"]}))["p"], "b": out["k"]}
    model.inputs, model.outputs = (
        {"in": model.inputs["x"]},
        {"a": model.outputs["p"], "b": model.outputs["k"]},
    )
    with open_inference(model) as address:
        outcome = modelpack("validate", address, "--reference", network)
    assert outcome.code == 0, outcome.stderr
    assert "by position" in outcome.stderr


def test_inspect_shows_a_server_and_convert_refuses_it(network, modelpack) -> None:
    with open_inference(served(network)) as address:
        shown = modelpack.ok("inspect", address).stdout
        assert "x:float32[batch,4]" in shown
        outcome = modelpack("convert", address, "-o", "m.onnx")
    assert outcome.code == 5, outcome.stderr


# --- values --------------------------------------------------------------------------------

BITS = RNG.integers(0, 2**32, 4000, np.uint32).view(np.float32)
VALUES = {
    "FP32": BITS[np.isfinite(BITS)],
    "FP64": RNG.integers(0, 2**62, 500, np.int64).view(np.float64),
    "FP16": np.arange(0, 0x7C00, 7, np.uint16).view(np.float16),
    "BF16": np.arange(0, 0x7F80, 7, np.uint16).view(ml_dtypes.bfloat16),
    "INT64": np.array([-(2**63), 2**63 - 1, 0, 2**53 + 1]),
    "UINT64": np.array([2**64 - 1, 0], np.uint64),
    "INT8": np.array([-128, 127], np.int8),
    "BOOL": np.array([[True, False]]),
    "BYTES": np.array([["", "a"], ["na\u00efve", '\u6771"\\']], object),
}
EDGES = np.array([[np.nan, np.inf], [-np.inf, -0.0], [1e-45, 3.4028235e38]], np.float32)
OF_TENSORFLOW = {
    "DT_FLOAT": np.concatenate([VALUES["FP32"].reshape(-1, 1), EDGES.reshape(-1, 1)]),
    "DT_DOUBLE": VALUES["FP64"],
    "DT_HALF": VALUES["FP16"],
    "DT_INT64": VALUES["INT64"],
    "DT_UINT64": VALUES["UINT64"],
    "DT_INT32": np.array(7, np.int32),
    "DT_BOOL": VALUES["BOOL"],
    "DT_STRING": VALUES["BYTES"],
}


def through(address: str, feed: dict[str, Any], directory: Path) -> dict[str, Any]:
    """What the adapter makes of the answer to a feed."""
    ref = ModelRef("server", Encoding.SERVER, address)
    signature = server.describe(ref).signature
    write_cases(directory / "in.npz", [feed])
    server.run(ref, str(directory / "in.npz"), str(directory / "out.npz"), RunOptions())
    return read_cases(directory / "out.npz", signature.outputs)[0]


def assert_same(found: Any, wanted: Any) -> None:
    assert found.shape == wanted.shape
    assert found.dtype == wanted.dtype
    if wanted.dtype == object:
        assert found.tolist() == wanted.tolist()
    else:
        assert found.tobytes() == wanted.tobytes()


def echoing(values: dict[str, Any], suffix: str = "_out") -> Model:
    kinds = {kind: (kind, [-1] * array.ndim) for kind, array in values.items()}
    return Model(
        lambda feed: {f"{kind}{suffix}": array for kind, array in feed.items()},
        kinds,
        {f"{kind}{suffix}": spec for kind, spec in kinds.items()},
    )


def test_values_of_every_datatype_survive_the_open_inference_protocol(tmp_path) -> None:
    with open_inference(echoing(VALUES)) as address:
        found = through(address, VALUES, tmp_path)
    for kind, wanted in VALUES.items():
        assert_same(found[f"{kind}_out"], wanted)


@pytest.mark.parametrize("suffix", ["_out", "_bytes"])
def test_values_of_every_datatype_survive_tensorflow_serving(tmp_path, suffix: str) -> None:
    with tensorflow_serving(echoing(OF_TENSORFLOW, suffix)) as address:
        found = through(address, OF_TENSORFLOW, tmp_path)
    for kind, wanted in OF_TENSORFLOW.items():
        if kind == "DT_FLOAT":  # a NaN is any NaN
            np.testing.assert_array_equal(found[f"{kind}{suffix}"], wanted)
        else:
            assert_same(found[f"{kind}{suffix}"], wanted)


def test_a_single_output_of_tensorflow_serving_comes_without_its_name(tmp_path) -> None:
    values = {"DT_STRING": VALUES["BYTES"]}
    for suffix in ("_out", "_bytes"):
        with tensorflow_serving(echoing(values, suffix)) as address:
            found = through(address, values, tmp_path)
        assert_same(found[f"DT_STRING{suffix}"], VALUES["BYTES"])


@pytest.mark.parametrize(
    ("answer", "says"),
    [
        (np.array([1.5]), "does not hold int64"),
        (np.array(["a"], object), "does not hold int64"),
        (np.array([None], object), "does not hold int64"),
    ],
)
def test_values_that_are_not_of_their_datatype_are_refused(tmp_path, answer, says) -> None:
    model = Model(lambda feed: {"y": answer}, {"x": ("FP32", [-1])}, {"y": ("INT64", [-1])})
    with open_inference(model) as address, pytest.raises(InputError, match=says):
        through(address, {"x": np.zeros(1, np.float32)}, tmp_path)


def test_what_json_cannot_say_is_left_out_and_said(network, modelpack) -> None:
    """The reference answers with infinity to inputs at the edges of what it takes."""
    model = onnx.load(network)
    model.graph.node.append(onnx.helper.make_node("Div", ["p", "zero"], ["q"]))
    model.graph.initializer.append(
        onnx.numpy_helper.from_array(np.array([1, 1, 0], np.float32), "zero")
    )
    model.graph.output.append(
        onnx.helper.make_tensor_value_info("q", onnx.TensorProto.FLOAT, ["batch", 3])
    )
    onnx.save(model, modelpack.directory / "inf.onnx")
    session = onnxruntime.InferenceSession(modelpack.directory / "inf.onnx")
    outputs = {"p": ("FP32", [-1, 3]), "k": ("INT64", [-1]), "q": ("FP32", [-1, 3])}
    found = Model(
        lambda feed: dict(zip(outputs, session.run(list(outputs), feed), strict=True)),
        {"x": ("FP32", [-1, 4])},
        outputs,
    )
    with open_inference(found) as address:
        outcome = modelpack("validate", address, "--reference", "inf.onnx")
    assert outcome.code == 0, outcome.stderr
    assert "JSON has no NaN and no infinity" in outcome.stderr
    assert "unverified" in outcome.stdout


# --- servers that do not answer -------------------------------------------------------------


@contextlib.contextmanager
def silent() -> Iterator[str]:
    """A port that takes connections and says nothing."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        yield f"127.0.0.1:{listening.getsockname()[1]}"


def dripping(handler: BaseHTTPRequestHandler) -> None:
    handler.send_response(200)
    handler.end_headers()
    with contextlib.suppress(OSError):
        for _ in range(200):
            handler.wfile.write(b" ")
            time.sleep(0.05)


def test_a_server_that_hangs_has_a_time_limit() -> None:
    with silent() as host, pytest.raises(WorkerError, match=r"did not answer GET /v2 within 0\.3"):
        Client(f"http://{host}", time_limit=0.3).get("/v2")


def test_a_server_that_answers_drop_by_drop_has_a_time_limit() -> None:
    with answering(dripping) as host, pytest.raises(WorkerError, match="did not answer"):
        Client(f"http://{host}", time_limit=0.3).get("/v2")


def test_the_limit_of_a_step_holds_for_servers_too(network, modelpack) -> None:
    with silent() as host:
        address = f"http://{host}/v2/models/m"
        outcome = modelpack("validate", address, "--reference", network, "--timeout", "2")
    assert outcome.code == 10, outcome.stderr
    assert "opening the server model was still running after 2 s" in outcome.stderr


def test_a_server_that_is_not_there_ends_with_2(network, modelpack) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    outcome = modelpack("validate", f"http://127.0.0.1:{port}/v2/models/m", "--reference", network)
    assert outcome.code == 2, outcome.stderr
    assert "Connection refused" in outcome.stderr


def test_the_words_of_a_server_that_refuses_are_shown(network, modelpack) -> None:
    with open_inference(served(network)) as address:
        outcome = modelpack("validate", f"{address}x", "--reference", network)
    assert outcome.code == 2, outcome.stderr
    assert "answers GET /v2/models/toyx with 404: Request for unknown model" in outcome.stderr


def test_no_redirect_is_followed() -> None:
    def elsewhere(handler: BaseHTTPRequestHandler) -> None:
        handler.send_response(302)
        handler.send_header("Location", "http://127.0.0.1:1/")
        handler.end_headers()

    with answering(elsewhere) as host, pytest.raises(InputError, match="is not followed"):
        Client(f"http://{host}").get("/v2")


def test_no_proxy_is_used(network, modelpack) -> None:
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy"):
        modelpack.environment[name] = "http://127.0.0.1:1"
    with open_inference(served(network)) as address:
        modelpack.ok("inspect", address)


def test_an_answer_that_is_no_json_is_refused() -> None:
    def page(handler: BaseHTTPRequestHandler) -> None:
        handler.send_response(200)
        handler.end_headers()
        handler.wfile.write(b"<html>welcome</html>")

    with answering(page) as host, pytest.raises(InputError, match="no JSON: <html>welcome"):
        Client(f"http://{host}").get("/v2")


def test_a_connection_that_the_server_has_closed_is_opened_again() -> None:
    asked = threading.Semaphore(0)

    def once(handler: BaseHTTPRequestHandler) -> None:
        asked.release()
        handler.protocol_version = "HTTP/1.1"
        handler.send_response(200)
        handler.send_header("Content-Length", "2")
        handler.end_headers()
        handler.wfile.write(b"{}")
        handler.close_connection = True  # without having said so

    with answering(once) as host:
        client = Client(f"http://{host}")
        assert client.get("/v2") == client.get("/v2") == {}
    assert asked.acquire(timeout=1)
    assert asked.acquire(timeout=1)


@pytest.mark.parametrize(
    ("address", "says"),
    [
        ("ftp://127.0.0.1/v2/models/m", "no address that can be spoken to"),
        ("http:///v2/models/m", "no address of a server"),
        ("http://127.0.0.1:99999/v2/models/m", "no address"),
        ("http://me:secret@127.0.0.1/v2/models/m", "more than host, port and path"),
        ("http://127.0.0.1/v2/models/m?x=1", "more than host, port and path"),
        ("http://127.0.0.1/v3/models/m", "is no model's"),
        ("http://127.0.0.1/v2/models/m/infer", "is no model's"),
    ],
)
def test_addresses_that_cannot_be_used_are_refused(address: str, says: str) -> None:
    from modelpack.sources import Request, locate

    with pytest.raises(InputError, match=says) as caught:
        model_at(Client(locate(Request(address)).location))
    assert "secret" not in str(caught.value)
