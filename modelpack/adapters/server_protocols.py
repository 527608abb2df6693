"""The two protocols of model servers: Open Inference Protocol, and TensorFlow Serving's REST.

Sources: https://github.com/kserve/open-inference-protocol (``specification/protocol``,
version 2) and https://www.tensorflow.org/tfx/serving/api_rest.
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import numpy as np

from modelpack.adapters.server_http import Client
from modelpack.errors import InputError
from modelpack.samples import Array, Case, numpy_dtype
from modelpack.signature import Dim, DType, Signature, TensorSpec

_DATATYPES = {
    "BOOL": DType.BOOL,
    "INT8": DType.INT8,
    "INT16": DType.INT16,
    "INT32": DType.INT32,
    "INT64": DType.INT64,
    "UINT8": DType.UINT8,
    "UINT16": DType.UINT16,
    "UINT32": DType.UINT32,
    "UINT64": DType.UINT64,
    "FP16": DType.FLOAT16,
    "BF16": DType.BFLOAT16,
    "FP32": DType.FLOAT32,
    "FP64": DType.FLOAT64,
    "BYTES": DType.STRING,
}
_DATATYPE_OF = {dtype: name for name, dtype in _DATATYPES.items()}

_TENSORFLOW = {
    "DT_BOOL": DType.BOOL,
    "DT_INT8": DType.INT8,
    "DT_INT16": DType.INT16,
    "DT_INT32": DType.INT32,
    "DT_INT64": DType.INT64,
    "DT_UINT8": DType.UINT8,
    "DT_UINT16": DType.UINT16,
    "DT_UINT32": DType.UINT32,
    "DT_UINT64": DType.UINT64,
    "DT_HALF": DType.FLOAT16,
    "DT_BFLOAT16": DType.BFLOAT16,
    "DT_FLOAT": DType.FLOAT32,
    "DT_DOUBLE": DType.FLOAT64,
    "DT_STRING": DType.STRING,
}

_PATH = re.compile(
    r"(?P<root>.*)/v(?P<version>[12])/models/[^/:]+(?:/(?:versions|labels)/[^/:]+)?\Z"
)


class ModelServer(Protocol):
    """One model behind a server.

    Attributes:
        finite_only: whether the protocol's JSON has neither NaN nor infinity.
    """

    finite_only: bool

    def title(self) -> str:
        """Name and version of the server, as far as it says."""

    def not_ready(self) -> str:
        """Why the model is not ready to answer; empty when it is."""

    def signature(self) -> Signature:
        """Inputs and outputs in the server's own names."""

    def call(self, feed: Case, native: Signature) -> Case:
        """Ask for the outputs of a feed, both by the server's own names."""


def model_at(client: Client) -> ModelServer:
    """The model at a client's address.

    Raises:
        InputError: the path is neither protocol's.
    """
    match = _PATH.match(client.path)
    if match is None:
        raise InputError(
            f"the path '{client.path}' is no model's",
            hint="write http://HOST:PORT/v2/models/NAME[/versions/V] for the Open Inference "
            "Protocol, or http://HOST:PORT/v1/models/NAME for TensorFlow Serving",
        )
    if match["version"] == "2":
        return OpenInference(client, match["root"])
    return TensorFlowServing(client)


class OpenInference:
    """A model behind a server that speaks the Open Inference Protocol, version 2, in JSON."""

    finite_only = True

    def __init__(self, client: Client, root: str) -> None:
        self._client = client
        self._root = root

    def title(self) -> str:
        """Name and version of the server; its host where it does not say."""
        try:
            found = self._client.get(f"{self._root}/v2")
        except InputError:  # some servers leave it out
            found = {}
        name = found.get("name") if isinstance(found, dict) else None
        words = [name, found.get("version")] if name else ["Open Inference Protocol"]
        return f"{' '.join(map(str, filter(None, words)))} at {self._client.host}"

    def not_ready(self) -> str:
        """Why the model is not ready; empty when it is."""
        try:
            found = self._client.get(f"{self._client.path}/ready")
        except InputError as error:
            # The protocol asks for a status alone; a body that is no JSON is as good.
            return "" if "with no JSON" in error.message else error.message
        ready = found.get("ready", True) if isinstance(found, dict) else True
        return "" if ready else f"it says {found}"

    def signature(self) -> Signature:
        """The signature of the model's metadata.

        Raises:
            InputError: the server does not say what goes in and what comes out.
        """
        found = _mapping(self._client.get(self._client.path))
        sides = [self._specs(found.get(side), side == "inputs") for side in ("inputs", "outputs")]
        if not all(sides):
            raise InputError(
                f"{self._client.host} does not say what the model's inputs and outputs are",
                hint="give the server their names, datatypes and shapes in its configuration",
            )
        return Signature(sides[0], sides[1])

    def _specs(self, items: Any, named: bool) -> tuple[TensorSpec, ...]:
        return tuple(
            _spec(
                str(item.get("name")),
                _dtype(_DATATYPES, item.get("datatype")),
                item.get("shape"),
                named,
            )
            for item in map(_mapping, items or ())
        )

    def call(self, feed: Case, native: Signature) -> Case:
        """POST the feed to ``infer``.

        Raises:
            InputError: the server refuses it, or its answer does not fit the protocol.
        """
        inputs = [
            {
                "name": spec.name,
                "shape": list(feed[spec.name].shape),
                "datatype": _DATATYPE_OF[spec.dtype],
                "data": _plain(feed[spec.name]).reshape(-1).tolist(),
            }
            for spec in native.inputs
        ]
        document = {"inputs": inputs, "outputs": [{"name": spec.name} for spec in native.outputs]}
        found = _mapping(self._client.post(f"{self._client.path}/infer", document))
        answers = {item.get("name"): item for item in map(_mapping, found.get("outputs") or ())}
        return {spec.name: self._array(spec.name, answers) for spec in native.outputs}

    def _array(self, name: str, answers: Mapping[Any, Mapping[str, Any]]) -> Array:
        if name not in answers:
            raise InputError(f"the answer of {self._client.host} has no output '{name}'")
        item = answers[name]
        array = _array(item.get("data"), _dtype(_DATATYPES, item.get("datatype")), name)
        try:
            return array.reshape(item["shape"])
        except (KeyError, TypeError, ValueError):
            raise InputError(
                f"output '{name}' has {array.size} elements, but the shape {item.get('shape')}"
            ) from None


class TensorFlowServing:
    """A model behind TensorFlow Serving, in its columnar JSON, which has NaN and infinity."""

    finite_only = False

    def __init__(self, client: Client) -> None:
        self._client = client
        self._name = "serving_default"

    def title(self) -> str:
        """The server and the version of the model that answers."""
        found = _mapping(self._client.get(f"{self._client.path}/metadata"))
        version = _mapping(found.get("model_spec") or {}).get("version")
        suffix = f", version {version}" if version else ""
        return f"TensorFlow Serving at {self._client.host}{suffix}"

    def not_ready(self) -> str:
        """Why no version of the model is available; empty when one is."""
        try:
            found = _mapping(self._client.get(self._client.path))
        except InputError as error:
            return error.message
        states = [_mapping(item).get("state") for item in found.get("model_version_status") or ()]
        return "" if "AVAILABLE" in states else f"its versions are {', '.join(map(str, states))}"

    def signature(self) -> Signature:
        """The ``serving_default`` of the model's metadata, or its only signature.

        Raises:
            InputError: there is none.
        """
        found = _mapping(self._client.get(f"{self._client.path}/metadata"))
        definitions: Any = found.get("metadata") or {}
        for _ in range(2):  # it is the one member of a message of the same name
            definitions = _mapping(_mapping(definitions).get("signature_def") or {})
        if self._name not in definitions and len(definitions) == 1:
            self._name = next(iter(definitions))
        if self._name not in definitions:
            raise InputError(f"{self._client.host} has no signature called serving_default")
        chosen = _mapping(definitions[self._name])
        return Signature(
            self._specs(chosen.get("inputs"), named=True),
            self._specs(chosen.get("outputs"), named=False),
            self._name,
        )

    def _specs(self, items: Any, *, named: bool) -> tuple[TensorSpec, ...]:
        """Specs sorted by name: the message keeps no order."""
        found = []
        for name, item in sorted(_mapping(items or {}).items()):
            shape = _mapping(_mapping(item).get("tensor_shape") or {})
            dims = [_mapping(dim).get("size", 0) for dim in shape.get("dim") or ()]
            known = None if shape.get("unknown_rank") else dims
            dtype = _dtype(_TENSORFLOW, _mapping(item).get("dtype"))
            found.append(_spec(name, dtype, known, named))
        return tuple(found)

    def call(self, feed: Case, native: Signature) -> Case:
        """POST the feed to ``:predict``.

        Raises:
            InputError: the server refuses it, its answer does not fit, or the feed has an
                empty tensor, whose shape nested lists cannot say.
        """
        for name, array in feed.items():
            if not array.size:
                raise InputError(f"input '{name}' is empty, which nested lists cannot say")
        inputs = {spec.name: _plain(feed[spec.name]).tolist() for spec in native.inputs}
        document = {"signature_name": self._name, "inputs": inputs}
        found = _mapping(self._client.post(f"{self._client.path}:predict", document))
        if "outputs" not in found:
            raise InputError(f"the answer of {self._client.host} has no 'outputs'")
        values = found["outputs"]
        if len(native.outputs) == 1 and not (isinstance(values, dict) and set(values) != {"b64"}):
            values = {native.outputs[0].name: values}  # a single one goes without its name
        answers = _mapping(values)
        for spec in native.outputs:
            if spec.name not in answers:
                raise InputError(f"the answer of {self._client.host} has no '{spec.name}'")
        return {s.name: _array(answers[s.name], s.dtype, s.name) for s in native.outputs}


# --- values -------------------------------------------------------------------------------


def _mapping(value: Any) -> Mapping[str, Any]:
    if not isinstance(value, dict):
        raise InputError(f"the server's answer has {value!r:.80} where an object belongs")
    return value


def _dtype(known: Mapping[str, DType], name: Any) -> DType:
    if name not in known:
        raise InputError(f"the server speaks of the datatype {name!r}, which is not supported")
    return known[name]


def _spec(name: str, dtype: DType, sizes: Any, named: bool) -> TensorSpec:
    """A spec; of dimensions that the server leaves open, the first is taken for the batch."""
    if sizes is None:
        return TensorSpec(name, dtype, None)
    prefix = re.sub(r"\W", "_", name, flags=re.ASCII)
    dims: list[Dim] = []
    for axis, size in enumerate(sizes):
        count = int(size)  # TensorFlow Serving writes them as strings
        unknown: Dim = "batch" if axis == 0 else f"{prefix}_d{axis}" if named else None
        dims.append(unknown if count < 0 else count)
    return TensorSpec(name, dtype, tuple(dims))


def _plain(array: Array) -> Array:
    """An array of what JSON has: numbers of 16 bits are widened, which loses nothing."""
    if array.dtype.itemsize == 2 and array.dtype.kind in "fV":
        return array.astype(np.float32)
    return array


def _array(data: Any, dtype: DType, name: str) -> Array:
    """Nested or flat lists as an array.

    Raises:
        InputError: they hold something else than values of the dtype, or are ragged.
    """
    try:
        if dtype is DType.STRING:
            return _texts(data)
        if dtype.is_float:  # null is how strict writers of JSON put NaN
            with np.errstate(over="ignore"):
                return np.asarray(data, np.float64).astype(numpy_dtype(dtype))
        # As objects first: NumPy would make floats of large whole numbers.
        values = np.asarray(data, object).flat
        kind = bool if dtype is DType.BOOL else int
        if all(type(value) is kind for value in values):
            return np.asarray(data, numpy_dtype(dtype))
    except (TypeError, ValueError, OverflowError, binascii.Error):
        pass
    raise InputError(f"the server's output '{name}' does not hold {dtype} values")


def _texts(data: Any) -> Array:
    if isinstance(data, Sequence) and not isinstance(data, str):
        parts = [_texts(item) for item in data]
        return np.stack(parts) if parts else np.empty(0, object)
    text = base64.b64decode(data["b64"]).decode() if isinstance(data, dict) else data
    if not isinstance(text, str):
        raise TypeError
    result = np.empty((), object)
    result[()] = text
    return result
