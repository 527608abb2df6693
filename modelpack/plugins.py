"""What other distributions add, through entry points."""

from __future__ import annotations

from importlib.metadata import entry_points
from typing import Any

from modelpack.errors import ModelpackError


def names(group: str) -> tuple[str, ...]:
    """Names of a group's entry points, in order; nothing is loaded."""
    return tuple(sorted(point.name for point in entry_points(group=group)))


def load(group: str, name: str) -> Any:
    """Load what an entry point names.

    Raises:
        ModelpackError: its import fails.
    """
    [point, *_] = entry_points(group=group, name=name)
    try:
        return point.load()
    except Exception as error:  # whatever the import of somebody's module raises
        raise ModelpackError(
            f"the plug-in '{name}' of {group} cannot be loaded: {error}",
            hint="repair or uninstall the distribution that brings it",
        ) from error
