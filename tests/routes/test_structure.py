"""Checks of structure, runtimes by name, and what is compared with what."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

import modelpack as mp
from modelpack.dependencies import installed
from modelpack.parity import Verdict

Change = Callable[[onnx.ModelProto], None]

HELPER, FLOAT = onnx.helper, onnx.TensorProto.FLOAT


def network(batch: str | int = "batch") -> onnx.ModelProto:
    """Two layers without biases; the hidden values are called h."""
    rng = np.random.default_rng(0)
    weights = [
        onnx.numpy_helper.from_array(rng.standard_normal(shape).astype(np.float32), name)
        for name, shape in (("v", (4, 8)), ("w", (8, 3)))
    ]
    nodes = [
        HELPER.make_node("MatMul", ["x", "v"], ["z"], name="first"),
        HELPER.make_node("Tanh", ["z"], ["h"], name="tanh"),
        HELPER.make_node("MatMul", ["h", "w"], ["y"], name="second"),
    ]
    graph = HELPER.make_graph(
        nodes,
        "g",
        [HELPER.make_tensor_value_info("x", FLOAT, [batch, 4])],
        [HELPER.make_tensor_value_info("y", FLOAT, [batch, 3])],
        weights,
    )
    opsets = [HELPER.make_opsetid("", 17), HELPER.make_opsetid("com.microsoft", 1)]
    return HELPER.make_model(graph, opset_imports=opsets, ir_version=8)


@pytest.fixture
def model(tmp_path: Path) -> Path:
    onnx.save(network(), tmp_path / "m.onnx")
    return tmp_path / "m.onnx"


def structure(result: Any) -> dict[str, bool]:
    return {item.name: item.ok for item in result.structure}


# --- structure -----------------------------------------------------------------------------


def test_a_sound_file_holds_every_check(model: Path) -> None:
    result = mp.validate(model).artifacts[0]
    names = ("signature", "checker", "shapes", "ops", "determinism", "concurrency")
    assert structure(result) == dict.fromkeys(names, True)
    assert result.verdict is Verdict.UNVERIFIED


def _unknown_op(proto: onnx.ModelProto) -> None:
    proto.graph.node[1].op_type, proto.graph.node[1].domain = "Tanhh", "com.microsoft"


def _unknown_attribute(proto: onnx.ModelProto) -> None:
    proto.graph.node[1].attribute.append(HELPER.make_attribute("slope", 2.0))


def _wrong_shape(proto: onnx.ModelProto) -> None:
    proto.graph.value_info.append(HELPER.make_tensor_value_info("h", FLOAT, ["batch", 7]))


def _newer_opset(proto: onnx.ModelProto) -> None:
    proto.opset_import[0].version = onnx.defs.onnx_opset_version() + 3


def _random(proto: onnx.ModelProto) -> None:
    node = HELPER.make_node("RandomUniformLike", ["z"], ["h"], name="random", dtype=FLOAT)
    proto.graph.node[1].CopyFrom(node)


@pytest.mark.parametrize(
    ("change", "check", "says"),
    [
        (_unknown_op, "ops", "Tanhh"),
        (_unknown_attribute, "checker", "slope"),
        (_wrong_shape, "shapes", "shape"),
        (_newer_opset, "ops", "opset"),
        (_random, "determinism", "times the noise floor"),
    ],
    ids=["unknown op", "unknown attribute", "wrong shape", "newer opset", "random"],
)
def test_a_file_that_breaks_a_rule_fails(
    tmp_path: Path, change: Change, check: str, says: str
) -> None:
    proto = network()
    change(proto)
    onnx.save(proto, tmp_path / "broken.onnx")
    result = mp.validate(tmp_path / "broken.onnx").artifacts[0]
    assert result.verdict is Verdict.FAILED
    assert not structure(result)[check]
    assert any(reason.startswith(f"{check}: ") and says in reason for reason in result.reasons)


def test_the_numbers_of_a_broken_file_are_not_compared(model: Path, modelpack) -> None:
    proto = network()
    _wrong_shape(proto)
    onnx.save(proto, model.with_name("broken.onnx"))
    outcome = modelpack("validate", "broken.onnx", "--reference", model)
    assert outcome.code == 7, outcome.stderr
    assert "failed: broken.onnx: shapes: " in outcome.stderr


def tflite(path: Path, custom: bytes = b"") -> Path:
    """A file of one op: a tanh, or one that nobody knows."""
    from ai_edge_litert import schema_py_generated as schema
    from ai_edge_litert.tools import flatbuffer_utils

    code = schema.OperatorCodeT()
    builtin = schema.BuiltinOperator.CUSTOM if custom else schema.BuiltinOperator.TANH
    code.builtinCode, code.version = builtin, 1
    code.deprecatedBuiltinCode, code.customCode = builtin, custom or None
    op = schema.OperatorT()
    op.inputs, op.outputs = [0], [1]
    graph = schema.SubGraphT()
    for name in (b"x", b"y"):
        tensor = schema.TensorT()
        tensor.name, tensor.shape, tensor.hasRank = name, [2, 4], True
        graph.tensors = [*(graph.tensors or ()), tensor]
    graph.inputs, graph.outputs, graph.operators = [0], [1], [op]
    model = schema.ModelT()
    model.version, model.operatorCodes, model.subgraphs = 3, [code], [graph]
    model.buffers = [schema.BufferT()]
    flatbuffer_utils.write_model(model, str(path))
    return path


def test_a_tflite_file_without_a_kernel_for_an_op_fails(tmp_path: Path) -> None:
    sound = mp.validate(tflite(tmp_path / "m.tflite")).artifacts[0]
    names = ("signature", "checker", "ops", "determinism", "concurrency")
    assert structure(sound) == dict.fromkeys(names, True)
    result = mp.validate(tflite(tmp_path / "broken.tflite", b"Mystery")).artifacts[0]
    assert result.verdict is Verdict.FAILED
    assert structure(result) == {"signature": True, "checker": True, "ops": False}
    assert "Mystery" in result.reasons[0]


def test_litert_runs_with_and_without_its_delegate(tmp_path: Path) -> None:
    model = tflite(tmp_path / "m.tflite")
    found = mp.validate(model, reference=model, runtime="plain", reference_runtime="litert")
    assert runtime_of(found).endswith("without XNNPACK")


# --- runtimes --------------------------------------------------------------------------------


def runtime_of(report: Any) -> str:
    assert report.verdict is Verdict.PASSED, report.artifacts[0].reasons
    return report.artifacts[0].parity.runtime


def test_two_runtimes_run_one_file(model: Path) -> None:
    found = mp.validate(model, reference=model, reference_runtime="plain")
    assert runtime_of(found).startswith("onnxruntime ")
    assert "in plain" in found.artifacts[0].parity.reference
    found = mp.validate(model, reference=model, runtime="plain")
    assert runtime_of(found).endswith("without optimizations")
    found = mp.validate(model, reference=model, runtime="reference")
    assert "reference evaluator" in runtime_of(found)


def test_a_runtime_is_compared_with_golden_samples(model: Path, tmp_path: Path) -> None:
    mp.convert(model, tmp_path / "out", to="onnx")
    found = mp.validate(tmp_path / "out", runtime="reference")
    assert "reference evaluator" in runtime_of(found)
    assert found.artifacts[0].parity.reference == "golden samples"


def test_a_kernel_that_is_wrong_in_one_runtime_is_found(model: Path, monkeypatch) -> None:
    """The reference evaluator is given a tanh of its own."""
    from onnx.reference.ops.op_tanh import Tanh

    from fixtures.inline import InlinePool
    from modelpack import subjects
    from modelpack.judging import evidence as sought
    from modelpack.judging import trials
    from modelpack.judging.compare import judgement_for
    from modelpack.sources import Request

    pool = InlinePool(model.parent)
    one = subjects.reference(pool, Request(str(model)))
    other = subjects.reference(pool, Request(str(model), runtime="reference"))
    evidence = sought.generated(pool, one, 0)
    assert trials.tried(pool, other, evidence, judgement_for("float32"))
    monkeypatch.setattr(Tanh, "_run", lambda self, x: (np.tanh(x) * np.float32(1.001),))
    report = trials.tried(pool, other, evidence, judgement_for("float32"))
    assert report.verdict is Verdict.FAILED


@pytest.mark.parametrize(
    ("words", "code", "says"),
    [
        (["--runtime", "fast"], 2, "use one of onnxruntime, plain, reference, openvino"),
        (["--reference", "m.onnx", "--reference-runtime", "fast"], 2, "use one of onnxruntime"),
        (["--reference-runtime", "plain"], 2, "add --reference"),
        (["--reference", "m.onnx", "--runtime", "openvino"], 4, "pip install openvino"),
    ],
)
def test_runtimes_that_cannot_be_had_are_refused(
    model: Path, modelpack, words: list[str], code: int, says: str
) -> None:
    if code == 4 and installed("openvino"):
        pytest.skip("OpenVINO is installed")
    outcome = modelpack("validate", model, *words)
    assert outcome.code == code, outcome.stderr
    assert says in outcome.stderr


def test_openvino_computes_in_float32(model: Path) -> None:
    pytest.importorskip("openvino")
    assert runtime_of(mp.validate(model, reference=model, runtime="openvino")) > "openvino"


# --- what is compared with what --------------------------------------------------------------


def test_a_package_as_reference_is_its_float_artifact_nearest_to_the_source(
    model: Path, tmp_path: Path
) -> None:
    mp.convert(model, tmp_path / "out", to="onnx")
    mp.quantize(tmp_path / "out", tmp_path / "out", scheme="dynamic-int8")
    mp.package(tmp_path / "out", tmp_path / "out.tar", layout="archive")
    for reference in ("out", "out.tar"):
        found = mp.validate(model, reference=tmp_path / reference)
        assert runtime_of(found).startswith("onnxruntime")
        assert found.artifacts[0].parity.reference == "model.onnx on generated samples"


def test_a_reference_of_a_fixed_batch_is_fed_that_batch(model: Path, tmp_path: Path) -> None:
    onnx.save(network(2), tmp_path / "two.onnx")
    for one, other in ((model, "two.onnx"), (tmp_path / "two.onnx", "m.onnx")):
        found = mp.validate(one, reference=tmp_path / other)
        assert found, found.artifacts[0].reasons


def test_two_files_of_other_names_are_fed_at_the_edges_too(model: Path, tmp_path: Path) -> None:
    mp.convert(model, tmp_path / "other.onnx", inputs=["a:float32[batch,4]"], outputs=["b"])
    found = mp.validate(tmp_path / "other.onnx", reference=model)
    assert found, found.artifacts[0].reasons
    assert found.artifacts[0].parity.cases > 5
