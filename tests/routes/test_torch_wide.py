"""Exported PyTorch programs that compute in float64, as a measure of what float32 loses."""

from __future__ import annotations

import copy
from typing import Any

import pytest

torch = pytest.importorskip("torch")

from modelpack.adapters.torch_wide import widen  # noqa: E402
from modelpack.errors import InputError  # noqa: E402


class Network(torch.nn.Module):  # type: ignore[misc]
    """Weights, a buffer, a constant, made-up tensors and a cast."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = torch.nn.Sequential(torch.nn.Linear(6, 40), torch.nn.BatchNorm1d(40))
        self.scale = torch.full((40,), 0.3)

    def forward(self, x: Any) -> Any:
        shift = torch.arange(40, dtype=x.dtype) / 7 + torch.ones(40, dtype=x.dtype)
        return torch.tanh(self.layers(x) * self.scale + shift).to(x.dtype)


def exported() -> tuple[Any, Any, Any]:
    """A network, its program and rows."""
    torch.manual_seed(0)
    network = Network().eval()
    rows = torch.randn(9, 6)
    dims = {"x": {0: torch.export.Dim("batch")}}
    return network, torch.export.export(network, (rows,), dynamic_shapes=dims), rows


def test_all_is_computed_in_float64() -> None:
    network, program, rows = exported()
    module = program.module(check_guards=False)
    widen(program, module)
    found = module(rows.double())
    exact = copy.deepcopy(network).double()
    exact.scale = network.scale.double()
    assert found.dtype == torch.float64
    torch.testing.assert_close(found, exact(rows.double()), rtol=1e-13, atol=1e-13)
    assert (network(rows) - found).abs().max() > 1e-9


def test_the_program_stays_as_it_was() -> None:
    _, program, rows = exported()
    before = program.module()(rows)
    widen(program, program.module(check_guards=False))
    assert torch.equal(program.module()(rows), before)
    assert {tensor.dtype for tensor in program.parameters()} == {torch.float32}


def test_programs_of_other_dtypes_are_refused() -> None:
    program = torch.export.export(torch.nn.Linear(3, 2).half(), (torch.randn(2, 3).half(),))
    with pytest.raises(InputError, match="float32 alone"):
        widen(program, program.module(check_guards=False))
