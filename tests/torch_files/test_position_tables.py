"""Tables of positions that grow with the sequence: exported without an end."""

from __future__ import annotations

import math

import torch

from modelpack.adapters.torch_forms import traceable
from modelpack.adapters.torch_position_tables import endless_tables


class Grown(torch.nn.Module):
    """Rows for the positions of tokens that are no padding, as transformers looks them up."""

    waves = (torch.sin, torch.cos)
    padding_idx = 1

    def __init__(self) -> None:
        super().__init__()
        self.make_weights(12)

    def make_weights(self, length: int) -> None:
        angles = torch.exp(torch.arange(3).float() * -(math.log(10000) / 2))
        angles = torch.arange(length).float()[:, None] * angles
        table = torch.cat([*(wave(angles) for wave in self.waves), torch.zeros(length, 1)], 1)
        table[self.padding_idx] = 0
        self.weights = torch.nn.Buffer(table, persistent=False)

    @torch.no_grad()
    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        batch, length = tokens.shape
        mask = tokens.ne(self.padding_idx).int()
        positions = (torch.cumsum(mask, 1) * mask).long() + self.padding_idx
        if self.padding_idx + 1 + length > self.weights.size(0):
            self.make_weights(self.padding_idx + 1 + length)
        rows = self.weights.index_select(0, positions.view(-1))
        return rows.view(batch, length, self.weights.shape[-1]).detach()


class M2M100SinusoidalPositionalEmbedding(Grown):
    __module__ = "transformers.models.m2m_100.modeling_m2m_100"
    waves = (torch.sin, torch.cos)


class MusicgenSinusoidalPositionalEmbedding(Grown):
    __module__ = "transformers.models.musicgen.modeling_musicgen"
    waves = (torch.cos, torch.sin)


class SinusoidalPositionalEmbedding(torch.nn.Embedding):
    """FSMT's, which is an embedding."""

    __module__ = "transformers.models.fsmt.modeling_fsmt"

    def __init__(self) -> None:
        super().__init__(12, 7, 1)
        self.make_weight(12)

    def make_weight(self, length: int) -> None:
        made = Grown()
        made.make_weights(length)
        self.weight = torch.nn.Parameter(made.weights, requires_grad=False)

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        if tokens.shape[1] + 2 > self.weight.size(0):
            self.make_weight(tokens.shape[1] + 2)
        mask = tokens.ne(1).int()
        return super().forward((torch.cumsum(mask, 1) * mask).long() + 1)


class Net(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        kinds = M2M100SinusoidalPositionalEmbedding, MusicgenSinusoidalPositionalEmbedding
        self.parts = torch.nn.ModuleList([kind() for kind in kinds])
        self.parts.append(SinusoidalPositionalEmbedding())

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        return torch.cat([part(tokens) for part in self.parts])


def test_tables_that_grow_are_exported_for_all_lengths() -> None:
    net = Net().eval()
    dims = {0: torch.export.Dim("batch"), 1: torch.export.Dim("length")}

    with traceable(net):
        program = torch.export.export(
            net, (torch.arange(10).view(2, 5),), dynamic_shapes=(dims,)
        ).run_decompositions()

    torch.manual_seed(0)
    for length in (1, 5, 10, 11, 12, 300):
        tokens = torch.randint(0, 4, (3, length))
        with torch.no_grad():
            torch.testing.assert_close(program.module()(tokens), net(tokens), rtol=0, atol=1e-6)


def test_a_table_that_holds_something_else_stays() -> None:
    layer = M2M100SinusoidalPositionalEmbedding().eval()
    layer.weights[5, 2] += 1
    tokens = torch.randint(2, 9, (2, 9))
    with torch.no_grad():
        want = layer(tokens)
        with endless_tables(layer):
            assert torch.equal(layer(tokens), want)
