"""Writes the piece of a model that departs from its reference as something to run and send on.

A reproduction is a directory of four files that need modelpack no more:

- ``model.onnx``, ``model.tflite`` or ``model.pb`` (a TensorFlow ``GraphDef``): the piece.
- ``inputs.npz``: its inputs, in order, as members ``0``, ``1``, ...
- ``expected.npz``: what the reference has for its output, as member ``0``.
- ``reproduce.py``: runs it and exits with 1 while it departs, with 0 once it does not.
"""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from modelpack.artifact import ModelRef
from modelpack.bisection.traces import Probe
from modelpack.errors import InputError
from modelpack.output import locked, publish
from modelpack.samples import Array, Case, write_cases
from modelpack.sources import adapter_of, worker_key
from modelpack.worker import WorkerPool


@dataclass(frozen=True, slots=True)
class Reproduction:
    """What a reproduction is made from.

    Attributes:
        ref: the artifact that the piece is cut from.
        probe: the tensor that departs.
        inputs: values of the tensors it is computed from, by name.
        expected: the reference's value of it.
        limit: error from which on it departs, as `modelpack.bisection.pairing.error_of` says.
    """

    ref: ModelRef
    probe: Probe
    inputs: Case
    expected: Array
    limit: float


def write(pool: WorkerPool, piece: Reproduction, target: Path) -> tuple[str, ...]:
    """Write the reproduction into the directory ``target``.

    Returns:
        the names of the files in it.

    Raises:
        InputError: pieces cannot be cut from models of this format, or the target cannot
            be written.
    """
    ref = piece.ref
    if ref.format not in _RUNTIMES:
        raise InputError(f"no piece can be cut from a {ref.format} model")
    runtime = _RUNTIMES[ref.format]
    folder = Path(tempfile.mkdtemp(dir=pool.scratch))
    given = folder / "given.npz"
    write_cases(given, [piece.inputs])
    form = adapter_of(ref)
    pool.call(
        worker_key(form),
        f"{form.adapter}_trace:cut",
        type(None),
        ref.exchanged,
        str(given),
        piece.probe.name,
        str(folder / runtime.file),
        failure=InputError,
    )
    _write_arrays(folder / "inputs.npz", list(piece.inputs.values()))
    _write_arrays(folder / "expected.npz", [piece.expected])
    (folder / "reproduce.py").write_text(_script(piece, runtime), encoding="utf-8")
    names = (runtime.file, "inputs.npz", "expected.npz", "reproduce.py")
    root = target.absolute()
    with locked(root):
        publish(root, {name: folder / name for name in names})
    return names


def _write_arrays(path: Path, arrays: Sequence[Array]) -> None:
    texts = [array.astype(np.str_) if array.dtype.kind == "O" else array for array in arrays]
    with path.open("wb") as stream:
        np.savez(stream, **{str(index): array for index, array in enumerate(texts)})  # type: ignore[arg-type]


@dataclass(frozen=True, slots=True)
class _Runtime:
    """How a script runs a piece.

    Attributes:
        file: name of the piece.
        needs: what to install.
        imports: lines of code.
        body: lines of a function of the list ``inputs`` that returns the output.
    """

    file: str
    needs: str
    imports: str
    body: str


_RUNTIMES = {
    "onnx": _Runtime(
        "model.onnx",
        "numpy onnxruntime",
        "import onnxruntime",
        """\
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession(
        HERE / "model.onnx", options, providers=["CPUExecutionProvider"]
    )
    names = [item.name for item in session.get_inputs()]
    return session.run(None, dict(zip(names, inputs, strict=True)))[0]
""",
    ),
    "tflite": _Runtime(
        "model.tflite",
        "numpy ai-edge-litert",
        "from ai_edge_litert.interpreter import Interpreter, OpResolverType",
        """\
    interpreter = Interpreter(
        model_path=str(HERE / "model.tflite"),
        experimental_op_resolver_type=OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES,
    )
    for detail, array in zip(interpreter.get_input_details(), inputs, strict=True):
        interpreter.resize_tensor_input(detail["index"], array.shape)
    interpreter.allocate_tensors()
    for detail, array in zip(interpreter.get_input_details(), inputs, strict=True):
        scale, zero = detail["quantization"]
        if scale and array.dtype.kind == "f":
            limits = np.iinfo(detail["dtype"])
            array = np.clip(np.round(array / scale) + zero, limits.min, limits.max)
        interpreter.set_tensor(detail["index"], array.astype(detail["dtype"]))
    interpreter.invoke()
    detail = interpreter.get_output_details()[0]
    output = interpreter.get_tensor(detail["index"])
    scale, zero = detail["quantization"]
    return (output.astype(np.float64) - zero) * scale if scale else output
""",
    ),
    "savedmodel": _Runtime(
        "model.pb",
        "numpy tensorflow",
        "import tensorflow as tf",
        """\
    definition = tf.compat.v1.GraphDef.FromString((HERE / "model.pb").read_bytes())
    graph = tf.Graph()
    with graph.as_default():
        tf.import_graph_def(definition, name="")
    feed = {f"given_{number}:0": array for number, array in enumerate(inputs)}
    with tf.compat.v1.Session(graph=graph) as session:
        return session.run("wanted:0", feed)
""",
    ),
}

_SCRIPT = '''\
"""Runs a piece of {artifact} and compares it with what the reference computes.

It computes the tensor {tensor!r} ({op}) from
{inputs}
Exits with 1 while the two differ, with 0 once they do not. Needs: {needs}.
"""

import sys
from pathlib import Path

import numpy as np
{imports}

HERE = Path(__file__).resolve().parent

# The largest error that rounding explains: the root mean square of the difference, over that
# of the expected values.
LIMIT = {limit:.3g}


def run(inputs):
{body}

def load(name):
    with np.load(HERE / name) as archive:
        return [archive[str(index)] for index in range(len(archive.files))]


def main():
    expected = load("expected.npz")[0].astype(np.float64)
    output = np.asarray(run(load("inputs.npz")), np.float64)
    if output.size != expected.size:
        print(f"shape {{output.shape}} instead of {{expected.shape}}")
        return 1
    output = output.reshape(expected.shape)  # axes of size 1 may come and go
    same = (output == expected) | (np.isnan(output) & np.isnan(expected))
    difference = np.where(same, 0.0, output - expected)
    size = np.sqrt(np.mean(np.square(expected[np.isfinite(expected)])))
    error = np.sqrt(np.mean(np.square(difference))) / size if difference.any() else 0.0
    worst = np.unravel_index(np.abs(difference).argmax(), difference.shape)
    place = ", ".join(map(str, worst))
    print(f"error {{error:.3g}} (limit {{LIMIT:.3g}})")
    print(f"most at [{{place}}]: {{output[worst]:.9g}} instead of {{expected[worst]:.9g}}")
    return 0 if error <= LIMIT else 1


if __name__ == "__main__":
    sys.exit(main())
'''


def _script(piece: Reproduction, runtime: _Runtime) -> str:
    """The text of ``reproduce.py``."""
    inputs = "\n".join(
        f"    {number}: {name!r} {list(array.shape)}"
        for number, (name, array) in enumerate(piece.inputs.items())
    )
    return _SCRIPT.format(
        artifact=piece.ref.path.name,
        tensor=piece.probe.name,
        op=f"{piece.probe.op} {piece.probe.node}".strip(),
        inputs=inputs or "    nothing but constants",
        needs=runtime.needs,
        imports=runtime.imports,
        limit=piece.limit,
        body=runtime.body,
    )
