"""ONNX's own backend tests, run through the lowering: saved, loaded again, run, compared.

As a script: ``python tests/lowering/backend_suite.py savedmodel '^test_resize'`` runs the
cases whose names match, each in a process that survives crashes, and prints what failed.
"""

from __future__ import annotations

import argparse
import contextlib
import multiprocessing
import os
import re
import sys
import tempfile
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import onnx

KINDS = ("node", "simple", "pytorch-operator", "pytorch-converted")
TARGETS = ("savedmodel", "tflite")


class MismatchError(AssertionError):
    """The artifact ran, and its answer is not the expected one."""


@dataclass(frozen=True)
class Outcome:
    """How a case went: ``passed``, ``refused``, ``wrong``, ``failed`` or ``crashed``."""

    name: str
    status: str
    detail: str = ""


@cache
def cases(kind: str = "node") -> dict[str, Any]:
    """The test cases of a kind by name. Their data is computed with onnx's own seed."""
    from onnx.backend.test.loader import load_model_tests

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        found = load_model_tests(kind=kind)
    return {case.name: case for case in found}


def model_of(case: Any) -> onnx.ModelProto:
    """The model of a case, a copy."""
    if case.model is None:
        return onnx.load(Path(case.model_dir) / "model.onnx")
    copy = onnx.ModelProto()
    copy.CopyFrom(case.model)
    return copy


def data_of(case: Any) -> list[tuple[list[Any], list[Any]]]:
    """Pairs of inputs and expected outputs."""
    if case.data_sets is not None:
        return [
            ([_array(item) for item in inputs], [_array(item) for item in outputs])
            for inputs, outputs in case.data_sets
        ]
    model = model_of(case)
    pairs = []
    for directory in sorted(Path(case.model_dir).glob("test_data_set_*")):
        sides = []
        for side, infos in (("input", model.graph.input), ("output", model.graph.output)):
            files = [directory / f"{side}_{i}.pb" for i in range(len(infos))]
            sides.append([_tensor(file) for file in files if file.exists()])
        pairs.append((sides[0], sides[1]))
    return pairs


def _array(item: Any) -> Any:
    """Data of dtypes that numpy lacks are protos in a case."""
    return onnx.numpy_helper.to_array(item) if isinstance(item, onnx.TensorProto) else item


def _tensor(file: Path) -> Any:
    return onnx.numpy_helper.to_array(onnx.TensorProto.FromString(file.read_bytes()))


def check(case: Any, target: str) -> None:
    """Convert a case's model, run the artifact on the case's inputs, compare.

    Raises:
        MismatchError: the answer is wrong.
        Exception: whatever conversion or running raised.
    """
    with tempfile.TemporaryDirectory() as scratch:
        data = data_of(case)
        run = RUNNERS[target](model_of(case), Path(scratch), data[0][0] if data else None)
        for inputs, expected in data:
            compare(run(inputs), flattened(expected), case.rtol, case.atol)


def flattened(values: list[Any]) -> list[Any]:
    """Tensors of values in order: all of a sequence, none of an empty optional."""
    flat: list[Any] = []
    for value in values:
        if value is not None:
            flat += value if isinstance(value, list) else [value]
    return flat


def compare(actual: list[Any], expected: list[Any], rtol: float, atol: float) -> None:
    """Compare as onnx's own runner does: dtype, shape and values."""
    if len(actual) != len(expected):
        raise MismatchError(f"{len(actual)} outputs instead of {len(expected)}")
    for position, (got, want) in enumerate(zip(actual, expected, strict=True)):
        _compare_one(np.asarray(got), np.asarray(want), rtol, atol, f"output {position}")


def _compare_one(got: Any, want: Any, rtol: float, atol: float, where: str) -> None:
    if got.shape != want.shape:
        raise MismatchError(f"{where}: shape {got.shape} instead of {want.shape}")
    if want.dtype.kind in "OUS":
        got = np.array([g.decode() if isinstance(g, bytes) else str(g) for g in got.reshape(-1)])
        if list(got) != [str(w) for w in want.reshape(-1)]:
            raise MismatchError(f"{where}: texts differ")
        return
    if got.dtype != want.dtype:
        raise MismatchError(f"{where}: dtype {got.dtype} instead of {want.dtype}")
    if want.dtype.kind == "V":  # bfloat16, float8, int4 and so on
        got, want = got.astype(np.float32), want.astype(np.float32)
    if want.dtype.kind == "b":
        if not np.array_equal(got, want):
            raise MismatchError(f"{where}: {np.mean(got != want):.0%} of the values differ")
    elif not np.allclose(got, want, rtol=rtol, atol=atol, equal_nan=True):
        with np.errstate(all="ignore"):
            off = np.nanmax(np.abs(got.astype(np.float64) - want.astype(np.float64)))
        raise MismatchError(f"{where}: off by {off:.3g}")


# --- targets -------------------------------------------------------------------------------


def _lowered(
    model: onnx.ModelProto, target: Any, directory: Path, sample: list[Any] | None
) -> tuple[list[str], list[str]]:
    """Save the lowered model; return the names of its arguments and of its results.

    Args:
        sample: inputs of one run, without which a graph may have no inputs but tensors. They
            give sequences their lengths, and optionals their being there.
    """
    import tensorflow as tf

    from modelpack.adapters import savedmodel_filters
    from modelpack.lowering.context import Target
    from modelpack.lowering.filters import Filters
    from modelpack.lowering.model import Lowered, graph_inputs, prepare
    from modelpack.lowering.value import Weights

    prepared = prepare(model, target)
    infos = graph_inputs(prepared)
    given = [None] * len(infos) if sample is None else sample
    nested = [
        _specs(info.type, value, f"in_{i}")
        for i, (info, value) in enumerate(zip(infos, given, strict=True))
    ]
    specs = flattened(nested)
    filters = Filters(savedmodel_filters.ROOM) if target is Target.SAVEDMODEL else None
    module = Lowered(prepared, target, weights=Weights(filters))
    results: list[str] = []

    def serve(*flat: Any) -> dict[str, Any]:
        answer = flattened(module(*_like(nested, list(flat))))
        results[:] = [f"out_{i}" for i in range(len(answer))]
        return dict(zip(results, answer, strict=True))

    concrete = tf.function(serve, input_signature=specs, autograph=False).get_concrete_function()
    tf.saved_model.save(module, str(directory), signatures={"serving_default": concrete})
    if filters is not None:
        savedmodel_filters.put_in(directory, filters)
    return [spec.name for spec in specs], results


def _like(nested: list[Any], flat: list[Any]) -> list[Any]:
    """The inverse of `flattened`, in the form of ``nested``."""
    items = iter(flat)
    return [
        [next(items) for _ in value] if isinstance(value, list) else value and next(items)
        for value in nested
    ]


def _specs(kind: onnx.TypeProto, sample: Any, name: str) -> Any:
    """A spec; a list of them for a sequence as long as the sample; None for an empty optional."""
    import tensorflow as tf

    if kind.HasField("optional_type"):
        return None if sample is None else _specs(kind.optional_type.elem_type, sample, name)
    if kind.HasField("sequence_type"):
        element = kind.sequence_type.elem_type
        return [_specs(element, item, f"{name}_{i}") for i, item in enumerate(sample)]
    tensor = kind.tensor_type
    dtype = onnx.helper.tensor_dtype_to_np_dtype(tensor.elem_type)
    shape = None if sample is None else [None] * np.ndim(sample)
    if tensor.HasField("shape"):
        shape = [dim.dim_value if dim.HasField("dim_value") else None for dim in tensor.shape.dim]
    return tf.TensorSpec(shape, tf.string if dtype == np.object_ else tf.as_dtype(dtype), name=name)


def _savedmodel(
    model: onnx.ModelProto, scratch: Path, sample: list[Any] | None = None
) -> Callable[[list[Any]], list[Any]]:
    import tensorflow as tf

    from modelpack.lowering.context import Target

    names, results = _lowered(model, Target.SAVEDMODEL, scratch / "saved", sample)
    loaded = tf.saved_model.load(str(scratch / "saved"))
    function = loaded.signatures["serving_default"]

    def run(inputs: list[Any]) -> list[Any]:
        feed = {
            name: tf.constant(array) for name, array in zip(names, flattened(inputs), strict=True)
        }
        answer = function(**feed)
        run.owner = loaded  # the function does not keep its variables alive
        return [answer[name].numpy() for name in results]

    return run


def _tflite(
    model: onnx.ModelProto, scratch: Path, sample: list[Any] | None = None
) -> Callable[[list[Any]], list[Any]]:
    import tensorflow as tf
    from ai_edge_litert.interpreter import Interpreter

    from modelpack.adapters import tflite_guards
    from modelpack.lowering.context import Target

    names, results = _lowered(model, Target.TFLITE, scratch / "saved", sample)
    tflite_guards.guard(scratch / "saved" / "saved_model.pb")
    converter = tf.lite.TFLiteConverter.from_saved_model(str(scratch / "saved"))
    converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS]
    interpreter = Interpreter(model_content=converter.convert(), num_threads=1)
    signature = interpreter.get_signature_runner("serving_default")
    kept = set(signature.get_input_details())

    def run(inputs: list[Any]) -> list[Any]:
        feed = {
            name: np.array(array, order="C")  # keeps scalars scalars
            for name, array in zip(names, flattened(inputs), strict=True)
            if name in kept  # the converter drops inputs that nothing reads
        }
        answer = signature(**feed)
        return [answer[name] for name in results]

    return run


RUNNERS = {"savedmodel": _savedmodel, "tflite": _tflite}


# --- many cases, in processes that may die -------------------------------------------------


def outcome(name: str, kind: str, target: str) -> Outcome:
    """Run one case and say how it went."""
    from modelpack.errors import UnsupportedOpsError

    try:
        with _silent():
            check(cases(kind)[name], target)
    except MismatchError as error:
        return Outcome(name, "wrong", str(error))
    except UnsupportedOpsError as error:
        return Outcome(name, "refused", error.message.replace("\n", " "))
    except Exception as error:
        lines = [line.strip() for line in str(error).splitlines() if line.strip()]
        first = next((line for line in lines if "error:" in line), lines[0] if lines else "")
        return Outcome(name, "failed", f"{type(error).__name__}: {first}")
    return Outcome(name, "passed")


@contextlib.contextmanager
def _silent() -> Iterator[None]:
    """Keep the chatter of the converter's C++ side from the terminal."""
    with Path(os.devnull).open("w") as nowhere:
        kept = os.dup(2)
        os.dup2(nowhere.fileno(), 2)
        try:
            yield
        finally:
            os.dup2(kept, 2)
            os.close(kept)


def _serve(pipe: Any, kind: str, target: str) -> None:
    os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"
    while True:
        name = pipe.recv()
        if name is None:
            return
        pipe.send(outcome(name, kind, target))


def run_all(names: list[str], kind: str, target: str, seconds: float = 120.0) -> Iterator[Outcome]:
    """Run cases one after the other in a process that is replaced when it dies or hangs."""
    spawn = multiprocessing.get_context("spawn")
    process, pipe = None, None
    for name in names:
        if process is None:
            pipe, other = spawn.Pipe()
            process = spawn.Process(target=_serve, args=(other, kind, target), daemon=True)
            process.start()
            other.close()
            started = 60.0
        pipe.send(name)
        try:
            if not pipe.poll(seconds + started):
                raise EOFError("no answer in time")
            yield pipe.recv()
            started = 0.0
        except (EOFError, ConnectionResetError) as error:
            process.kill()
            process.join()
            process = None
            yield Outcome(name, "crashed", str(error) or "the process died")
    if process is not None:
        pipe.send(None)
        process.join(10)
        process.kill()


def main() -> int:
    """Run the cases that match and print those that did not pass."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("target", choices=TARGETS)
    parser.add_argument("pattern", nargs="?", default="")
    parser.add_argument("--kind", choices=KINDS, default="node")
    parser.add_argument("--verbose", action="store_true", help="the traceback of each failure")
    given = parser.parse_args()
    names = [name for name in cases(given.kind) if re.search(given.pattern, name)]
    if given.verbose:
        for name in names:
            print("---", name, flush=True)
            check(cases(given.kind)[name], given.target)
        return 0
    counts: Counter[str] = Counter()
    for result in run_all(names, given.kind, given.target):
        counts[result.status] += 1
        if result.status != "passed":
            print(f"{result.status:8} {result.name}: {result.detail[:300]}", flush=True)
    print(dict(counts), "of", len(names))
    return 0 if set(counts) <= {"passed"} else 1


if __name__ == "__main__":
    sys.exit(main())
