"""Files of ONNX models, written piece by piece."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx.parser import parse_model

from modelpack import onnx_graph, wire

TEXT = """
<ir_version: 9, opset_import: ["" : 18, "own" : 1], producer_name: "a tool", model_version: 3>
m (float[n, 300] x, bool flag) => (float[n, 300] y)
<float[300] bias, int64[2] shape = {-1, 300}> {
    h = If (flag) <
        then_branch = t () => (a) { a = Relu(x) },
        else_branch = e () => (b) { b = own.twice(x) }
    >
    g = Add(h, bias)
    y = Reshape(g, shape)
}
<domain: "own", opset_import: ["" : 18]>
twice (u) => (v) { v = Add(u, u) }
"""


@pytest.fixture
def model() -> onnx.ModelProto:
    found = parse_model(TEXT)
    bias = np.random.default_rng(0).standard_normal(300).astype(np.float32)
    del found.graph.initializer[:]
    found.graph.initializer.append(onnx.numpy_helper.from_array(bias, "bias"))
    found.graph.initializer.append(onnx.numpy_helper.from_array(np.int64([-1, 300]), "shape"))
    found.metadata_props.add(key="who", value="na\u00efve")
    return found


def test_the_file_is_what_protobuf_writes(model: onnx.ModelProto, tmp_path: Path) -> None:
    onnx_graph.save(model, tmp_path / "m.onnx")
    expected = model.SerializeToString(deterministic=True)
    assert (tmp_path / "m.onnx").read_bytes() == expected
    assert len(expected) > 300 * 4


@pytest.mark.parametrize("number", [127, 128, 300, 1 << 14, (1 << 31) + 7])
def test_lengths_are_numbers_of_seven_bits_a_byte(number: int) -> None:
    whole = onnx.ModelProto(model_version=number).SerializeToString()
    assert whole[1:] == wire.varint(number)


def test_fields_without_a_name_are_kept(model: onnx.ModelProto, tmp_path: Path) -> None:
    added = bytes([0xC2, 0x3E, 3]) + b"new"  # field 1000, three bytes
    newer = onnx.ModelProto.FromString(model.SerializeToString() + added)
    onnx_graph.save(newer, tmp_path / "m.onnx")
    assert added in (tmp_path / "m.onnx").read_bytes()
    assert onnx.load(tmp_path / "m.onnx").graph == model.graph
