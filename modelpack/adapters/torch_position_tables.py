"""Tables of positions that transformers makes longer when a sequence needs it, without an end.

A trace keeps the table that there was, and with it a limit that the library's code has not. The
rows are sines and cosines, so that each can be computed where it is looked up.
"""

from __future__ import annotations

import contextlib
import functools
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any
from unittest import mock

import torch

# Of the library's classes named so, those whose tables grow; FSMT's has no name before it.
_MODELS = {
    *("", "Kosmos2Text", "Kosmos2_5Text", "M2M100", "Musicgen", "MusicgenMelody", "NllbMoe"),
    *("SeamlessM4T", "SeamlessM4Tv2", "Speech2Text", "SpeechT5", "TrOCR", "XGLM"),
}


@contextlib.contextmanager
def endless_tables(model: torch.nn.Module) -> Iterator[None]:
    """Put tables without an end in the places of those of a model's parts, for a while.

    A table that is not what the library's formula gives stays as it is.
    """
    placed = []
    try:
        for part in model.modules():
            name = "weight" if isinstance(part, torch.nn.Embedding) else "weights"
            table = _endless(part, name) if _grows(part) else None
            if table is not None:
                vars(part)["forward"] = functools.partial(_forward, part, name, table)
                placed.append(part)
        yield
    finally:
        for part in placed:
            del vars(part)["forward"]


def _forward(
    part: torch.nn.Module, name: str, table: _EndlessTable, *args: Any, **kwargs: Any
) -> Any:
    """What a part's own code answers with the table, which Python finds before the buffer."""
    with mock.patch.dict(vars(part), {name: table}):
        return type(part).forward(part, *args, **kwargs)


def _grows(part: torch.nn.Module) -> bool:
    """Whether a part is of one of the library's classes with such a table."""
    kind = type(part)
    model, found, _ = kind.__name__.partition("SinusoidalPositionalEmbedding")
    return kind.__module__.startswith("transformers.models.") and bool(found) and model in _MODELS


def _endless(part: Any, name: str) -> _EndlessTable | None:
    """A part's table without an end; None where it holds anything else than the formula."""
    held = getattr(part, name, None)
    if not isinstance(held, torch.Tensor) or held.dim() != 2 or held.shape[1] < 4:
        return None
    padding = getattr(part, "padding_idx", None)
    for waves in ((torch.sin, torch.cos), (torch.cos, torch.sin)):
        table = _EndlessTable(held.shape[1], padding, held.dtype, waves)
        if torch.equal(table.index_select(0, torch.arange(len(held))), held):
            return table
    return None


class _EndlessTable:
    """Stands for a table [positions, width] where rows of it are looked up."""

    def __init__(
        self,
        width: int,
        padding: int | None,
        dtype: torch.dtype,
        waves: Sequence[Callable[[torch.Tensor], torch.Tensor]],
    ) -> None:
        self.shape = (_Endless(), width)
        self.dtype = dtype
        self.padding = padding
        self.waves = waves
        half = width // 2
        # Computed here, as the library does it: other runtimes round exponentials otherwise, and
        # a position multiplies what that makes.
        self.frequencies = torch.exp(torch.arange(half).float() * -(math.log(10000) / (half - 1)))

    def size(self, dim: int) -> Any:
        """The size of a dimension."""
        return self.shape[dim]

    def index_select(self, dim: int, positions: torch.Tensor) -> torch.Tensor:
        """Rows for positions of any shape."""
        angles = positions[..., None].float() * self.frequencies
        rows = torch.cat([wave(angles) for wave in self.waves], dim=-1)
        rows = torch.nn.functional.pad(rows, (0, self.shape[1] - rows.shape[-1]))
        if self.padding is not None:
            rows = rows.masked_fill((positions == self.padding)[..., None], 0.0)
        return rows.to(self.dtype)

    @classmethod
    def __torch_function__(
        cls,
        function: Callable[..., Any],
        types: Sequence[type],
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        """Look rows up for an embedding, which is a function of PyTorch and takes a table."""
        if function is not torch.nn.functional.embedding:
            return NotImplemented
        positions, table = args[:2]
        return table.index_select(0, positions)


class _Endless:
    """A size that no other is larger than."""

    def __lt__(self, other: object) -> bool:
        return False
