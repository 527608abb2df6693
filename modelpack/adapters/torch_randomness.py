"""Random numbers that a model draws in evaluation mode: nothing can be compared with them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode

from modelpack.adapters.torch_failures import place_here


def random_place(call: Callable[[], object]) -> str | None:
    """The line of the model's code that first draws in a call, as `torch_failures.place_here` does.

    Returns:
        the line, or nothing where it is not known; None where no random number is drawn.
    """
    watching = _Watching()
    with torch.no_grad(), watching:
        call()
    return next(iter(watching.places), None)


class _Watching(TorchDispatchMode):  # type: ignore[misc]  # torch is not type-checked
    """Notes where ops draw from a generator of random numbers."""

    def __init__(self) -> None:
        super().__init__()
        self.places: list[str] = []

    def __torch_dispatch__(
        self, func: Any, types: object, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        if torch.Tag.nondeterministic_seeded in func.tags:
            self.places.append(place_here())
        return func(*args, **(kwargs or {}))
