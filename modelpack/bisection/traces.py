"""Traces: the tensors that a model computes on its way from one feed to its outputs.

A trace is a list of probes, in the order in which they were computed, and an ``.npz`` file
with the value of each under its number. Values are written one by one as they come up and
read one by one when asked for: no trace is ever in memory.
"""

from __future__ import annotations

import zipfile
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

import numpy as np

from modelpack.samples import Array

# The op of a probe that is an input of the model.
INPUT = "input"


@dataclass(frozen=True, slots=True)
class Probe:
    """One tensor of a trace.

    Attributes:
        name: of the tensor, unique in the trace.
        op: what computed it: an op, layer or pipeline step; `INPUT` for inputs of the model.
        node: that op's own name, where it has one besides its result's.
        inputs: the tensors it was computed from, but for constants; empty where the
            framework does not say.
        of_sizes: it depends on the shapes of its inputs only, not on their values.
    """

    name: str
    op: str
    node: str = ""
    inputs: tuple[str, ...] = ()
    of_sizes: bool = False


class TraceWriter:
    """Writes a trace; use as a context manager.

    Args:
        path: the ``.npz`` file.
    """

    def __init__(self, path: Path) -> None:
        self._archive = zipfile.ZipFile(path, "w")
        self._names: set[str] = set()
        self.probes: list[Probe] = []

    def __enter__(self) -> TraceWriter:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._archive.close()

    def add(self, probe: Probe, value: object) -> None:
        """Append a tensor; what is no array (a sequence, a resource) has no value later."""
        array = _storable(value)
        if array is not None:
            with self._archive.open(f"{len(self.probes)}.npy", "w", force_zip64=True) as stream:
                np.lib.format.write_array(stream, array, allow_pickle=False)
        self._names.add(probe.name)
        self.probes.append(probe)

    def free_name(self, wanted: str) -> str:
        """The wanted name, or with a number behind it if a tensor has it already."""
        name, number = wanted, 1
        while name in self._names:
            number += 1
            name = f"{wanted}_{number}"
        return name


def _storable(value: object) -> Array | None:
    if not isinstance(value, np.ndarray | np.generic):
        return None
    array = np.asarray(value)
    if array.dtype.name == "bfloat16":
        return array.astype(np.float32)
    if array.dtype.kind in "OST":
        flat = [
            item.decode(errors="replace") if isinstance(item, bytes) else str(item)
            for item in array.flat
        ]
        return np.array(flat, np.str_).reshape(array.shape)
    return array if array.dtype.kind in "fiubUc" else None


class Trace:
    """A trace that was written.

    Args:
        probes: what `TraceWriter.probes` was.
        path: the ``.npz`` file.
    """

    def __init__(self, probes: Iterable[Probe], path: Path) -> None:
        self.probes: Sequence[Probe] = tuple(probes)
        self._path = path
        with zipfile.ZipFile(path) as archive:
            self._members = frozenset(archive.namelist())

    def __len__(self) -> int:
        return len(self.probes)

    def value(self, index: int) -> Array | None:
        """The value of a tensor; None if it has none."""
        member = f"{index}.npy"
        if member not in self._members:
            return None
        with zipfile.ZipFile(self._path) as archive, archive.open(member) as stream:
            array: Array = np.lib.format.read_array(stream, allow_pickle=False)
        return array.astype(object) if array.dtype.kind == "U" else array
