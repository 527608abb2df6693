"""Mixtures of experts of transformers, in the form of their products that PyTorch can export.

Their usual form groups tokens by expert, with an op of the library's own. Its batched form takes
the weights of each token's experts instead: the same products, of more memory.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import torch

GROUPED = "transformers.grouped_mm"
BATCHED_HINT = "call set_experts_implementation('batched_mm') on the model and export it again"


@contextlib.contextmanager
def batched_experts(model: torch.nn.Module) -> Iterator[None]:
    """Let experts anywhere in the model compute in batches, for a while."""
    usual = [(part, part.get_experts_implementation()) for part in _choosing(model)]
    try:
        for part, _ in usual:
            part.set_experts_implementation("batched_mm")
        yield
    finally:
        for part, implementation in usual:
            part.set_experts_implementation(implementation)


def _choosing(model: torch.nn.Module) -> list[Any]:
    """The parts that let their users choose how experts compute."""
    wanted = ("get_experts_implementation", "set_experts_implementation")
    return [part for part in model.modules() if all(hasattr(part, name) for name in wanted)]
