"""Models in float16 and bfloat16: right, or refused by name with what to do."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
import torch
from torch import Tensor, nn

import modelpack
from modelpack.adapters.torch import describe, to_onnx
from modelpack.artifact import Encoding, ModelRef, digest_file
from modelpack.errors import UnsupportedOpsError
from modelpack.manifest import dump
from modelpack.parity import Verdict
from modelpack.signature import TensorSpec
from modelpack.steps import StepOptions

# Of float16: half a unit in the last place, over the few layers of the network.
ROUNDING = 2.0**-11 * 4

NETS = """
import torch
from torch import nn


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv, self.norm = nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8)
        self.into, self.last = nn.Linear(8, 16), nn.Linear(16, 5)

    def forward(self, x):
        y = torch.relu(self.norm(self.conv(x))).mean((2, 3))
        return self.last(nn.functional.gelu(self.into(y)))


class Branches(nn.Linear):
    def forward(self, x):
        one, other = super().forward, torch.neg
        return torch.cond(x.sum() > 0, one, other, (x,))


class Stored(nn.Linear):
    def forward(self, x):
        return x @ self.weight.float().T


class Slopes(nn.Module):
    def forward(self, x, bias):
        slopes = torch.linspace(0.1, 0.9, 7).bfloat16()
        return x + (slopes * bias.bfloat16() - 0.3).to(x.dtype)


def seeded(kind, dtype, *sizes):
    torch.manual_seed(0)
    return kind(*sizes).eval().to(dtype)


def half():
    return seeded(Net, torch.float16)


def brain():
    return seeded(Net, torch.bfloat16)


def branches():
    return seeded(Branches, torch.bfloat16, 4, 4)


def stored():
    return seeded(Stored, torch.bfloat16, 4, 4)
"""


class Half(nn.Module):
    """Takes and gives float32, computes in float16."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.layers = nn.Sequential(nn.Linear(6, 16), nn.LayerNorm(16), nn.Linear(16, 4)).half()

    def forward(self, x: Tensor) -> Tensor:
        return self.layers(x.half()).float()


@pytest.fixture
def nets(tmp_path: Path) -> Path:
    file = tmp_path / "nets.py"
    file.write_text(NETS)
    return file


def exported(nets: Path, name: str, spec: str) -> Path:
    """Export a factory's model to ONNX, unchecked."""
    ref = ModelRef("torch", Encoding.PYTHON, f"{nets}:{name}", inputs=(TensorSpec.parse(spec),))
    target = nets.with_name("model.onnx")
    to_onnx(replace(ref, signature=describe(ref).signature), str(target), StepOptions())
    return target


def test_a_float16_network_stays_one(nets: Path) -> None:
    target = exported(nets, "half", "x:float16[batch,3,8,8]")
    source: dict[str, Any] = {}
    exec(NETS, source)
    x = np.random.default_rng(0).standard_normal((5, 3, 8, 8)).astype(np.float16)
    [made] = onnxruntime.InferenceSession(target).run(None, {"x": x})
    want = source["half"]()(torch.from_numpy(x)).detach().numpy()
    assert made.dtype == np.float16
    np.testing.assert_allclose(made, want, rtol=ROUNDING, atol=ROUNDING * np.abs(want).max())


@pytest.mark.slow
def test_an_exported_float16_program_reaches_all_formats(tmp_path: Path) -> None:
    dims = ({0: torch.export.Dim("batch")},)
    program = torch.export.export(Half().eval(), (torch.randn(3, 6),), dynamic_shapes=dims)
    torch.export.save(program, tmp_path / "half.pt2")
    manifest = modelpack.convert(
        tmp_path / "half.pt2", tmp_path / "out", to=["onnx", "savedmodel", "tflite"]
    )
    assert [item.parity.verdict for item in manifest.artifacts] == [Verdict.PASSED] * 3
    file = tmp_path / "out" / "golden.npz"
    for factor, verdict in ((1.0, Verdict.PASSED), (1.05, Verdict.FAILED)):
        arrays = dict(np.load(file))
        changed = {
            name: array * np.float32(factor) if "outputs/" in name else array
            for name, array in arrays.items()
        }
        np.savez(file, **changed)
        own = replace(manifest, golden=replace(manifest.golden, digest=digest_file(file)))
        (tmp_path / "out" / "modelpack.yaml").write_text(dump(own))
        found = modelpack.validate(tmp_path / "out").artifacts
        assert [item.verdict for item in found if item.path != "saved_model"] == [verdict] * 2


@pytest.mark.parametrize(
    ("name", "spec", "op"),
    [
        ("brain", "x:bfloat16[batch,3,8,8]", "Conv, "),
        ("branches", "x:bfloat16[batch,4]", "Gemm, Neg"),
    ],
)
def test_arithmetic_in_bfloat16_is_refused(nets: Path, name: str, spec: str, op: str) -> None:
    with pytest.raises(UnsupportedOpsError, match=op) as refused:
        exported(nets, name, spec)
    assert "--weights" in refused.value.hint


def test_a_little_bfloat16_in_a_float32_network_is_rounded_as_pytorch_does(nets: Path) -> None:
    file = nets.with_name("slopes.onnx")
    ref = ModelRef(
        "torch",
        Encoding.PYTHON,
        f"{nets}:Slopes",
        inputs=(TensorSpec.parse("x:float32[batch,7]"), TensorSpec.parse("bias:float32[batch,7]")),
    )
    to_onnx(replace(ref, signature=describe(ref).signature), str(file), StepOptions())
    source: dict[str, Any] = {}
    exec(NETS, source)
    bias = np.random.default_rng(0).standard_normal((50, 7)).astype(np.float32) * 100
    x = np.zeros_like(bias)

    [made] = onnxruntime.InferenceSession(file).run(None, {"x": x, "bias": bias})

    want = source["Slopes"]()(torch.from_numpy(x), torch.from_numpy(bias)).numpy()
    np.testing.assert_array_equal(made, want)
    exact = np.linspace(0.1, 0.9, 7) * bias - 0.3
    assert np.abs(want - exact).max() > 0.1  # its rounding shows


@pytest.mark.slow
def test_weights_may_be_kept_in_bfloat16(nets: Path) -> None:
    target = exported(nets, "stored", "x:float32[batch,4]")
    [made] = onnxruntime.InferenceSession(target).run(None, {"x": np.ones((2, 4), np.float32)})
    torch.manual_seed(0)
    want = torch.ones(2, 4) @ nn.Linear(4, 4).weight.bfloat16().float().T
    np.testing.assert_allclose(made, want.detach().numpy(), rtol=1e-6, atol=1e-6)


def test_bfloat16_weights_of_a_float32_factory_are_converted(nets: Path) -> None:
    from safetensors.torch import save_file

    torch.manual_seed(1)
    weight = torch.randn(4, 4).bfloat16()
    plain = nets.with_name("plain.py")
    plain.write_text("from torch import nn\n\n\ndef build():\n    return nn.Linear(4, 4)\n")
    save_file(
        {"weight": weight, "bias": torch.zeros(4).bfloat16()}, nets.with_name("w.safetensors")
    )
    modelpack.convert(
        f"{plain}:build",
        nets.with_name("m.onnx"),
        weights=nets.with_name("w.safetensors"),
        inputs=["x:float32[batch,4]"],
    )
    session = onnxruntime.InferenceSession(nets.with_name("m.onnx"))
    [made] = session.run(None, {"x": np.eye(4, dtype=np.float32)})
    np.testing.assert_allclose(made, weight.float().T.numpy(), rtol=1e-6, atol=1e-6)
