"""Mixtures of experts that let their users choose how they compute, as those of transformers."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch

from modelpack.adapters.torch import describe, to_onnx
from modelpack.adapters.torch_loading import load
from modelpack.adapters.torch_scan import scan
from modelpack.artifact import Encoding, ModelRef
from modelpack.signature import TensorSpec
from modelpack.steps import StepOptions

RTOL, ATOL = 1e-5, 1e-6

NET = """
import torch

if not hasattr(torch.ops.transformers, "grouped_mm_fallback"):

    @torch.library.custom_op("transformers::grouped_mm_fallback", mutates_args=())
    def grouped(x: torch.Tensor, weight: torch.Tensor, expert: torch.Tensor) -> torch.Tensor:
        return torch.stack([row @ weight[int(i)] for row, i in zip(x, expert)])

    @grouped.register_fake
    def _(x, weight, expert):
        return x.new_empty(x.shape[0], weight.shape[2])


class Experts(torch.nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(3)
        self.weight = torch.nn.Parameter(torch.randn(4, 6, 5))
        self.gate = torch.nn.Linear(6, 4)
        self.implementation = "grouped_mm"

    def get_experts_implementation(self):
        return {"": self.implementation}

    def set_experts_implementation(self, wanted):
        self.implementation = wanted[""] if isinstance(wanted, dict) else wanted

    def forward(self, x):
        expert = self.gate(x).argmax(1)
        if self.implementation == "batched_mm":
            return torch.bmm(x[:, None], self.weight[expert])[:, 0]
        return torch.ops.transformers.grouped_mm_fallback(x, self.weight, expert)


class Model(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.inner = torch.nn.Sequential(Experts(), torch.nn.Linear(5, 2))

    def forward(self, x):
        return self.inner(x)


MODEL = Model().eval()
"""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "net.py"
    path.write_text(NET)
    return path


def test_experts_are_exported_in_batches_and_left_as_they_were(file: Path, tmp_path: Path) -> None:
    specs = (TensorSpec.parse("x:float32[batch,6]"),)
    ref = ModelRef("torch", Encoding.PYTHON, f"{file}:MODEL", inputs=specs)
    target = tmp_path / "net.onnx"

    ref = ModelRef(
        "torch", Encoding.PYTHON, ref.location, inputs=specs, signature=describe(ref).signature
    )
    to_onnx(ref, str(target), StepOptions())

    model = load(ref)
    x = np.random.default_rng(0).normal(size=(9, 6)).astype(np.float32)
    session = onnxruntime.InferenceSession(target, providers=["CPUExecutionProvider"])
    np.testing.assert_allclose(
        session.run(None, {"x": x})[0],
        model(torch.from_numpy(x)).detach().numpy(),
        rtol=RTOL,
        atol=ATOL,
    )
    assert model.inner[0].implementation == "grouped_mm"


def test_a_program_of_grouped_experts_is_refused_with_what_to_do(
    file: Path, tmp_path: Path
) -> None:
    model = load(ModelRef("torch", Encoding.PYTHON, f"{file}:MODEL"))
    program = torch.export.export(model, (torch.zeros(3, 6),))
    torch.export.save(program, tmp_path / "net.pt2")

    findings = scan(ModelRef("torch", Encoding.TORCH_EXPORT, str(tmp_path / "net.pt2")))

    assert any("set_experts_implementation('batched_mm')" in finding for finding in findings)
