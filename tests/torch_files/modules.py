"""Modules that the tests of PyTorch files save: each decides, repeats or returns in its own way."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class BranchOnValues(nn.Module):
    """Takes another layer where the sum of the input is positive."""

    def __init__(self) -> None:
        super().__init__()
        self.one = nn.Linear(4, 3)
        self.other = nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        y = self.other(x) * 2
        if bool(x.sum() > 0) and float(x.max()) < 100.0:
            y = self.one(x)
        return y


class BranchOnSize(nn.Module):
    """Answers otherwise from four rows on."""

    def forward(self, x: Tensor) -> Tensor:
        if x.size(0) > 4:
            x = x * 2
        return x + 1


class ChangesInBranch(nn.Module):
    """Changes its input's copy in place, on one side of a branch on values."""

    def forward(self, x: Tensor) -> Tensor:
        y = x.clone()
        if bool(x.sum() > 0):
            y.mul_(2)
        return y


class EndlessLoop(nn.Module):
    """Halves until the values are small: how often depends on them."""

    def forward(self, x: Tensor) -> Tensor:
        while bool(x.abs().sum() > 1.0):
            x = x * 0.5
        return x


class BranchOnWholeNumber(nn.Module):
    """Makes a number of values before it compares."""

    def forward(self, x: Tensor) -> Tensor:
        if int(x.sum()) > 3:
            x = x * 2
        return x


class RowsTimesColumns(nn.Module):
    """Two sides of a branch on values with different shapes."""

    def forward(self, x: Tensor) -> Tensor:
        return x[:, :1] if bool(x.sum() > 0) else x


class Everything(nn.Module):
    """Embeddings, attention, optional and default arguments, lists, loops, named outputs."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(30, 8)
        self.norm = nn.LayerNorm(8)
        self.attention = nn.MultiheadAttention(8, 2, batch_first=True)
        self.heads = nn.ModuleList([nn.Linear(8, 3) for _ in range(3)])

    def forward(self, ids: Tensor, mask: Tensor | None = None, turns: int = 2) -> dict[str, Tensor]:
        x = self.norm(self.embedding(ids))
        x = self.attention(x, x, x)[0]
        if mask is not None:
            x = x * mask.unsqueeze(-1)
        for _ in range(turns):
            x = torch.tanh(x) + x
        heads: list[Tensor] = []
        for head in self.heads:
            heads.append(head(x))
        mean = heads[0]
        for index in range(1, len(heads)):
            mean = mean + heads[index] * float(index)
        return {"mean": mean / len(heads), "all": torch.stack(heads, 1)[:, :, ::2]}


class Recurrent(nn.Module):
    """An LSTM and what follows it."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.LSTM(4, 5, batch_first=True, bidirectional=True)
        self.head = nn.Linear(10, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.layer(x)[0])


class WritesOnLoad(nn.Module):
    """Writes a file while it is loaded: the method is run by ``torch.jit.load``."""

    def __init__(self, path: str) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(3))
        self.path = path

    @torch.jit.export
    def __getstate__(self) -> tuple[Tensor, str, bool]:
        return self.weight, self.path, self.training

    @torch.jit.export
    def __setstate__(self, state: tuple[Tensor, str, bool]) -> None:
        self.weight = state[0]
        self.path = state[1]
        self.training = state[2]
        torch.save(state[0], state[1])

    def forward(self, x: Tensor) -> Tensor:
        return x * self.weight


def convolutions() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1),
        nn.BatchNorm2d(8),
        nn.ReLU(inplace=True),
        nn.AdaptiveAvgPool2d(2),
        nn.Flatten(),
        nn.Linear(32, 4),
    )


def encoder() -> nn.Module:
    layer = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True)
    return nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)


class TiedWeights(nn.Module):
    """Scores each token by the table that it was looked up in: one weight of two names."""

    def __init__(self) -> None:
        super().__init__()
        self.table = nn.Embedding(10, 4)
        self.head = nn.Linear(4, 10, bias=False)
        self.head.weight = self.table.weight

    def forward(self, ids: Tensor) -> Tensor:
        return self.head(self.table(ids))
