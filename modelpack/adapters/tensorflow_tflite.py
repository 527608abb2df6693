"""SavedModels to TFLite: built-in ops only, names and dynamic dims kept."""

from __future__ import annotations

import itertools
import re
import shutil
import string
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from modelpack.adapters import tflite_guards
from modelpack.dependencies import versions
from modelpack.errors import ConversionError, UnsupportedOpsError
from modelpack.signature import DEFAULT_SIGNATURE, Signature
from modelpack.steps import StepResult

_MISSING = re.compile(r"'(?:tf|tfl)\.(\w+)' op is neither a custom op nor a flex op")
_LISTED = re.compile(r"^\s*tf\.(\w+)\(.*?(?:device|:)", re.MULTILINE)
_LOCATION = r'fused\["{op}:", "([^"@]+)'

# Names that TensorFlow keeps.
_PLAIN = re.compile(r"[A-Za-z][A-Za-z0-9_]*")

# What the converter says of a recurrent layer whose batch size it does not know.
_DYNAMIC_LOOP = ("element_shape to be static", "element_shape` to be static")


@dataclass(frozen=True)
class Source:
    """A SavedModel to convert.

    Attributes:
        path: its directory, when its own signature is wanted as it is; empty otherwise.
        key: name of the signature in that directory.
        model: the loaded model, which owns the variables and tables.
        trace: makes a ``tf.function`` of flat arguments for a signature.
    """

    path: str
    key: str
    model: Any
    trace: Callable[[Signature], Any]


class DynamicLoopError(Exception):
    """A loop over tensors whose first dimension is dynamic, which the converter cannot take."""


def write(
    source: Source, signature: Signature, target: Path, *, select_ops: bool = False
) -> StepResult:
    """Convert to a file with one signature of the given names.

    Loops whose batch is dynamic are converted with a batch of 1; the result says so. With
    ``select_ops`` the file may need TensorFlow's own kernels; the result lists them.

    Raises:
        UnsupportedOpsError: ops have no built-in form; the message lists every one.
        ConversionError: the conversion failed.
    """
    try:
        return write_dynamic(source, signature, target, select_ops=select_ops)
    except DynamicLoopError:
        return write_fixed(source, signature, target, select_ops=select_ops)


def write_dynamic(
    source: Source, signature: Signature, target: Path, *, select_ops: bool = False
) -> StepResult:
    """As `write`, but never with another batch than the signature's.

    Raises:
        DynamicLoopError: that is impossible.
        UnsupportedOpsError, ConversionError: as `write`.
    """
    content = _convert(source, signature, select_ops)
    return _written(content, target, select_ops)


def write_fixed(
    source: Source, signature: Signature, target: Path, *, select_ops: bool = False
) -> StepResult:
    """As `write`, with a batch of 1.

    Raises:
        UnsupportedOpsError, ConversionError: as `write`.
    """
    fixed = _batch_of(signature)
    wrapped = Source("", source.key, source.model, source.trace)
    try:
        content = _convert(wrapped, signature.with_dims(fixed), select_ops, batch_one=True)
    except DynamicLoopError as error:
        raise _no_dynamic_loop() from error
    result = _written(content, target, select_ops)
    dims = ", ".join(f"{name}={size}" for name, size in fixed.items())
    note = f"TFLite cannot run this model's loops with a dynamic batch, so {dims} is fixed"
    return replace(result, fixed_dims=fixed, notes=(note, *result.notes))


def _written(content: bytes, target: Path, select_ops: bool) -> StepResult:
    custom = _custom_ops(content)
    if custom and not select_ops:
        raise UnsupportedOpsError(
            "the converted model needs ops that TFLite does not have built in: " + ", ".join(custom)
        )
    target.write_bytes(content)
    listed = ", ".join(custom)
    return StepResult(
        tools=versions("tensorflow-cpu"),
        options={"select_ops": listed} if custom else {},
        notes=(f"the artifact needs TensorFlow's kernels (Flex delegate): {listed}",)
        if custom
        else (),
    )


def _no_dynamic_loop() -> ConversionError:
    return ConversionError(
        "TFLite cannot run a loop over tensors of dynamic size, which this model has",
        hint="make the sizes of its inputs static with --input",
    )


def _batch_of(signature: Signature) -> dict[str, int]:
    found = {
        spec.shape[0]: 1
        for spec in signature.inputs
        if spec.shape and isinstance(spec.shape[0], str)
    }
    if not found:
        raise _no_dynamic_loop()
    return {str(dim): size for dim, size in found.items()}


def _convert(
    source: Source, signature: Signature, select_ops: bool, batch_one: bool = False
) -> bytes:
    import tensorflow as tf

    scratch = Path(tempfile.mkdtemp())
    try:
        if source.path:
            key, renamed = source.key, {}
            _copy_graph(Path(source.path), scratch)
        else:
            key, renamed = DEFAULT_SIGNATURE, _save_wrapped(source, signature, scratch)
        if batch_one:
            _fix_lists(scratch / "saved_model.pb")
        tflite_guards.guard(scratch / "saved_model.pb")
        converter = tf.lite.TFLiteConverter.from_saved_model(str(scratch), signature_keys=[key])
        return _with_names(_run(converter, select_ops), renamed)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def _copy_graph(saved_model: Path, target: Path) -> None:
    """Copy a SavedModel's graph; the rest of it is linked."""
    for item in saved_model.iterdir():
        if item.name == "saved_model.pb":
            shutil.copyfile(item, target / item.name)
        else:
            (target / item.name).symlink_to(item)


def _run(converter: Any, select_ops: bool) -> bytes:
    import tensorflow as tf

    converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS]
    if select_ops:
        converter.target_spec.supported_ops.append(tf.lite.OpsSet.SELECT_TF_OPS)
    try:
        return bytes(converter.convert())
    except Exception as error:
        text = str(error)
        _raise_unsupported(text, error)
        if any(sign in text for sign in _DYNAMIC_LOOP):
            raise DynamicLoopError from error
        lines = [line.strip() for line in text.splitlines() if line.strip()]
        why = next((line for line in lines if "error:" in line), lines[0] if lines else "")
        raise ConversionError(f"the TFLite converter failed: {why}") from error


def _raise_unsupported(text: str, cause: Exception) -> None:
    """List every op the converter names as missing, with the node it names for it."""
    nodes: dict[str, set[str]] = {}
    for line in text.splitlines():
        match = _MISSING.search(line)
        if match:
            nodes.setdefault(match[1], set())
    for match in _LISTED.finditer(text.partition("Details:")[2]):
        nodes.setdefault(match[1], set())
    for op, places in nodes.items():
        places.update(re.findall(_LOCATION.format(op=op), text))
    # Before it lowers them, the converter takes loops for ops that it does not have.
    if not nodes or any(sign in text for sign in _DYNAMIC_LOOP):
        return
    lines = [f"{op}: {', '.join(sorted(nodes[op]))}".rstrip(": ") for op in sorted(nodes)]
    raise UnsupportedOpsError(
        "these TensorFlow ops have no built-in TFLite op:\n  " + "\n  ".join(lines),
        hint="text processing and float16 arithmetic have none: change the model, or ship the "
        "SavedModel",
    ) from cause


def _save_wrapped(source: Source, signature: Signature, directory: Path) -> dict[str, str]:
    """Save the model under the signature's names; return those that have to be put in later.

    TensorFlow's names hold fewer characters than a signature's. A stand-in has the length
    of its name, so that it can be replaced in the file without moving anything.
    """
    import tensorflow as tf

    stand_ins = _stand_ins([spec.name for spec in (*signature.inputs, *signature.outputs)])
    function = source.trace(signature)

    def serve(*flat: Any) -> dict[str, Any]:
        results = function(*flat)
        return {
            stand_ins[spec.name]: result
            for spec, result in zip(signature.outputs, results, strict=True)
        }

    arguments = [
        tf.TensorSpec(given.shape, given.dtype, name=stand_ins[spec.name])
        for given, spec in zip(function.input_signature, signature.inputs, strict=True)
    ]
    module = tf.Module()
    module.model = source.model
    module.serve = tf.function(serve, input_signature=arguments, autograph=False)
    tf.saved_model.save(module, str(directory), signatures={DEFAULT_SIGNATURE: module.serve})
    return {new: old for old, new in stand_ins.items() if old != new}


def _stand_ins(names: Sequence[str]) -> dict[str, str]:
    """By name, one that TensorFlow keeps and tells from all others, of as many bytes.

    Raises:
        ConversionError: there are not as many names of so few bytes.
    """
    # TensorFlow compares names of arguments in lower case, and they begin with a letter.
    found: dict[str, str] = {}
    taken: set[str] = set()
    for name in sorted(set(names), key=lambda name: (_PLAIN.fullmatch(name) is None, name)):
        like = re.sub(rb"[^A-Za-z0-9_]", b"_", name.encode()).decode()
        free = (
            text
            for text in itertools.chain([like], _letters(len(like)))
            if _PLAIN.fullmatch(text) and text.lower() not in taken
        )
        stand_in = next(free, None)
        if stand_in is None:
            raise ConversionError(
                f"too many tensors have a name as short as '{name}'",
                hint="rename them with --input or --output",
            )
        found[name] = stand_in
        taken.add(stand_in.lower())
    return found


def _letters(count: int) -> Iterator[str]:
    """Texts of so many letters, of which the last few differ."""
    varied = min(count, 4)
    for ending in itertools.product(string.ascii_lowercase, repeat=varied):
        yield "n" * (count - varied) + "".join(ending)


# Inputs of the list ops that give the shape of one element.
_ELEMENT_SHAPES = {
    "EmptyTensorList": 0,
    "TensorListFromTensor": 1,
    "TensorListGetItem": 2,
    "TensorListReserve": 0,
    "TensorListStack": 1,
}


def _fix_lists(path: Path) -> None:
    """Let the lists of a recurrent layer hold elements of batch 1.

    The shape (batch, units) of what one time step adds to a list was written into the
    graph as a constant, with -1 for the batch, when the model was traced.
    """
    import numpy as np
    import tensorflow as tf
    from tensorflow.core.protobuf import saved_model_pb2

    saved = saved_model_pb2.SavedModel.FromString(path.read_bytes())
    for meta in saved.meta_graphs:
        functions = [function.node_def for function in meta.graph_def.library.function]
        for nodes in (meta.graph_def.node, *functions):
            by_name = {node.name: node for node in nodes}
            for node in nodes:
                if node.op not in _ELEMENT_SHAPES:
                    continue
                name = node.input[_ELEMENT_SHAPES[node.op]].split(":")[0]
                constant = by_name.get(name)
                if constant is None or constant.op != "Const":
                    continue
                shape = tf.make_ndarray(constant.attr["value"].tensor)
                if shape.ndim == 1 and shape.size and shape[0] == -1:
                    fixed = np.concatenate([np.ones(1, shape.dtype), shape[1:]])
                    constant.attr["value"].tensor.CopyFrom(tf.make_tensor_proto(fixed))
    path.write_bytes(saved.SerializeToString(deterministic=True))


# --- the file ------------------------------------------------------------------------------


def _model(content: bytes) -> Any:
    from tensorflow.lite.python import schema_py_generated as schema

    return schema.Model.GetRootAs(content, 0)


def _with_names(content: bytes, names: dict[str, str]) -> bytes:
    """Replace the stand-ins in the signature by the names they stand for, in place."""
    if not names:
        return content
    result = bytearray(content)
    for entry in _tensor_maps(_model(content)):
        old = entry.Name().decode()
        if old in names:
            field = entry._tab.Offset(4)
            start = entry._tab.Indirect(entry._tab.Pos + field) + 4
            result[start : start + len(old)] = names[old].encode()
    return bytes(result)


def _tensor_maps(model: Any) -> Iterator[Any]:
    for index in range(model.SignatureDefsLength()):
        definition = model.SignatureDefs(index)
        for position in range(definition.InputsLength()):
            yield definition.Inputs(position)
        for position in range(definition.OutputsLength()):
            yield definition.Outputs(position)


def _custom_ops(content: bytes) -> list[str]:
    """Names of ops that are not built in; those of TensorFlow begin with Flex."""
    model = _model(content)
    codes = [model.OperatorCodes(index) for index in range(model.OperatorCodesLength())]
    return sorted({code.CustomCode().decode() for code in codes if code.CustomCode()})
