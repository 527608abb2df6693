"""Ops that the exporter does not write, or not well: what is written in their place."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from torch import nn
from torch.nn import functional

from modelpack.adapters.torch import describe, to_onnx
from modelpack.adapters.torch_loading import load
from modelpack.adapters.torch_plain import plain
from modelpack.artifact import Encoding, ModelRef
from modelpack.errors import ConversionError
from modelpack.signature import TensorSpec
from modelpack.steps import StepOptions

_Inputs = Callable[[int], tuple[torch.Tensor, ...]]
_EDGES = torch.tensor([0.0, -0.0, 3e-30, -2e25, torch.inf, -torch.inf, 1.0, -4.0])


class Call(nn.Module):
    """A function as a module."""

    def __init__(self, function: Callable[..., Any]) -> None:
        super().__init__()
        self.function = function

    def forward(self, *inputs: torch.Tensor) -> Any:
        return self.function(*inputs)


def exported(model: nn.Module, inputs: _Inputs) -> torch.export.ExportedProgram:
    batch = torch.export.Dim("batch")
    dims = tuple({0: batch} for _ in inputs(2))
    shapes = (dims,) if isinstance(model, Call) else dims
    return torch.export.export(model.eval(), inputs(3), dynamic_shapes=shapes)


def check(folder: Path, model: nn.Module, inputs: _Inputs) -> onnx.ModelProto:
    """Export a program, and compare ONNX Runtime with PyTorch at other batch sizes."""
    torch.export.save(exported(model, inputs), folder / "net.pt2")
    ref = ModelRef("torch", Encoding.TORCH_EXPORT, str(folder / "net.pt2"))
    to_onnx(ref, str(folder / "net.onnx"), StepOptions())
    session = onnxruntime.InferenceSession(folder / "net.onnx", providers=["CPUExecutionProvider"])
    names = [item.name for item in session.get_inputs()]
    for batch in (1, 2, 5):
        feed = inputs(batch)
        with torch.no_grad():
            want = model(*feed)
        got = session.run(None, {n: x.numpy() for n, x in zip(names, feed, strict=True)})
        for one, other in zip(got, torch.utils._pytree.tree_leaves(want), strict=True):
            np.testing.assert_allclose(one, other.numpy(), rtol=2e-5, atol=2e-6)
    return onnx.load(folder / "net.onnx")


def normal(*shape: int) -> _Inputs:
    """One input, [batch, *shape]."""

    def made(batch: int) -> tuple[torch.Tensor, ...]:
        return (torch.randn(batch, *shape, generator=torch.Generator().manual_seed(batch)),)

    return made


def attend(**options: Any) -> Callable[..., torch.Tensor]:
    return lambda x: functional.scaled_dot_product_attention(x, x * 2, x - 1, **options)


def fewer_heads(x: torch.Tensor) -> torch.Tensor:
    return functional.scaled_dot_product_attention(x, x[:, :, :2], x[:, :, 2:], enable_gqa=True)


def hidden_rows(x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """By a mask of the input, with rows that are hidden whole: as booleans and as numbers."""
    mask = (x[..., :1] > 0) & torch.ones(5, dtype=torch.bool)
    added = torch.zeros(mask.shape).masked_fill(~mask, -torch.inf)
    return attend(attn_mask=mask)(x), attend(attn_mask=added)(x)


def test_attention_of_another_rank(tmp_path: Path) -> None:
    def every(x: torch.Tensor) -> tuple[torch.Tensor, ...]:
        causal = attend(is_causal=True)(x)
        return attend(scale=0.3)(x[:, 0, 0]), causal, fewer_heads(x), *hidden_rows(x)

    check(tmp_path, Call(every), normal(2, 4, 5, 6))


def test_bags_of_equal_length_need_no_loop(tmp_path: Path) -> None:
    table = torch.linspace(-1, 2, 12).view(4, 3)

    def bags(rows: torch.Tensor, scales: torch.Tensor) -> list[torch.Tensor]:
        scaled = functional.embedding_bag(
            rows, table, mode="sum", per_sample_weights=scales, padding_idx=1
        )
        return [scaled] + [
            functional.embedding_bag(rows, table, mode=mode, padding_idx=padding)
            for mode in ("sum", "mean", "max")
            for padding in (None, -2)
        ]

    def inputs(batch: int) -> tuple[torch.Tensor, ...]:
        rows = torch.arange(batch * 5).view(batch, 5) % 4
        rows[0] = 2  # the padding alone
        return rows, *normal(5)(batch)

    model = check(tmp_path, Call(bags), inputs)

    assert not {node.op_type for node in model.graph.node} & {"Loop", "SequenceEmpty"}


def test_other_bags_stay_what_they_are() -> None:
    offsets = torch.tensor([0, 2, 3])
    program = exported(
        Call(lambda x: functional.embedding_bag(x.long(), torch.eye(4), offsets)),
        lambda batch: (torch.arange(batch + 4) % 4,),
    )

    assert plain(program) is program


class Forms(nn.Module):
    """Everything else that is written plainly, of [batch, 2, 6, 5]."""

    def __init__(self) -> None:
        super().__init__()
        self.slope = nn.RReLU(0.1, 0.4)
        self.largest = nn.AdaptiveMaxPool2d((4, 3))
        self.mean = nn.AdaptiveAvgPool3d((3, 4, None))
        self.register_buffer("many", torch.linspace(0, 9, 150).view(30, 5))

    def forward(self, x: torch.Tensor) -> list[torch.Tensor]:
        distances = [torch.cdist(x, x[:, :, :3] + 1, p) for p in (0.0, 1.0, 2.0, 2.5, float("inf"))]
        edges = _EDGES * x[:, 0, 0, :1, None]
        pooled = self.largest(x), self.mean(x), self.slope(x)
        hypot = torch.hypot(edges, torch.cat([_EDGES, torch.tensor([torch.nan])]).view(-1, 1))
        signs = torch.copysign(x[..., :1], _EDGES)
        nested = torch.hypot(torch.hypot(x, x + 1), x - 2)
        return [*distances, torch.cdist(x, self.many), *pooled, hypot, signs, nested]


def test_plain_forms_answer_what_the_ops_do(tmp_path: Path) -> None:
    check(tmp_path, Forms(), normal(2, 6, 5))


def test_uneven_means_are_no_sum_of_gathers(tmp_path: Path) -> None:
    means = Call(lambda x: functional.adaptive_avg_pool2d(x, (4, 3)))

    model = check(tmp_path, means, normal(2, 6, 5))

    assert "Gather" not in {node.op_type for node in model.graph.node}


def test_pooling_to_places_stays_what_it_is() -> None:
    pool = Call(lambda x: functional.adaptive_max_pool2d(x, (4, 3), return_indices=True))
    program = exported(pool, normal(2, 6, 5))

    assert plain(program) is program


class Projected(nn.LSTM):
    """Of two layers in both directions, each with a state to start from of its own."""

    def forward(self, x: torch.Tensor) -> Any:
        scales = torch.arange(4.0).view(4, 1, 1)
        cells = (scales * x.sum(-1)[:, :1]).expand(-1, -1, self.hidden_size)
        return super().forward(x, (scales * x[:, 0, :2], cells))


def test_projected_lstms_are_written_step_by_step(tmp_path: Path) -> None:
    torch.manual_seed(0)
    lstm = Projected(3, 4, 2, proj_size=2, bidirectional=True, batch_first=True)

    check(tmp_path, lstm, normal(2, 3))


def module(folder: Path, code: str, *specs: str, before: str = "import torch") -> ModelRef:
    file = folder / "net.py"
    file.write_text(f"{before}\n\n\nMODEL = {code}\n")
    inputs = tuple(map(TensorSpec.parse, specs))
    ref = ModelRef("torch", Encoding.PYTHON, f"{file}:MODEL", inputs=inputs)
    return ModelRef(
        "torch", Encoding.PYTHON, ref.location, inputs=inputs, signature=describe(ref).signature
    )


def test_distances_of_any_count_of_rows(tmp_path: Path) -> None:
    code = "type('Apart', (torch.nn.Module,), {'forward': lambda self, x: torch.cdist(x, 1 - x)})()"
    ref = module(tmp_path, code, "x:float32[rows,3]")

    to_onnx(ref, str(tmp_path / "net.onnx"), StepOptions())

    session = onnxruntime.InferenceSession(tmp_path / "net.onnx")
    for rows in (1, 25, 40):
        x = normal(3)(rows)[0]
        got = session.run(None, {"x": x.numpy()})[0]
        np.testing.assert_allclose(got, torch.cdist(x, 1 - x).numpy(), rtol=1e-4, atol=1e-4)


def test_a_projected_lstm_of_any_length_is_refused_by_name(tmp_path: Path) -> None:
    code = "torch.nn.LSTM(3, 5, proj_size=2, batch_first=True)"
    ref = module(tmp_path, code, "x:float32[batch,time,3]")

    with pytest.raises(ConversionError, match=r"proj_size.* steps of time") as caught:
        to_onnx(ref, str(tmp_path / "net.onnx"), StepOptions())

    assert "fixed length" in caught.value.hint


def test_a_module_with_a_projected_lstm_of_known_length(tmp_path: Path) -> None:
    code = "torch.nn.LSTM(3, 5, bias=False, proj_size=2, batch_first=True)"
    ref = module(tmp_path, code, "x:float32[batch,2,3]")

    to_onnx(ref, str(tmp_path / "net.onnx"), StepOptions())

    feed = normal(2, 3)(4)[0]
    got = onnxruntime.InferenceSession(tmp_path / "net.onnx").run(None, {"x": feed.numpy()})
    with torch.no_grad():
        want, (hidden, cell) = load(ref)(feed)
    for one, other in zip(got, (want, hidden, cell), strict=True):
        np.testing.assert_allclose(one, other.numpy(), rtol=1e-5, atol=1e-6)
