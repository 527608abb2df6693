"""PyTorch models of the planted-bug benchmark, trained for seconds on the digits."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.export import Dim
from torch.nn import functional as F  # noqa: N812

from benchmarks.planted import data

_CLASSES = 10


class Cnn(nn.Module):
    """Convolutions with padding, pooling, a dense layer."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(1, 8, 3, padding=1)
        self.second = nn.Conv2d(8, 16, 3, padding=1, stride=2)
        self.head = nn.Linear(64, _CLASSES)

    def forward(self, image: Tensor) -> Tensor:
        x = F.relu(self.second(F.relu(self.first(image))))
        return self.head(F.max_pool2d(x, 2).flatten(1))


class Residual(nn.Module):
    """Blocks with BatchNorm and a shortcut."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(1, 12, 3, padding=1)
        self.norms = nn.ModuleList(nn.BatchNorm2d(12) for _ in range(3))
        self.convs = nn.ModuleList(nn.Conv2d(12, 12, 3, padding=1, bias=False) for _ in range(2))
        self.head = nn.Linear(12, _CLASSES)

    def forward(self, image: Tensor) -> Tensor:
        x = F.relu(self.norms[0](self.stem(image)))
        x = F.avg_pool2d(x + F.relu(self.norms[1](self.convs[0](x))), 3, 2, padding=1)
        x = x + F.silu(self.norms[2](self.convs[1](x)))
        return self.head(x.mean((2, 3)))


class Encoder(nn.Module):
    """A transformer encoder over tokens of any number up to 64."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(17, 16)
        self.position = nn.Parameter(torch.randn(64, 16))
        layer = nn.TransformerEncoderLayer(
            16, 4, 32, dropout=0.0, activation="gelu", batch_first=True, norm_first=True
        )
        self.encoder = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)
        self.head = nn.Linear(16, _CLASSES)

    def forward(self, tokens: Tensor) -> Tensor:
        x = self.embedding(tokens) + self.position[: tokens.shape[1]]
        return self.head(self.encoder(x).mean(1))


class Recurrent(nn.Module):
    """A bidirectional LSTM over the rows of an image."""

    def __init__(self) -> None:
        super().__init__()
        self.lstm = nn.LSTM(8, 16, batch_first=True, bidirectional=True)
        self.head = nn.Linear(32, _CLASSES)

    def forward(self, steps: Tensor) -> Tensor:
        return F.softmax(self.head(self.lstm(steps)[0].mean(1)), -1)


class Gelu(nn.Module):
    """Dense layers with exact GELU and LayerNorm."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(64, 40), nn.Linear(40, 40)
        self.norm, self.head = nn.LayerNorm(40), nn.Linear(40, _CLASSES)

    def forward(self, image: Tensor) -> Tensor:
        x = F.gelu(self.first(image.flatten(1)))
        return self.head(self.norm(F.gelu(self.second(x)) + x))


class Upsampling(nn.Module):
    """Restores an image from half its size, with aligned corners."""

    def __init__(self) -> None:
        super().__init__()
        self.down = nn.Conv2d(1, 8, 3, stride=2, padding=1)
        self.up = nn.Conv2d(8, 1, 3, padding=1)

    def forward(self, image: Tensor) -> Tensor:
        x = F.leaky_relu(self.down(image), 0.1)
        x = F.interpolate(x, scale_factor=2, mode="bilinear", align_corners=True)
        return self.up(x)


class Slicing(nn.Module):
    """Differences of neighbours, parts of rows, and whole grey levels."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.head = nn.Linear(48 + 56 + 16, 32), nn.Linear(32, _CLASSES)

    def forward(self, image: Tensor) -> Tensor:
        plane = image[:, 0]
        middle, steps = plane[:, 1:7], plane[:, :, 1:] - plane[:, :, :-1]
        coarse = torch.round(plane[:, ::2, ::2] * 8) / 8
        x = torch.cat([middle.flatten(1), steps.flatten(1), coarse.flatten(1)], 1)
        return self.head(torch.tanh(self.first(x)))


class Branch(nn.Module):
    """Rows of bright and of dark images take different ways."""

    def __init__(self) -> None:
        super().__init__()
        self.bright, self.dark = nn.Linear(64, 24), nn.Linear(64, 24)
        self.head = nn.Linear(24, _CLASSES)

    def forward(self, image: Tensor) -> Tensor:
        x = image.flatten(1)
        way = x.mean(1, keepdim=True) > 0.3
        x = torch.where(way, self.bright(x), self.dark(x))
        return self.head(F.hardswish(x))


class Outputs(nn.Module):
    """Two heads of one shape, the digit and the one after it, and features."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Linear(64, 32)
        self.digit, self.following = nn.Linear(32, _CLASSES), nn.Linear(32, _CLASSES)

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        x = torch.sigmoid(self.body(image.flatten(1)))
        return self.digit(x), self.following(x), F.normalize(x, dim=1)


MODELS: dict[str, Callable[[], nn.Module]] = {
    "torch_cnn": Cnn,
    "torch_residual": Residual,
    "torch_encoder": Encoder,
    "torch_lstm": Recurrent,
    "torch_gelu": Gelu,
    "torch_upsampling": Upsampling,
    "torch_slicing": Slicing,
    "torch_branch": Branch,
    "torch_outputs": Outputs,
}
_OUTPUTS = {"torch_upsampling": ["restored"], "torch_outputs": ["digit", "following", "features"]}


def make(name: str, folder: Path) -> None:
    """Train a model, and keep it as it was before its last epoch too."""
    torch.manual_seed(data.SEED)
    torch.set_num_threads(1)
    model = MODELS[name]()
    images, labels, held = data.digits()
    shaped, rows = _shaped(name, images), _shaped(name, held)
    optimizer = torch.optim.AdamW(model.parameters(), lr=5e-3)
    generator = torch.Generator().manual_seed(data.SEED)
    for epoch in range(6):
        if epoch == 5:
            _export(name, model, rows, folder / "stale.pt2")
        model.train()
        for chosen in torch.randperm(len(shaped), generator=generator).split(64):
            optimizer.zero_grad()
            _loss(
                model(shaped[chosen]), shaped[chosen], torch.from_numpy(labels)[chosen]
            ).backward()
            optimizer.step()
    _export(name, model, rows, folder / "model.pt2")
    outputs = _OUTPUTS.get(name, ["logits"])
    (folder / "outputs.json").write_text(json.dumps(outputs))
    data.write(folder, {_argument(name): rows.numpy()})


def _shaped(name: str, images: Any) -> Tensor:
    if name == "torch_encoder":
        return torch.from_numpy(images * 16).round().long().flatten(1)
    tensor = torch.from_numpy(images)
    return tensor if name == "torch_lstm" else tensor[:, None]


def _argument(name: str) -> str:
    return {"torch_encoder": "tokens", "torch_lstm": "steps"}.get(name, "image")


def _loss(answer: Any, rows: Tensor, labels: Tensor) -> Tensor:
    if isinstance(answer, tuple):
        following = F.cross_entropy(answer[1], (labels + 1) % _CLASSES)
        return F.cross_entropy(answer[0], labels) + following
    if answer.shape == rows.shape:
        return F.mse_loss(answer, rows)
    return F.cross_entropy(answer, labels)


def _export(name: str, model: nn.Module, rows: Tensor, path: Path) -> None:
    model.eval()
    dims = {0: Dim("batch")}
    if name == "torch_encoder":
        dims[1] = Dim("time", max=64)
    shapes = {_argument(name): dims}
    torch.export.save(torch.export.export(model, (rows[:3],), dynamic_shapes=shapes), path)
