"""Where in a candidate's graph values stop to be the reference's.

A tensor is *sound* if it has a counterpart in the reference and its error has not jumped
against the sound tensors that it was computed from. Tensors without a counterpart (converters
fuse and split ops) are trusted if all that was computed from them is right. What is left are
the suspects: the fault is in the first of them, or was not traced.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

from modelpack.bisection.pairing import Pair
from modelpack.bisection.traces import INPUT, Probe, Trace
from modelpack.judging.compare import Judgement
from modelpack.judging.noise import SAFETY, ULP


@dataclass(frozen=True, slots=True)
class Scale:
    """What counts as noise among intermediate tensors; errors as of `pairing.error_of`.

    Attributes:
        floor: the error that rounding explains without any before it.
        jump: how many times the error before it a sound tensor's may be.
        within: the largest error of tensors that are taken for each other's counterparts.
    """

    floor: float
    jump: float
    within: float

    @property
    def noise(self) -> float:
        """The largest error that may be noise: of tensors that are nearly cancelled, say.

        Beyond it, the pair is more likely a wrong one (with and without a small bias).
        """
        return self.floor * self.jump**3

    @classmethod
    def of(cls, judgement: Judgement) -> Scale:
        """That of a candidate that is judged like this.

        A single op loses a few units in the last place, of float32 or what is coarser, and
        more where it takes differences: a jump by ten tells a wrong op from those. An 8-bit
        op loses 1/256 of its range, which is a few times its root mean square.
        """
        if judgement.quantized:
            return cls(floor=2.0**-6, jump=4.0, within=0.5)
        coarser = max(1.0, judgement.noise_limit / SAFETY)
        return cls(floor=ULP * coarser, jump=10.0, within=0.1)


class Flow:
    """The candidate's tensors by number, with what each is computed from.

    Args:
        candidate: its trace.
        pairs: counterparts by number.
        scale: what counts as noise.
        cleared: tensors with a counterpart that are known not to be at fault, whatever
            their error is.
    """

    def __init__(
        self,
        candidate: Trace,
        pairs: Mapping[int, Pair],
        scale: Scale,
        cleared: frozenset[int] = frozenset(),
    ) -> None:
        self.probes = candidate.probes
        self._number = {probe.name: index for index, probe in enumerate(self.probes)}
        self._pairs, self._scale, self._cleared = pairs, scale, cleared
        self._sound: dict[int, float] = {}
        self._before: list[float] = []
        self._reached: list[int] = []
        for index, probe in enumerate(self.probes):
            self._follow(index, probe)

    def _follow(self, index: int, probe: Probe) -> None:
        above = self.inputs_of(index)
        before = max((self._sound.get(i, self._before[i]) for i in above), default=0.0)
        reached = max((self._reached[i] for i in above), default=-1)
        pair = self._pairs.get(index)
        if probe.op == INPUT:
            self._sound[index] = 0.0
        elif pair is not None and self._holds(index, pair, before):
            self._sound[index] = pair.error
            reached = max(reached, pair.reference)
        self._before.append(before)
        self._reached.append(reached)

    def _holds(self, index: int, pair: Pair, before: float) -> bool:
        return index in self._cleared or pair.error <= self.limit_after(before)

    def limit_after(self, before: float) -> float:
        """The largest error of a sound tensor after this error."""
        return self._scale.jump * max(before, self._scale.floor)

    def before(self, index: int) -> float:
        """The largest error of the sound tensors nearest above one."""
        return self._before[index]

    def reached(self, index: int) -> int:
        """The last tensor of the reference with a sound counterpart above one; -1 for none."""
        return self._reached[index]

    def inputs_of(self, index: int) -> list[int]:
        """What a tensor is computed from."""
        probe = self.probes[index]
        if probe.of_sizes:
            return []
        return [self._number[name] for name in probe.inputs if name in self._number]

    @cached_property
    def readers(self) -> list[list[int]]:
        """What is computed from each tensor."""
        found: list[list[int]] = [[] for _ in self.probes]
        for index, probe in enumerate(self.probes):
            for name in probe.inputs:
                if name in self._number:
                    found[self._number[name]].append(index)
        return found

    @cached_property
    def trusted(self) -> frozenset[int]:
        """Sound tensors, and those without a counterpart of which only trusted ones are made.

        Some is not enough: a fault in one row shows in no other.
        """
        found: set[int] = set()
        for index in reversed(range(len(self.probes))):
            if index in self._sound or self.probes[index].of_sizes:
                found.add(index)
            elif index not in self._pairs and self.readers[index]:
                by_values = (i for i in self.readers[index] if not self.probes[i].of_sizes)
                if all(reader in found for reader in by_values):
                    found.add(index)
        return frozenset(found)

    @property
    def suspects(self) -> list[int]:
        """Tensors that may depart, in the order of computation."""
        return [index for index in range(len(self.probes)) if index not in self.trusted]

    def piece(self, index: int) -> tuple[list[int], list[int]]:
        """The smallest piece of the graph that computes a tensor from trusted ones.

        Returns:
            its inputs, and the tensors it computes; both in the order of computation.
        """
        inputs, inner, pending = set(), {index}, [index]
        while pending:
            for above in self.inputs_of(pending.pop()):
                if above in self.trusted:
                    inputs.add(above)
                elif above not in inner:
                    inner.add(above)
                    pending.append(above)
        return sorted(inputs), sorted(inner)
