"""Small networks of PyTorch, of kinds that the libraries of models have no small one of."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn


class UNet(nn.Module):
    """Two levels down and up again, with transposed convolutions and skip connections."""

    def __init__(self) -> None:
        super().__init__()
        self.down = nn.ModuleList([self._block(3, 16), self._block(16, 32), self._block(32, 64)])
        self.up = nn.ModuleList(
            [nn.ConvTranspose2d(64, 32, 2, stride=2), nn.ConvTranspose2d(32, 16, 3, 2, 1, 1)]
        )
        self.merge = nn.ModuleList([self._block(64, 32), self._block(32, 16)])
        self.head = nn.Conv2d(16, 4, 1)

    @staticmethod
    def _block(channels: int, wanted: int) -> nn.Module:
        return nn.Sequential(
            nn.Conv2d(channels, wanted, 3, padding=1), nn.BatchNorm2d(wanted), nn.ReLU()
        )

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        high = self.down[0](image)
        middle = self.down[1](nn.functional.max_pool2d(high, 2))
        low = self.down[2](nn.functional.max_pool2d(middle, 2))
        middle = self.merge[0](torch.cat([self.up[0](low), middle], 1))
        high = self.merge[1](torch.cat([self.up[1](middle), high], 1))
        return self.head(high)


class Recurrent(nn.Module):
    """A recurrent layer and a linear one on its states."""

    def __init__(self, layer: type[nn.Module], last: bool, **options: Any) -> None:
        super().__init__()
        self.layer = layer(12, 24, batch_first=True, **options)
        self.head = nn.Linear(48 if options.get("bidirectional") else 24, 5)
        self.last = last

    def forward(self, series: torch.Tensor) -> torch.Tensor:
        states, _ = self.layer(series)
        return self.head(states[:, -1] if self.last else states)


class Tagger(nn.Module):
    """A transformer encoder over a series."""

    def __init__(self) -> None:
        super().__init__()
        layer = nn.TransformerEncoderLayer(32, 4, 64, batch_first=True, norm_first=True)
        self.into = nn.Linear(12, 32)
        self.encoder = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)
        self.head = nn.Linear(32, 5)

    def forward(self, series: torch.Tensor) -> torch.Tensor:
        return self.head(self.encoder(self.into(series)))


class Convolutions1d(nn.Module):
    """Dilated convolutions over time with residuals, as in a temporal convolutional network."""

    def __init__(self) -> None:
        super().__init__()
        self.into = nn.Conv1d(12, 32, 1)
        self.layers = nn.ModuleList(
            nn.Conv1d(32, 32, 3, padding=2**i, dilation=2**i, groups=1 + i % 2) for i in range(4)
        )
        self.norms = nn.ModuleList(nn.GroupNorm(4, 32) for _ in range(4))
        self.head = nn.Linear(32, 5)

    def forward(self, series: torch.Tensor) -> torch.Tensor:
        x = self.into(series.transpose(1, 2))
        for layer, norm in zip(self.layers, self.norms, strict=True):
            x = x + nn.functional.gelu(norm(layer(x)))
        return self.head(x.mean(2))


class Convolutions3d(nn.Module):
    """Convolutions over video."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv3d(3, 8, 3, padding=1), nn.BatchNorm3d(8), nn.ReLU(), nn.MaxPool3d(2),
            nn.Conv3d(8, 16, 3, padding=1), nn.BatchNorm3d(16), nn.ReLU(),
            nn.AdaptiveAvgPool3d(1), nn.Flatten(), nn.Linear(16, 5),
        )  # fmt: skip

    def forward(self, video: torch.Tensor) -> torch.Tensor:
        return self.layers(video)


class Generator(nn.Module):
    """The generator of a DCGAN."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.ConvTranspose2d(16, 32, 4), nn.BatchNorm2d(32), nn.ReLU(),
            nn.ConvTranspose2d(32, 16, 4, 2, 1), nn.InstanceNorm2d(16), nn.LeakyReLU(0.2),
            nn.Upsample(scale_factor=2, mode="bilinear"), nn.Conv2d(16, 12, 3, padding=1),
            nn.PixelShuffle(2), nn.Tanh(),
        )  # fmt: skip

    def forward(self, noise: torch.Tensor) -> torch.Tensor:
        return self.layers(noise[:, :, None, None])
