"""Values that are made up for the integer inputs of exported programs."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from modelpack.adapters.torch import describe, run
from modelpack.artifact import Encoding, ModelRef
from modelpack.errors import InputError
from modelpack.samples import write_cases
from modelpack.steps import RunOptions

WORDS, PLACES, KINDS = 50, 12, 3


class Counted(torch.nn.Module):
    """Positions are counted along a mask, as in OPT."""

    def __init__(self) -> None:
        super().__init__()
        self.words = torch.nn.Embedding(WORDS, 4)
        self.places = torch.nn.Embedding(PLACES, 4)

    def forward(self, first: torch.Tensor, second: torch.Tensor) -> torch.Tensor:
        places = torch.cumsum(second, 1) * second
        return self.words(first) + self.places(places)


class Truth(Counted):
    """The mask becomes a boolean."""

    def forward(self, first: torch.Tensor, second: torch.Tensor) -> torch.Tensor:
        return self.words(first) * second.to(torch.bool)[..., None]


class Columns(Counted):
    """An input of which one column is a word, another a place."""

    def forward(self, first: torch.Tensor, second: torch.Tensor) -> torch.Tensor:
        both = first[:, :, None].expand(-1, -1, 2)
        return self.words(both[:, :, 0]) + self.places(second.reshape(second.shape))


class Number(Counted):
    """An input that is computed with as a number."""

    def forward(self, first: torch.Tensor, second: torch.Tensor) -> torch.Tensor:
        return self.words(first) * second[..., None] + self.places.weight.sum()


class Hiding(Counted):
    """A mask hides what is 0 in it: other numbers would overflow, as in CANINE."""

    def forward(self, first: torch.Tensor, second: torch.Tensor) -> torch.Tensor:
        mask = torch.ones(5, 1) * second[:, None].float()
        scores = (1.0 - mask[:, None]) * torch.finfo(torch.float32).min
        return self.words(first) + torch.softmax(scores, -1).mean((1, 3))[..., None]


class Difference(Counted):
    """What is left of 1 is no mask where nothing is hidden by it."""

    def forward(self, first: torch.Tensor, second: torch.Tensor) -> torch.Tensor:
        return self.words(first) + ((1.0 - second) * 0.5)[..., None]


def saved(model: torch.nn.Module, directory: Path) -> ModelRef:
    path = directory / "net.pt2"
    first, second = torch.zeros(2, 5, dtype=torch.int64), torch.zeros(2, 5, dtype=torch.int64)
    batch = torch.export.Dim("batch")
    program = torch.export.export(
        model.eval(), (first, second), dynamic_shapes=({0: batch}, {0: batch})
    )
    torch.export.save(program, path)
    return ModelRef("torch", Encoding.TORCH_EXPORT, str(path))


@pytest.mark.parametrize(
    ("kind", "highest"),
    [
        (Counted, 1),
        (Truth, WORDS - 1),
        (Columns, PLACES - 1),
        (Number, WORDS - 1),
        (Hiding, 1),
        (Difference, WORDS - 1),
    ],
)
def test_counted_and_hiding_masks_are_zeros_and_ones_and_others_rows_of_their_table(
    kind: type[torch.nn.Module], highest: int, tmp_path: Path
) -> None:
    ranges = describe(saved(kind(), tmp_path)).ranges

    assert {name: (one.low, one.high) for name, one in ranges.items()} == {
        "first": ((0.0,), (WORDS - 1.0,)),
        "second": ((0.0,), (float(highest),)),
    }


def test_a_number_outside_of_a_table_is_explained(tmp_path: Path) -> None:
    ref = saved(Columns(), tmp_path)
    case = {"first": np.zeros((1, 5), np.int64), "second": np.full((1, 5), PLACES, np.int64)}
    write_cases(tmp_path / "in.npz", [case])

    with pytest.raises(InputError, match="index out of range") as caught:
        run(ref, str(tmp_path / "in.npz"), str(tmp_path / "out.npz"), RunOptions())

    assert "embedding" in caught.value.hint
