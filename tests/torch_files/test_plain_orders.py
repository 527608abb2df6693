"""Ops that go by the order or the dtype of values: what is written in their place."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import torch
from torch.nn import functional

from modelpack.adapters.torch import to_onnx
from modelpack.adapters.torch_loading import load
from modelpack.adapters.torch_plain import plain
from modelpack.artifact import Encoding, ModelRef
from modelpack.steps import StepOptions

from .test_plain import Call, check, exported, module, normal


def ordered(x: torch.Tensor) -> list[torch.Tensor]:
    """Orders of [batch, 2, 6, 5], of values that repeat."""
    steps = (x * 2).round()
    unknown = torch.where(x > 1.5, torch.nan, x)
    found = [*torch.sort(steps, dim=2, descending=True, stable=True)]
    found += [x.median(-1).values, x.median(0).values, x.median(), unknown.median(1).values]
    found += [x.kthvalue(2, dim=2, keepdim=True).values, steps.long().kthvalue(3, -1).values]
    found += [*steps.cummax(2), *steps.long().cummin(-1), x.cumprod(0), x.cumprod(2)]
    rows = x.sort(-1).values
    found += [torch.searchsorted(rows, x.flip(0).contiguous(), side="right")]
    found += [torch.searchsorted(rows[0, 0, 0], steps, out_int32=True)]
    found += [torch.isin(steps, torch.tensor([1.0, -2.0]), invert=True)]
    found += [torch.fmax(unknown, x - 1), torch.fmin(x - 1, unknown)]
    found += [*unknown.cummax(2), *unknown.cummin(-1), x.sum().median(0).values]
    found += [torch.searchsorted(rows[0, 0, 0], unknown), torch.isin(steps, torch.zeros(0))]
    found += [torch.argsort(steps, dim=2, stable=True), torch.fmax(steps.long(), x.long() - 1)]
    return found


def test_orders(tmp_path: Path) -> None:
    check(tmp_path, Call(ordered), normal(2, 6, 5))


def test_what_onnx_runtime_computes_otherwise_stays() -> None:
    def whole(x: torch.Tensor) -> tuple[torch.Tensor, ...]:
        return x.long().cumprod(-1), (x > 0).sort(dim=-1, stable=True).values

    program = exported(Call(whole), normal(5))
    assert plain(program) is program


def scattered(x: torch.Tensor) -> list[torch.Tensor]:
    """Means of the rows of [batch, 6, 5] by numbers of their own, one of which is no row's."""
    places = (x[:, :, :1] * 2).long().abs().clamp(max=3).expand_as(x)
    held = torch.full((x.shape[0], 5, 5), 2.0)
    return [
        held.scatter_reduce(1, places, x, "mean"),
        held.scatter_reduce(1, places, x, "mean", include_self=False),
        held.long().scatter_reduce(1, places, (x * 9).long(), "mean"),
        held.scatter_reduce(1, places, x, "amax"),
    ]


def test_scattered_means(tmp_path: Path) -> None:
    check(tmp_path, Call(scattered), normal(6, 5))


def of_conditions(x: torch.Tensor) -> list[torch.Tensor]:
    """Conditions and whole numbers, [batch, 5], where ONNX has the op for fractions alone."""
    one, other, whole = x > 0, x > 1, (x * 9).long()
    changed = other.clone()
    changed.masked_fill_(x < -1, True)
    changed += x > 2
    found = [
        one + other,
        torch.where(whole > 3, one, other),
        torch.where(one, True, other),
        changed,
    ]
    found += [one.masked_fill(other, False), one.masked_fill(x < -1, torch.tensor(True))]
    found += [torch.relu(whole), torch.relu_(whole - 2), whole.floor(), whole.isnan()]
    found += [whole.mean(1, dtype=torch.float32), one.mean(dtype=torch.float32)]
    found += [functional.softmax(whole, -1, dtype=torch.float32)]
    found += [functional.log_softmax(whole, -1, dtype=torch.float32)]
    return [*found, torch.stack([whole, one, x], 1)]


def test_conditions_and_whole_numbers(tmp_path: Path) -> None:
    check(tmp_path, Call(of_conditions), normal(5))


def pooled(x: torch.Tensor) -> tuple[torch.Tensor, ...]:
    """Pooled to sizes, [batch, 2, height, width]."""
    return (
        functional.adaptive_avg_pool1d(x[:, :, 0], 4),
        functional.adaptive_max_pool1d(x[:, :, 0], 4),
        functional.adaptive_avg_pool2d(x, (3, 1)),
        functional.adaptive_avg_pool2d(x, (None, 2)),
        functional.adaptive_avg_pool2d(x, (x.shape[2] // 2 + 1, 3)),
        functional.adaptive_max_pool2d(x, (2, 3)),
        functional.adaptive_avg_pool3d(x[:, None], (2, 2, 3)),
        functional.adaptive_max_pool3d(x[:, None], (1, 2, 3)),
    )


def test_pooling_of_any_size(tmp_path: Path) -> None:
    dims = {0: torch.export.Dim("batch"), 2: torch.export.Dim("high"), 3: torch.export.Dim("wide")}
    x = torch.randn(2, 2, 8, 9)
    program = torch.export.export(Call(pooled), (x,), dynamic_shapes=((dims,),))
    torch.export.save(program, tmp_path / "net.pt2")
    ref = ModelRef("torch", Encoding.TORCH_EXPORT, str(tmp_path / "net.pt2"))

    to_onnx(ref, str(tmp_path / "net.onnx"), StepOptions())

    session = onnxruntime.InferenceSession(tmp_path / "net.onnx")
    name = session.get_inputs()[0].name
    for batch, high, wide in ((1, 2, 3), (2, 7, 12), (1, 13, 31)):
        x = torch.randn(batch, 2, high, wide, generator=torch.Generator().manual_seed(high))
        for one, other in zip(session.run(None, {name: x.numpy()}), pooled(x), strict=True):
            np.testing.assert_allclose(one, other.numpy(), rtol=1e-5, atol=1e-6)


SIZES = """
import torch


class Net(torch.nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        layer = torch.nn.TransformerEncoderLayer(4, 2, 8, batch_first=True)
        self.encoder = torch.nn.TransformerEncoder(layer, 1, enable_nested_tensor=False)
        self.between = torch.nn.Parameter(torch.randn(3, 4, 4))

    def forward(self, x):
        mask = torch.nn.Transformer.generate_square_subsequent_mask(x.shape[1])
        x = self.encoder(x, mask=mask)
        best = torch.take_along_dim(x, x.argmax(-1, keepdim=True), -1)
        return best, torch.einsum("bli,rij,blj->blr", x, self.between, x)
"""


def test_code_that_goes_by_sizes_of_its_tensors(tmp_path: Path) -> None:
    ref = module(tmp_path, "Net()", "x:float32[batch,time,4]", before=SIZES)

    to_onnx(ref, str(tmp_path / "net.onnx"), StepOptions())

    session = onnxruntime.InferenceSession(tmp_path / "net.onnx")
    model: Any = load(ref)
    for batch, time in ((1, 2), (3, 9)):
        x = torch.randn(batch, time, 4, generator=torch.Generator().manual_seed(time))
        with torch.no_grad():
            want = model(x)
        for one, other in zip(session.run(None, {"x": x.numpy()}), want, strict=True):
            np.testing.assert_allclose(one, other.numpy(), rtol=1e-5, atol=1e-6)


WAVES = """
import torch


class Net(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.wide = torch.nn.Conv1d(1, 2, 10, 5)

    def forward(self, x):
        torch._check_tensor_all(x < 100, lambda: "too loud")
        return self.wide(x[:, None])
"""


def test_a_model_that_takes_no_small_sizes_is_traced_at_larger_ones(tmp_path: Path) -> None:
    ref = module(tmp_path, "Net()", "x:float32[batch,time]", before=WAVES)

    to_onnx(ref, str(tmp_path / "net.onnx"), StepOptions())

    session = onnxruntime.InferenceSession(tmp_path / "net.onnx")
    x = torch.randn(3, 77, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        want = load(ref)(x).numpy()
    np.testing.assert_allclose(session.run(None, {"x": x.numpy()})[0], want, rtol=1e-5, atol=1e-6)


def test_spectrograms_and_back(tmp_path: Path) -> None:
    window = torch.hann_window(16)

    def changed(x: torch.Tensor) -> torch.Tensor:
        spectrum = torch.stft(x, 16, 4, window=window, return_complex=True)
        return torch.istft(spectrum * 2, 16, 4, window=window, length=64)

    check(tmp_path, Call(changed), normal(64))
