"""Numbers that are put where a mask says."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import torch

from modelpack.adapters.torch import to_onnx
from modelpack.adapters.torch_masks import filled
from modelpack.artifact import Encoding, ModelRef
from modelpack.steps import StepOptions


class Puts(torch.nn.Module):
    """By a mask of all axes or of the first ones, of a copy or of a part of one."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = x.clone()
        y[x > 0.5] = torch.finfo(x.dtype).max
        rows = y[:, 0]
        rows[x[:, 0].sum(-1) > 0] = -3
        return torch.index_put(y, (y < 0,), torch.tensor(0.25))


class Places(torch.nn.Module):
    """Several numbers, places by number, sums, and booleans: no fills."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = x.clone()
        y[:2][torch.tensor([[True, False], [False, True]])] = torch.arange(3.0).expand(2, 3)
        y[torch.tensor([0, 1])] = 7.0
        large = x > 0.5
        large[x < 0.7] = False  # ONNX Runtime has no choice among booleans
        return torch.index_put(y, (x > 0,), torch.tensor(1.0), accumulate=True) * large


def exported(model: torch.nn.Module) -> torch.export.ExportedProgram:
    batch = torch.export.Dim("batch")
    return torch.export.export(model, (torch.zeros(3, 2, 3),), dynamic_shapes=({0: batch},))


def test_one_number_is_chosen_by_the_mask(tmp_path: Path) -> None:
    program = exported(Puts())
    torch.export.save(program, tmp_path / "net.pt2")
    ref = ModelRef("torch", Encoding.TORCH_EXPORT, str(tmp_path / "net.pt2"))

    to_onnx(ref, str(tmp_path / "net.onnx"), StepOptions())

    assert "NonZero" not in {node.op_type for node in onnx.load(tmp_path / "net.onnx").graph.node}
    session = onnxruntime.InferenceSession(tmp_path / "net.onnx")
    for rows in (1, 6):
        x = np.random.default_rng(rows).normal(size=(rows, 2, 3)).astype(np.float32)
        want = Puts()(torch.from_numpy(x)).numpy()
        np.testing.assert_array_equal(session.run(None, {"x": x})[0], want)
    assert any("index_put" in str(node.target) for node in program.graph.nodes)  # left as it was


def test_other_places_stay_what_they_are() -> None:
    program = exported(Places())
    assert filled(program) is program
