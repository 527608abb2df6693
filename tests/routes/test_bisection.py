"""Where an artifact went wrong: planted faults are found, and reproduced without modelpack."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from fixtures.inline import InlinePool
from modelpack.bisection.search import Failure, bisect
from modelpack.judging.compare import judgement_for
from modelpack.judging.evidence import evidence_of
from modelpack.judging.trials import tried
from modelpack.parity import Verdict
from modelpack.samples import generate
from modelpack.sources import Request, locate, open_model
from modelpack.subjects import in_terms_of
from modelpack.validation import Departure
from tests.conftest import CommandLine

FILES = {
    "torch_cnn": "torch_cnn.pt2",
    "keras_cnn": "keras_cnn.keras",
    "sklearn_mlp": "sklearn_mlp.skops",
}

Fault = Callable[[onnx.NodeProto, onnx.GraphProto], None]


class _Kept:
    """Keeps what a comparison was given."""

    def __call__(self, evidence: Any, outputs: Any, judgement: Any) -> None:
        self.found = (evidence, outputs, judgement)


def departure(
    scratch: Path, reference: Path, candidate: Path, out: Path, scheme: str = ""
) -> Departure | None:
    """What bisection finds; None if the candidate does not fail at all."""
    scratch.mkdir()
    pool = InlinePool(scratch)
    own = open_model(pool, locate(Request(str(candidate))))
    assert own.ref.signature is not None
    source = in_terms_of(open_model(pool, locate(Request(str(reference)))), own.ref.signature)
    evidence = evidence_of(pool, source, generate(source.description, seed=0), "generated")
    kept = _Kept()
    judgement = judgement_for(own.description.precision, scheme)
    report = tried(pool, own, evidence, judgement, witness=kept)
    if report.verdict is not Verdict.FAILED:
        return None
    found = bisect(pool, source, Failure(own, *kept.found), out)
    assert found is not None, "it failed, but nothing departs"
    return found


def reproduced(directory: Path) -> int:
    """The exit code of the script, run where it does not know the way back."""
    moved = directory.with_name(f"{directory.name}-elsewhere")
    shutil.copytree(directory, moved, dirs_exist_ok=True)
    done = subprocess.run(
        [sys.executable, "reproduce.py"], cwd=moved, capture_output=True, text=True, timeout=120
    )
    assert "error" in done.stdout, done.stderr
    return done.returncode


# --- ONNX ----------------------------------------------------------------------------


def scaled(node: onnx.NodeProto, graph: onnx.GraphProto) -> None:
    """All weights of a node 10 % larger."""
    tensor = next(item for item in graph.initializer if item.name in node.input)
    array = (numpy_helper.to_array(tensor) * 1.1).astype(np.float32)
    tensor.CopyFrom(numpy_helper.from_array(array, tensor.name))


def one_weight(node: onnx.NodeProto, graph: onnx.GraphProto) -> None:
    """One weight of a node wrong."""
    tensor = next(item for item in graph.initializer if item.name in node.input)
    array = numpy_helper.to_array(tensor).copy()
    array.flat[7] += np.abs(array).max()
    tensor.CopyFrom(numpy_helper.from_array(array, tensor.name))


def leaking(node: onnx.NodeProto, graph: onnx.GraphProto) -> None:
    """Another activation."""
    node.op_type = "LeakyRelu"


def turned(node: onnx.NodeProto, graph: onnx.GraphProto) -> None:
    """The last two axes exchanged once more."""
    axes = next(item for item in node.attribute if item.name == "perm").ints
    axes[-1], axes[-2] = axes[-2], axes[-1]


def planted(sound: Path, target: Path, op: str, number: int, fault: Fault) -> str:
    """Write a copy with a fault in one of its nodes; return the node's name."""
    model = onnx.load(sound)
    node = [item for item in model.graph.node if item.op_type == op][number]
    fault(node, model.graph)
    onnx.save(model, target)
    return node.name


def repair(piece: Path, sound: Path) -> None:
    """Give a piece the nodes and weights of the sound file."""
    model, right = onnx.load(piece), onnx.load(sound)
    nodes = {node.name: node for node in right.graph.node}
    weights = {item.name: item for item in right.graph.initializer}
    for node in model.graph.node:
        node.CopyFrom(nodes[node.name])
    for item in model.graph.initializer:
        item.CopyFrom(weights[item.name])
    onnx.save(model, piece)


@pytest.mark.parametrize(
    ("name", "op", "number", "fault"),
    [
        ("torch_cnn", "Conv", 1, scaled),
        ("torch_cnn", "Gemm", 0, one_weight),
        ("keras_cnn", "Conv", 1, one_weight),
        ("keras_cnn", "Transpose", 0, turned),
        ("keras_cnn", "Relu", 2, leaking),
        ("sklearn_mlp", "MatMul", 1, scaled),
        ("sklearn_mlp", "Relu", 0, leaking),
    ],
)
def test_the_node_at_fault_is_found_and_reproduced(
    converted: dict[str, Path],
    models: Path,
    tmp_path: Path,
    name: str,
    op: str,
    number: int,
    fault: Fault,
) -> None:
    sound, wrong, out = converted[name] / "model.onnx", tmp_path / "wrong.onnx", tmp_path / "out"
    node = planted(sound, wrong, op, number, fault)
    found = departure(tmp_path / "scratch", models / FILES[name], wrong, out)
    assert found is not None
    assert (found.node, len(found.ops), found.confirmed) == (node, 1, True)
    assert found.error is None or found.error > 10 * found.error_before
    assert reproduced(out) == 1
    repair(out / "model.onnx", sound)
    assert reproduced(out) == 0


def test_a_fault_without_counterpart_is_among_the_ops_named(
    converted: dict[str, Path], models: Path, tmp_path: Path
) -> None:
    """Keras has no tensor between a product and its bias: the fault may be in either."""
    sound, wrong, out = converted["keras_cnn"] / "model.onnx", tmp_path / "w.onnx", tmp_path / "out"
    node = planted(sound, wrong, "MatMul", 0, scaled)
    found = departure(tmp_path / "scratch", models / "keras_cnn.keras", wrong, out)
    assert found is not None
    assert found.confirmed
    assert found.op == "Add"
    assert found.ops[0].split()[-1] == node
    assert len(found.ops) == 2
    assert found.reference == "dense/before activation"
    assert reproduced(out) == 1
    repair(out / "model.onnx", sound)
    assert reproduced(out) == 0


def test_a_reproduction_has_the_same_bytes_each_time(
    converted: dict[str, Path], tmp_path: Path
) -> None:
    sound, wrong = converted["torch_cnn"] / "model.onnx", tmp_path / "wrong.onnx"
    planted(sound, wrong, "Conv", 0, one_weight)
    written = []
    for run in ("one", "two"):
        departure(tmp_path / f"scratch-{run}", sound, wrong, tmp_path / run)
        files = sorted((tmp_path / run).iterdir())
        written.append({file.name: file.read_bytes() for file in files})
    assert written[0] == written[1]
    assert written[0].keys() == {"model.onnx", "inputs.npz", "expected.npz", "reproduce.py"}
    assert str(tmp_path).encode() not in b"".join(written[0].values())


# --- TFLite and SavedModel -----------------------------------------------------------


def wrong_tflite(sound: Path, target: Path, op: int) -> str:
    """Write a copy with the weights of one op 10 % larger; return the name of its result."""
    from ai_edge_litert.tools import flatbuffer_utils

    model = flatbuffer_utils.read_model(str(sound))
    graph = model.subgraphs[0]
    chosen = graph.operators[op]
    buffer = model.buffers[graph.tensors[chosen.inputs[1]].buffer]
    weights = np.frombuffer(bytes(buffer.data), np.float32) * np.float32(1.1)
    buffer.data = np.frombuffer(weights.tobytes(), np.uint8)
    flatbuffer_utils.write_model(model, str(target))
    return str(graph.tensors[chosen.outputs[0]].name.decode())


@pytest.mark.parametrize(
    ("name", "reference"),
    [("keras_cnn", "keras_cnn.keras"), ("torch_cnn", "model.onnx")],
    ids=["from-keras", "from-onnx"],
)
def test_the_tflite_op_at_fault_is_found_and_reproduced(
    converted: dict[str, Path], models: Path, tmp_path: Path, name: str, reference: str
) -> None:
    sound, wrong = converted[name] / "model.tflite", tmp_path / "wrong.tflite"
    source = converted[name] / reference
    tensor = wrong_tflite(sound, wrong, 2 if name == "keras_cnn" else 3)
    found = departure(
        tmp_path / "scratch",
        source if source.exists() else models / reference,
        wrong,
        tmp_path / "out",
    )
    assert found is not None
    assert (found.tensor, found.ops, found.confirmed) == (tensor, ("CONV_2D",), True)
    assert reproduced(tmp_path / "out") == 1
    piece = (tmp_path / "out" / "model.tflite").stat().st_size
    assert piece < sound.stat().st_size / 2
    # The piece of the sound file, in its place.
    pool = InlinePool(tmp_path / "scratch")
    from modelpack.adapters import tflite_trace

    ref = open_model(pool, locate(Request(str(sound)))).ref
    given = tmp_path / "scratch" / "given.npz"
    with np.load(tmp_path / "out" / "inputs.npz") as inputs:
        np.savez(given, **{f"0/{found.inputs[0]}": inputs["0"]})
    tflite_trace.cut(ref, str(given), tensor, str(tmp_path / "out" / "model.tflite"))
    assert reproduced(tmp_path / "out") == 0


# --- no fault ------------------------------------------------------------------------


@pytest.mark.parametrize("name", FILES)
def test_pieces_of_sound_models_agree_everywhere(
    converted: dict[str, Path], models: Path, tmp_path: Path, name: str
) -> None:
    """Bisection of a model that is right convicts nothing, even if told that it failed."""
    sound = converted[name] / "model.onnx"
    assert departure(tmp_path / "s", models / FILES[name], sound, tmp_path / "out") is None
    pool = InlinePool(tmp_path / "s")
    own = open_model(pool, locate(Request(str(sound))))
    source = in_terms_of(
        open_model(pool, locate(Request(str(models / FILES[name])))), own.ref.signature
    )
    evidence = evidence_of(pool, source, generate(source.description, seed=0), "generated")
    outputs = [
        {key: array + 1 if array.dtype.kind == "f" else array for key, array in case.items()}
        for case in evidence.outputs
    ]
    failure = Failure(own, evidence, outputs, judgement_for("float32"))
    assert bisect(pool, source, failure, tmp_path / "out") is None
    assert not (tmp_path / "out").exists()


# --- on the command line -------------------------------------------------------------


def test_the_command_names_the_node_and_writes_the_reproduction(
    modelpack: CommandLine, converted: dict[str, Path], tmp_path: Path
) -> None:
    sound = converted["torch_cnn"] / "model.onnx"
    node = planted(sound, tmp_path / "wrong.onnx", "Conv", 1, scaled)
    done = modelpack("validate", "wrong.onnx", "--reference", sound, "--bisect", "why", "--json")
    assert done.code == 7, done.stderr
    found = done.json["artifacts"][0]["departure"]
    assert (found["op"], found["node"], found["directory"]) == ("Conv", node, "why")
    assert sorted(found["files"]) == sorted(file.name for file in (tmp_path / "why").iterdir())


def test_without_a_reference_bisection_is_refused(
    modelpack: CommandLine, converted: dict[str, Path], tmp_path: Path
) -> None:
    shutil.copy(converted["torch_cnn"] / "model.onnx", tmp_path / "bare.onnx")
    done = modelpack("validate", "bare.onnx", "--bisect", "why")
    assert done.code == 2
    assert "--reference" in done.stderr
    assert not (tmp_path / "why").exists()
